"""What a training run may do otherwise: compile, recompute, halve its precision. The result stays what it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from robosim.checkpoint import load_tensors
from robosim.training import loop
from robosim.training.loop import TrainConfig, set_up
from tests.training.processes_script import QUIET, assert_same_run, job, make, rows, run


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("plain")
    run(job("dynamics", out))
    return out


def test_recomputed_blocks_give_the_same_run(plain: Path, tmp_path: Path, monkeypatch):
    calls = []
    forward = torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(
        "robosim.world_model.st_transformer.checkpoint", lambda *a, **k: calls.append(1) or forward(*a, **k)
    )
    run(job("dynamics", tmp_path, train=QUIET | {"recompute_every": 2}))
    assert_same_run(tmp_path, plain)
    assert len(calls) == 12, "one of two blocks, every step"


def test_bfloat16_learns_nearly_the_same(plain: Path, tmp_path: Path):
    run(job("dynamics", tmp_path, train=QUIET | {"precision": "bfloat16"}))
    losses = [[row["loss"] for row in rows(out)] for out in (plain, tmp_path)]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.02)
    assert all(t.dtype != torch.bfloat16 for t in load_tensors(tmp_path / "final.safetensors").values())


def test_without_a_compiler_training_goes_on_and_says_so(plain: Path, tmp_path: Path, monkeypatch, capsys):
    def broken(*args, **kwargs):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(loop.torch, "compile", broken)
    run(job("dynamics", tmp_path, train=QUIET | {"compile": True}))
    assert_same_run(tmp_path, plain)
    assert (
        capsys.readouterr().out.count("no working compiler here, training goes on without (no C++ compiler)")
        == 1
    )


@pytest.mark.slow
def test_compiled_blocks_give_the_same_run(plain: Path, tmp_path: Path, capsys):
    if not loop.compiler_works("cpu"):
        pytest.skip(capsys.readouterr().out.strip())
    run(job("dynamics", tmp_path, train=QUIET | {"compile": True}))
    losses = [[row["loss"] for row in rows(out)] for out in (plain, tmp_path)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    module = set_up(make("dynamics"), TrainConfig(compile=True), "cpu")
    names = module.state_dict().keys()
    assert names == make("dynamics").state_dict().keys(), "compiling renames no weight"
