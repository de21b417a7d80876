"""What becomes of a distributed run when a process is killed, told to stop, or meets an error of its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from robosim.checkpoint import load_tensors, read_json
from robosim.training.snapshot import snapshots
from tests.training.processes_script import assert_same_run, bit_equal, fault, job, launch, make, run

pytestmark = pytest.mark.slow

MODEL = "dynamics"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def broken(folder: Path) -> subprocess.CompletedProcess[str]:
    """A run of two processes, one of which was killed at step 8; and one of which one was told to stop at step 6."""
    killed = launch(job(MODEL, folder / "straight"), job(MODEL, folder / "killed", fault=fault("kill", 8)))
    told = launch(job(MODEL, folder / "told", fault=fault("terminate", 6)))
    assert killed.returncode and told.returncode
    for copy in ("whole", "shrunk"):
        shutil.copytree(folder / "killed", folder / copy)
    return told


def test_a_kill_leaves_a_whole_sharded_snapshot(broken, folder: Path):
    (newest,) = snapshots(folder / "whole")
    manifest = read_json(newest / "manifest.json")
    files = ["rank_00000.safetensors", "rank_00001.safetensors"]
    assert newest.name == "step_00000005" and sorted(manifest["files"]) == files
    assert {path.name for path in newest.iterdir()} == {*files, "manifest.json"}
    parts = [load_tensors(newest / name)["model.head.weight"] for name in files]
    whole = dict(make(MODEL).named_parameters())["head.weight"]
    assert manifest["tensors"]["model.head.weight"] == [[0, 0, 6], [1, 6, 12]]
    assert torch.cat(parts).shape == whole.shape


def test_a_signal_to_one_process_saves_in_all_and_ends(broken, folder: Path):
    assert "exitcode  : 130" in broken.stderr.partition("Root Cause")[2], broken.stderr
    assert snapshots(folder / "told"), "saved"


def test_the_same_number_of_processes_goes_on_to_the_same_bits(broken, folder: Path):
    assert [path.name for path in snapshots(folder / "told")][-1] == "step_00000007"
    done = launch(job(MODEL, folder / "killed"), job(MODEL, folder / "told"))
    assert done.returncode == 0, done.stderr
    assert bit_equal(folder / "killed", folder / "straight")
    assert bit_equal(folder / "told", folder / "straight")


def test_one_process_goes_on_with_what_two_began(broken, folder: Path):
    run(job(MODEL, folder / "shrunk"))
    assert_same_run(folder / "shrunk", folder / "straight")


@pytest.mark.parametrize(
    ("kind", "code", "message"),
    [
        ("poison", 7, "process 0 says: step 3: the loss (nan) or its gradient isn't finite"),
        ("unreadable", 3, "process 1 says: the frames are gone"),
    ],
)
def test_what_goes_wrong_in_one_process_ends_all_with_one_message(tmp_path: Path, kind, code, message):
    done = launch(job(MODEL, tmp_path, fault=fault(kind, 3)))
    assert done.returncode
    assert done.stderr.count("says:") == 1 and message in done.stderr
    assert f"exitcode  : {code} " in done.stderr.partition("Root Cause")[2], done.stderr
