"""A real training stage through the command line: killed and resumed, and by two processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from robosim.checkpoint import finish_stage, load_tensors, read_json
from robosim.pipeline import stage_command
from robosim.training.snapshot import snapshots
from tests.training.test_no_action_leak import make_run

pytestmark = pytest.mark.slow

SMALL = (
    "tokenizer.model.channels=8",
    "tokenizer.train.steps=3",
    "tokenizer.train.batch=4",
    "latent_action.model.channels=8",
    "latent_action.model.blocks=1",
    "latent_action.train.steps=3",
    "latent_action.train.batch=4",
    "dynamics.model.transformer.dim=16",
    "dynamics.model.transformer.heads=2",
    "dynamics.model.transformer.layers=2",
    "dynamics.train.steps=40",
    "dynamics.train.batch=4",
    "dynamics.train.save_every=4",
    "dynamics.train.log_every=1",
    "dynamics.clip_length=6",
    "dynamics.context=2",
    "dynamics.horizon=6",
    "device=cpu",
)


def overrides(stage: str, run: Path) -> list[str]:
    return [f"stage={stage}", *SMALL, f"out={run}"]


def command(*before: str, run: Path) -> list[str]:
    return [sys.executable, "-m", *before, "robosim.cli", "train", *overrides("dynamics", run)]


TORCHRUN = ("torch.distributed.run", "--nproc-per-node=2", "-m")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A run folder with clips, tokenizer and latent actions, ready for the dynamics."""
    run = tmp_path_factory.mktemp("prepared")
    make_run(run)
    finish_stage(run / "dataset", "collect", {}, {}, 1.0, {})
    for stage in ("tokenizer", "latent_action"):
        stage_command("train", overrides(stage, run))
    return run


def copied(prepared: Path, name: str) -> Path:
    return Path(shutil.copytree(prepared, prepared.with_name(f"{prepared.name}-{name}")))


@pytest.fixture(scope="module")
def straight(prepared: Path) -> Path:
    run = copied(prepared, "straight")
    stage_command("train", overrides("dynamics", run))
    return run


def test_a_stage_that_was_killed_goes_on_to_the_same_file(prepared: Path, straight: Path):
    run = copied(prepared, "killed")
    process = subprocess.Popen(command(run=run), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not snapshots(run / "dynamics"):
        assert process.poll() is None, "it ended before its first snapshot"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (run / "dynamics" / "model.safetensors").exists()
    stage_command("train", overrides("dynamics", run))
    same = [(folder / "dynamics" / "model.safetensors").read_bytes() for folder in (run, straight)]
    assert same[0] == same[1]
    steps = [
        json.loads(line)["step"] for line in (run / "dynamics" / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == list(range(40)) and not snapshots(run / "dynamics")


def test_torchrun_makes_the_stage_as_one_process_does(prepared: Path):
    straight, run = copied(prepared, "one"), copied(prepared, "torchrun")
    stage_command("train", overrides("dynamics", straight))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command(*TORCHRUN, run=run), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("dynamics: the next frame's tokens") == done.stdout.count("made ") == 1
    one, two = (load_tensors(folder / "dynamics" / "model.safetensors") for folder in (straight, run))
    for name in one:
        torch.testing.assert_close(
            one[name], two[name], rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )
    losses = [
        read_json(folder / "dynamics" / "stage.json")["figures"]["train"]["loss"]
        for folder in (straight, run)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_torchrun_says_once_what_is_missing(tmp_path: Path):
    done = subprocess.run(command(*TORCHRUN, run=tmp_path / "none"), capture_output=True, text=True)
    assert done.returncode and done.stderr.count("isn't finished in") == 1, done.stderr
    assert "exitcode  : 4 " in done.stderr.partition("Root Cause")[2]


def test_torchrun_is_for_training_alone(tmp_path: Path):
    environment = os.environ | {"WORLD_SIZE": "2", "RANK": "0"}
    alone = [sys.executable, "-m", "robosim.cli", "collect", f"out={tmp_path}"]
    done = subprocess.run(alone, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "collect is one process" in done.stderr
