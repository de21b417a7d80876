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
from robosim.config import build, choices, compose_tree, to_dict
from robosim.shipped import CARD, SHIPPED, shipped_names
from robosim.simulator import Simulator
from robosim.simulator.probe_frames import ProbeFrames, one_step_psnr
from robosim.stage_runner import load
from robosim.stage_table import BY_NAME
from robosim.training.starting_weights import check_start

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
    weights = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    assert weights == card["weight_bytes"] <= MOST_BYTES
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


def check_drives(sim: Simulator) -> None:
    """Joint commands and buttons change what it shows, and it starts again as it started."""
    first = sim.reset()
    low, high = sim.limits
    command = np.where(first.joints + 0.05 < high, first.joints + 0.05, first.joints - 0.05).clip(low, high)
    assert sim.has_targets
    seen = [sim.step(command) for _ in range(3)]
    for obs in seen:
        assert obs.frame.shape == (sim.size, sim.size, 3) and obs.frame.dtype == np.uint8
        assert np.isfinite(np.concatenate([obs.joints, obs.command, obs.tool])).all()
        assert obs.command == pytest.approx(command, abs=1e-6)
    assert (seen[-1].frame != first.frame).any()
    pressed = []
    for code in range(len(sim.playable)):
        assert np.array_equal(sim.reset().frame, first.frame)
        pressed.append(sim.press(code).frame)
    assert any((frame != first.frame).any() for frame in pressed)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_simulator_is_what_its_card_says(name: str):
    check_shipped(SHIPPED / name)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_simulator_opens_by_its_name(name: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sim = robosim.load(name, device="cpu")
    assert sim.name == name and sim.clips is None
    assert len(np.unique(sim.playable, axis=0)) == len(sim.playable)
    check_drives(sim)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_simulator_is_made_as_the_size_of_its_name(name: str):
    """So `robosim demo` and `robosim train model=tiny init=tiny` can start from it. Other names are free."""
    if name not in choices("model"):
        return
    tree = compose_tree("train", [f"model={name}"])
    for part in ("tokenizer", "latent_action", "dynamics"):
        config = build(load(BY_NAME[part].schema), tree[part], part)
        check_start(str(SHIPPED / name), part, config.model)
        if part == "dynamics":
            sampling = read_json(SHIPPED / name / part / "model.json")["sampling"]
            assert sampling == to_dict(config.sampling), (
                "a run that takes the weights would play them otherwise"
            )


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
