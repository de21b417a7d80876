"""From a lab's files to a simulator that plays: import, train, adapt, by the command line alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import robosim
from robosim.bench.layouts import make_recording, write_rlds, write_videos
from robosim.cli import main

FEW = (
    "tokenizer.model.channels=8", "tokenizer.train.steps=3", "tokenizer.train.batch=4",
    "latent_action.train.steps=3", "latent_action.train.batch=4",
    "dynamics.model.transformer.dim=32", "dynamics.model.transformer.heads=2",
    "dynamics.model.transformer.layers=1", "dynamics.train.steps=3", "dynamics.train.batch=2",
    "dynamics.clip_length=6", "dynamics.context=2", "dynamics.horizon=6",
)  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Two imports: robot recordings with commands, and bare video."""
    folder = tmp_path_factory.mktemp("imports")
    write_rlds(folder / "robot", make_recording(episodes=6, length=12, size=(48, 64), fps=10))
    write_videos(folder / "video", make_recording(episodes=4, length=12, size=(48, 64), seed=1, fps=10))
    for name in ("robot", "video"):
        out = f"out={folder / 'runs' / name}"
        assert main(["import", str(folder / name), "size=32", "source_fps=10", "val_fraction=0.3", out]) == 0
    return folder / "runs"


def train(run: Path, *more: str) -> None:
    for stage in ("tokenizer", "latent_action", "dynamics"):
        assert main(["train", f"stage={stage}", f"out={run}", "device=cpu", *FEW, *more]) == 0


def test_recordings_with_commands_become_a_simulator_that_takes_commands(runs, capsys):
    run = runs / "robot"
    train(run)
    assert (run / "dynamics" / "strips.png").is_file()
    capsys.readouterr()
    assert main(["adapt", f"out={run}", "device=cpu"]) == 0
    assert f"next: robosim play run={run}" in capsys.readouterr().out
    sim = robosim.load(run, device="cpu")
    first = sim.reset()
    assert first.frame.shape == (32, 32, 3)
    second = sim.step(np.zeros(7, np.float32))
    assert second.frame.shape == (32, 32, 3) and np.isfinite(second.joints).all()
    assert main(["pretrain", f"out={run}"]) == 3
    said = capsys.readouterr().err
    assert "pretrain needs a task whose positions are known" in said and len(said.splitlines()) == 1


def test_video_alone_becomes_a_simulator_and_adapt_says_what_it_needs(runs, capsys):
    run = runs / "video"
    train(run)
    assert f"next: robosim play run={run}" in capsys.readouterr().out
    assert main(["adapt", f"out={run}", "device=cpu"]) == 3
    said = capsys.readouterr().err.strip()
    assert "adapt" in said and "commands" in said and len(said.splitlines()) == 1


def test_both_together_train_one_model(runs, capsys):
    run = runs / "mixed"
    mixed = (f"data=[{runs / 'robot'},{runs / 'video'}]", "weights=[1,2]")
    train(run, *mixed)
    shown = capsys.readouterr().out
    assert shown.count("mix: several datasets as one") == 3 and "finished before, kept" in shown
    assert "labels: state, action, reward" in shown
    assert not (run / "clips" / "frames").exists()
