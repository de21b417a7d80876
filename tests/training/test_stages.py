"""A training stage as the runner runs it: what an interrupt, a kill or another key costs, told by the steps taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from robosim import stage_runner
from robosim.checkpoint import MANIFEST, finish_stage, load_tensors
from robosim.errors import DatasetError
from robosim.stage_runner import Request, run_stage
from robosim.stage_table import BY_NAME
from robosim.training import loop, stages
from robosim.training.loop import TrainConfig
from robosim.training.snapshot import snapshots
from robosim.training.stages import (
    DynamicsTraining,
    LatentActionTraining,
    TokenizerTraining,
    train_dynamics,
    train_latent_action,
    train_tokenizer,
)
from robosim.world_model.tokenizer import TokenizerConfig
from tests.training.test_no_action_leak import make_run

STEPS = 3
CONFIG = TokenizerTraining(TokenizerConfig(channels=8), TrainConfig(STEPS, batch=4, tensorboard=False))


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("clips")
    make_run(run)
    finish_stage(run / "dataset", "collect", {}, {}, 1.0, {})
    return run


@pytest.fixture
def run(clips: Path, tmp_path: Path) -> Path:
    """A run folder with clips, which all tests share, and nothing else."""
    for name in ("dataset", "clips"):
        (tmp_path / name).symlink_to(clips / name)
    return tmp_path


@pytest.fixture
def steps(monkeypatch) -> list[int]:
    """The steps that are taken."""
    taken: list[int] = []
    step = loop.train_step
    monkeypatch.setattr(loop, "train_step", lambda *given: (taken.append(given[4]), step(*given))[1])
    return taken


def run_tokenizer(run: Path, **train: float) -> bool:
    config = replace(CONFIG, train=replace(CONFIG.train, **train))
    return run_stage(Request(BY_NAME["tokenizer"], run, config, 0, "cpu", True), BY_NAME, "tokenizer")


@pytest.mark.parametrize(
    ("place", "name"),
    [(stages, "add_tokens"), (stages, "evaluate_tokenizer"), (stage_runner, "finish_stage")],
    ids=["labelling", "figures", "before the manifest"],
)
def test_an_interrupt_after_the_training_costs_no_step(run, steps, monkeypatch, place, name):
    def interrupt(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(place, name, interrupt)
        run_tokenizer(run)
    assert steps == list(range(STEPS)) and snapshots(run / "tokenizer")
    assert run_tokenizer(run)
    assert len(steps) == STEPS
    assert (run / "tokenizer" / MANIFEST).exists() and not snapshots(run / "tokenizer")


def test_a_kill_after_the_manifest_leaves_nothing_for_good(run, steps, monkeypatch):
    def interrupt(request):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(stage_runner, "clean_up", interrupt)
        run_tokenizer(run)
    assert snapshots(run / "tokenizer")
    assert not run_tokenizer(run) and len(steps) == STEPS
    assert not snapshots(run / "tokenizer")


def test_only_keys_that_change_the_result_make_it_again(run, steps):
    run_tokenizer(run)
    before = load_tensors(run / "tokenizer" / "model.safetensors")
    assert not run_tokenizer(run, save_every=1, log_every=1, recompute_every=1, compile=True)
    assert len(steps) == STEPS
    assert run_tokenizer(run, learning_rate=1e-2)
    assert len(steps) == 2 * STEPS
    after = load_tensors(run / "tokenizer" / "model.safetensors")
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_the_tokenizer_is_measured_on_the_held_out_frames_that_there_are(run, steps, monkeypatch):
    seen = []
    monkeypatch.setattr(stages, "TOKENIZER_CLIP", 13)
    monkeypatch.setattr(
        stages, "evaluate_tokenizer", lambda model, clips: seen.append(clips.shape[1]) or {"psnr_db": 0.0}
    )
    train_tokenizer(CONFIG, run, 0, "cpu")
    assert seen == [12]


def test_held_out_video_that_is_too_short_is_refused_before_the_training(run, steps):
    with pytest.raises(
        DatasetError,
        match=r"clips of 14 frames, but the longest validation episode has 12.*dynamics\.horizon=",
    ):
        train_latent_action(LatentActionTraining(train=CONFIG.train, clip_length=14), run, 0, "cpu")
    with pytest.raises(DatasetError, match="clips of 16 frames"):
        train_dynamics(DynamicsTraining(context=6, horizon=10), run, 0, "cpu")
    assert not steps
