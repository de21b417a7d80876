"""What comes with the package is whole, small, and predicts as its card says."""

from __future__ import annotations

import importlib.resources
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import robosim
from robosim.checkpoint import file_hash, read_json
from robosim.shipped import CARD, SHIPPED, shipped_names
from robosim.simulator.probe_frames import ProbeFrames, one_step_psnr

MOST_BYTES = 25_000_000

NAMES = shipped_names() or [
    pytest.param("", marks=pytest.mark.skip("no simulator is shipped: robosim/simulator/shipped has none"))
]


def check_shipped(folder: Path) -> None:
    """All that a shipped folder promises."""
    card = read_json(folder / CARD)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {*card["files"], CARD}
    for name, digest in card["files"].items():
        assert file_hash(folder / name) == digest, name
    total = sum((folder / name).stat().st_size for name in files)
    assert total <= MOST_BYTES
    assert card["total_bytes"] == total - (folder / CARD).stat().st_size
    sim = robosim.load(folder, device="cpu")
    assert sim.name == card["name"]
    pairs = ProbeFrames.read(folder)
    assert len(pairs.context) == card["check"]["pairs"]
    seen = one_step_psnr(sim.world, pairs)
    for name, value in seen.items():
        assert value == pytest.approx(card["check"][name], abs=0.1), name
    clips = torch.from_numpy(np.stack([pairs.context[:, 0], pairs.following], 1))
    assert np.allclose(sim.world.infer_latents(clips)[:, 0].numpy(), pairs.latents, atol=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_simulator_is_what_its_card_says(name: str):
    check_shipped(SHIPPED / name)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_simulator_opens_by_its_name(name: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sim = robosim.load(name, device="cpu")
    before = sim.reset()
    assert (sim.press(0).frame != before.frame).any()


def test_the_wheel_holds_what_is_shipped(repository: Path):
    """Hatchling takes every file of a package's folder that git doesn't ignore and no rule leaves out."""
    assert Path(str(importlib.resources.files("robosim") / "simulator" / "shipped")) == SHIPPED
    build = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert "robosim" in build["targets"]["wheel"]["packages"]
    rules = {"exclude", "include", "only-include", "only-packages"}
    assert not rules & {*build, *build["targets"]["wheel"]}
    names = [
        "card.json",
        "starts.npz",
        "probe_frames.npz",
        "dynamics/model.safetensors",
        "adapter/adapter.json",
    ]
    inside = [f"robosim/simulator/shipped/tiny/{name}" for name in names]
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", *inside], cwd=repository, capture_output=True, text=True
    )
    assert (ignored.returncode, ignored.stdout) == (1, "")
