"""Two processes under torchrun (gloo, the CPU) against one: the same losses and the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from robosim.errors import ConfigError
from robosim.ranks import alone, any_rank, gather_texts, together
from robosim.training import loop
from robosim.training.loop import TrainConfig, micro_batches
from tests.training.processes_script import (
    MODELS,
    QUIET,
    assert_same_run,
    fault,
    final,
    job,
    launch,
    rows,
    run,
)


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """Every model trained by two processes; and one run that a single process began."""
    folder = tmp_path_factory.mktemp("two")
    with pytest.raises(KeyboardInterrupt):
        run(job("dynamics", folder / "grown", fault=fault("terminate", 6, rank=0)))
    jobs = [job(model, folder / model) for model in MODELS]
    accumulated = job("dynamics", folder / "accumulated", train=QUIET | {"accumulate": 2, "ema": 0.9})
    done = launch(*jobs, accumulated, job("dynamics", folder / "grown"))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_two_processes_equal_one(two: Path, tmp_path: Path, model: str):
    run(job(model, tmp_path))
    assert len({row["loss"] for row in rows(tmp_path)}) == 12, "it learns"
    # A bias before a normalisation has no gradient but rounding, which Adam scales up to whole steps; and `total` is a
    # sum of hundreds of features, of which the codebook is the mean.
    skip = ("bias", "norm.mean", "quantiser.total")
    assert_same_run(tmp_path, two / model, () if "dynamics" in model else skip)


def test_micro_batches_equal_one_batch(tmp_path: Path):
    run(job("dynamics", tmp_path / "whole"))
    run(job("dynamics", tmp_path / "cut", train=QUIET | {"accumulate": 4}))
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_micro_batches_of_two_processes_with_averaged_weights_equal_one(two: Path, tmp_path: Path):
    run(job("dynamics", tmp_path, train=QUIET | {"ema": 0.9}))
    assert_same_run(tmp_path, two / "accumulated")
    plain = final(two / "dynamics")
    assert any(not torch.equal(plain[name], value) for name, value in final(tmp_path).items())


@pytest.mark.slow
def test_two_processes_go_on_with_what_one_began(two: Path):
    assert_same_run(two / "grown", two / "dynamics")


def test_a_batch_that_cannot_be_cut_is_refused(monkeypatch):
    assert micro_batches(TrainConfig(batch=8, accumulate=2)) == [slice(0, 4), slice(4, 8)]
    monkeypatch.setattr(loop, "world_size", lambda: 2)
    monkeypatch.setattr(loop, "rank", lambda: 1)
    assert micro_batches(TrainConfig(batch=8, accumulate=2)) == [slice(4, 6), slice(6, 8)]
    with pytest.raises(ConfigError, match=r"batch=10 .*2 processes × accumulate=2.*multiple of 4"):
        micro_batches(TrainConfig(batch=10, accumulate=2))


def test_a_single_process_waits_for_nobody():
    assert alone(lambda: {"a": 1}) == {"a": 1} and together(lambda: 2) == 2
    assert gather_texts("x") == ["x"] and any_rank(True) and not any_rank(False)
