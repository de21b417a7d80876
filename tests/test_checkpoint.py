"""Atomic files and manifests: what is there after a crash, and when a result counts as finished."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from robosim import checkpoint
from robosim.checkpoint import (
    MANIFEST,
    SAME_RESULT,
    atomic_write_json,
    deciding,
    finish_stage,
    json_hash,
    load_tensors,
    prepare_folder,
    read_json,
    save_tensors,
    stage_finished,
    stage_hash,
)
from robosim.errors import CheckpointError, OutputError

CONFIG = {"steps": 10, "model": {"dim": 4}}
INPUTS = {"clips": "abc"}


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A finished stage with one output."""
    atomic_write_json(tmp_path / "model.json", {"dim": 4})
    finish_stage(tmp_path, "tokenizer", CONFIG, INPUTS, 1.5, {"psnr_db": 25.0}, ("model.json",))
    return tmp_path


def test_a_stage_is_finished_for_its_own_request_only(finished: Path):
    assert stage_finished(finished, CONFIG, INPUTS)
    assert not stage_finished(finished, {**CONFIG, "steps": 11}, INPUTS)
    assert not stage_finished(finished, CONFIG, {"clips": "abd"})
    assert not stage_finished(finished.with_name("elsewhere"), CONFIG, INPUTS)


@pytest.mark.parametrize(
    "damage", [lambda p: p.unlink(), lambda p: p.write_text("{}")], ids=["gone", "changed"]
)
def test_a_changed_output_is_never_reused(finished: Path, damage):
    damage(finished / "model.json")
    with pytest.raises(CheckpointError, match=r"model\.json"):
        stage_finished(finished, CONFIG, INPUTS)


def test_a_cut_manifest_is_named(finished: Path):
    text = (finished / MANIFEST).read_text()
    (finished / MANIFEST).write_text(text[: len(text) // 2])
    with pytest.raises(CheckpointError, match=MANIFEST):
        stage_finished(finished, CONFIG, INPUTS)


def test_the_hash_of_a_stage_follows_its_outputs_not_its_time(finished: Path, tmp_path: Path):
    first = stage_hash(finished)
    finish_stage(finished, "tokenizer", CONFIG, INPUTS, 99.0, {"psnr_db": 1.0}, ("model.json",))
    assert stage_hash(finished) == first
    atomic_write_json(finished / "model.json", {"dim": 5})
    finish_stage(finished, "tokenizer", CONFIG, INPUTS, 1.5, {}, ("model.json",))
    assert stage_hash(finished) != first


def test_the_order_of_keys_doesnt_change_a_hash():
    assert json_hash({"a": 1, "b": [1, 2]}) == json_hash({"b": [1, 2], "a": 1})
    assert json_hash({"a": 1}) != json_hash({"a": 2})


def test_tensors_come_back_bit_for_bit(tmp_path: Path):
    tensors = {"w": torch.randn(3, 4), "n": torch.arange(5), "h": torch.randn(2).bfloat16()}
    save_tensors(tmp_path / "m.safetensors", tensors)
    back = load_tensors(tmp_path / "m.safetensors")
    assert {name: value.dtype for name, value in back.items()} == {n: t.dtype for n, t in tensors.items()}
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_a_non_contiguous_tensor_is_saved_as_it_reads(tmp_path: Path):
    tensor = torch.randn(3, 4).T
    save_tensors(tmp_path / "m.safetensors", {"w": tensor})
    assert torch.equal(load_tensors(tmp_path / "m.safetensors")["w"], tensor)


def test_damaged_and_missing_tensors_are_named(tmp_path: Path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(CheckpointError, match="is missing"):
        load_tensors(path)
    save_tensors(path, {"w": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="damaged"):
        load_tensors(path)


def test_a_file_in_the_place_of_a_folder_stays_and_is_named(tmp_path: Path):
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(OutputError, match=r"a file is in its place"):
        prepare_folder(tmp_path / "runs" / "demo")
    assert (tmp_path / "runs").read_text() == "mine"


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch):
    path = tmp_path / "figures.json"
    atomic_write_json(path, {"old": True})

    def full(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="disk is full"):
        atomic_write_json(path, {"new": True})
    assert json.loads(path.read_text()) == {"old": True}
    assert [p.name for p in tmp_path.iterdir()] == ["figures.json"]


def test_a_file_that_finds_no_room_leaves_the_old_weights_and_says_so(tmp_path: Path):
    """The system refuses files above a size, as it would on a full disk: safetensors must say so, and we hand it on."""
    path = tmp_path / "m.safetensors"
    save_tensors(path, {"w": torch.ones(3)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(OutputError, match=rf"can't write .*m\.safetensors: {os.strerror(errno.EFBIG)}"):
            save_tensors(path, {"w": torch.ones(1 << 20)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.equal(load_tensors(path)["w"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_full_disk_is_named_for_tensors_too():
    said = RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert "disk is full" in str(checkpoint.write_error(Path("m"), checkpoint.system_error(said)))


def test_tensors_that_share_memory_are_refused(tmp_path: Path):
    whole = torch.ones(4)
    with pytest.raises(RuntimeError, match="share"):
        save_tensors(tmp_path / "m.safetensors", {"a": whole, "b": whole})
    assert not list(tmp_path.iterdir())


@dataclass
class Inner:
    rate: float = 0.1
    every: int = field(default=5, metadata=SAME_RESULT)


@dataclass
class Outer:
    inner: Inner = field(default_factory=Inner)
    workers: int = field(default=1, metadata=SAME_RESULT)
    sizes: tuple[int, ...] = (1, 2)


def test_what_decides_a_result_leaves_out_what_does_not():
    assert deciding(Outer(Inner(every=7), workers=9)) == {"inner": {"rate": 0.1}, "sizes": [1, 2]}


KILLED = """
import os, signal, sys
from pathlib import Path
from robosim import checkpoint
out, when = Path(sys.argv[1]), sys.argv[2]
replace = os.replace
def dying(source, target):
    if when == "after":
        replace(source, target)
    os.kill(os.getpid(), signal.SIGKILL)
os.replace = dying
checkpoint.finish_stage(out, "tokenizer", {"steps": 20}, {}, 1.0, {})
"""


@pytest.mark.parametrize(("when", "holds"), [("before", False), ("after", True)])
def test_a_kill_inside_the_rename_leaves_the_old_manifest_or_the_new(finished: Path, when: str, holds: bool):
    run = subprocess.run([sys.executable, "-c", KILLED, str(finished), when], timeout=60)
    assert run.returncode == -9
    assert stage_finished(finished, {"steps": 20}, {}) is holds
    assert stage_finished(finished, CONFIG, INPUTS) is not holds
    atomic_write_json(finished / MANIFEST, read_json(finished / MANIFEST))
    assert not list(finished.glob("*.partial"))


def test_the_file_is_flushed_before_it_takes_its_name(tmp_path: Path, monkeypatch):
    order = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(checkpoint.os, "fsync", lambda handle: (order.append("sync"), sync(handle)))
    monkeypatch.setattr(checkpoint.os, "replace", lambda a, b: (order.append("rename"), replace(a, b)))
    atomic_write_json(tmp_path / "x.json", {})
    assert order == ["sync", "rename", "sync"]
