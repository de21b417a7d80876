"""Own rollouts in training: the past is the model's own, the targets stay the video's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from robosim.checkpoint import load_tensors
from robosim.errors import ConfigError
from robosim.training import stages
from robosim.training.loop import TrainConfig
from robosim.training.own_rollouts import OwnRollouts, OwnRolloutsConfig
from robosim.training.stages import (
    DynamicsTraining,
    LatentActionTraining,
    TokenizerTraining,
    train_dynamics,
    train_latent_action,
    train_tokenizer,
)
from robosim.world_model.decoding import SamplingConfig
from robosim.world_model.draft import draft_clips
from robosim.world_model.dynamics import DynamicsConfig
from robosim.world_model.latent_action import LatentActionConfig
from robosim.world_model.st_transformer import STConfig
from robosim.world_model.tokenizer import TokenizerConfig
from robosim.world_model.world import WorldModel, seeded_generators
from tests.training.test_no_action_leak import make_run
from tests.world_model.conftest import make_world

ROWS, TIME, TOKENS = 6, 7, 4


@pytest.fixture
def world() -> WorldModel:
    return make_world()


def true_batch(world: WorldModel) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, 1200, (ROWS, TIME, TOKENS), generator=generator)
    latent = torch.rand(ROWS, TIME, 5, generator=generator) * 2 - 1
    draft = draft_clips(world.tokenizer, world.latent_action, tokens, latent)
    return {"tokens": tokens, "latent_action": latent, "draft": draft, "noise_seed": torch.arange(ROWS)}


def batches_of(world: WorldModel, share: float, first_step: int = 0) -> OwnRollouts:
    def batches(step: int, rows: slice) -> dict[str, torch.Tensor]:
        return {name: value.clone()[rows] for name, value in true_batch(world).items()}

    return OwnRollouts(batches, world.dynamics, world.tokenizer, world.latent_action, share, first_step)


def test_before_its_step_and_without_a_share_nothing_changes(world):
    true = true_batch(world)
    for batches, step in ((batches_of(world, 1.0, 5), 4), (batches_of(world, 0.0), 9)):
        batch = batches(step)
        assert torch.equal(batch["seen"], true["tokens"])
        assert all(torch.equal(batch[name], true[name]) for name in true)


@pytest.mark.parametrize("step", [4, 5, 6, 7])
def test_what_is_seen_after_a_true_beginning_is_the_models_own_rollout(world, step):
    batch, true = batches_of(world, 1.0)(step), true_batch(world)
    context = 1 + step % 4
    assert all(torch.equal(batch[name], true[name]) for name in ("tokens", "latent_action"))
    assert torch.equal(batch["seen"][:, :context], true["tokens"][:, :context])
    assert torch.equal(batch["draft"][:, :context], true["draft"][:, :context])
    sampling = SamplingConfig(steps=1, temperature=0.0)
    player = WorldModel(world.tokenizer, world.latent_action, world.dynamics, sampling)
    start = true["tokens"][:, :context], true["latent_action"], seeded_generators(range(ROWS))
    with torch.no_grad():
        state = player.start_tokens(*start)
        for t in range(context, TIME):
            draft = player.draft(state, true["latent_action"][:, t - 1])
            player.step(state, true["latent_action"][:, t - 1])
            assert torch.equal(batch["seen"][:, t], state.tokens_BN)
            torch.testing.assert_close(batch["draft"][:, t], draft)
    assert (batch["seen"] != true["tokens"]).any()


def test_a_share_of_the_clips_and_always_the_same(world):
    first, again = (batches_of(world, 0.5)(8) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    changed = (first["seen"] != first["tokens"]).flatten(1).any(1)
    assert 0 < changed.sum() < ROWS
    # Some rows alone: the same clips, rolled out alike. Sums in another order may flip a token that stands on an edge,
    # and then all that follow; so most tokens of the first frame are compared. Other clips share none of them.
    part, context = batches_of(world, 0.5)(8, slice(2, 5)), 1
    own = changed[2:5]
    assert own.any() and torch.equal((part["seen"] != part["tokens"]).flatten(1).any(1), own)
    alike = part["seen"][own, context] == first["seen"][2:5][own, context]
    assert alike.float().mean() > 0.5


def test_the_present_weights_roll_out_and_are_left_alone(world):
    batches = batches_of(world, 1.0)
    world.dynamics.train().requires_grad_(True)
    before = batches(4)["seen"]
    with torch.no_grad():
        for parameter in world.dynamics.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    assert not torch.equal(batches(4)["seen"], before)
    assert world.dynamics.training and all(p.requires_grad for p in world.dynamics.parameters())


def test_the_loss_looks_at_the_true_tokens_and_the_model_at_those_seen(world):
    batch = true_batch(world)
    other = torch.randint(0, 1200, batch["tokens"].shape, generator=torch.Generator().manual_seed(9))
    plain = world.dynamics(batch)[0]
    torch.testing.assert_close(world.dynamics(batch | {"seen": batch["tokens"]})[0], plain)
    assert abs(world.dynamics(batch | {"seen": other})[0] - plain) > 1e-3
    assert abs(world.dynamics(batch | {"tokens": other, "seen": batch["tokens"]})[0] - plain) > 1e-3


@pytest.mark.parametrize("wrong", [{"share": 1.5}, {"share": -0.1}, {"start": 2.0}])
def test_impossible_shares_are_refused(wrong):
    with pytest.raises(ValueError, match="between 0 and 1"):
        OwnRolloutsConfig(**wrong)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder with all that the dynamics need."""
    run = tmp_path_factory.mktemp("run")
    make_run(run)
    few = TrainConfig(steps=3, batch=4, tensorboard=False)
    train_tokenizer(TokenizerTraining(TokenizerConfig(channels=8), few), run, 0, "cpu")
    train_latent_action(LatentActionTraining(LatentActionConfig(channels=8, blocks=1), few), run, 0, "cpu")
    return run


CONFIG = DynamicsTraining(
    DynamicsConfig(STConfig(dim=16, heads=2, layers=1, window=4)),
    TrainConfig(steps=6, batch=4, tensorboard=False, save_every=1),
    clip_length=6,
    context=2,
    horizon=6,
    own_rollouts=OwnRolloutsConfig(share=0.5, start=0.3),
)


def weights(run: Path, config: DynamicsTraining) -> dict[str, torch.Tensor]:
    train_dynamics(config, run, 0, "cpu")
    return load_tensors(run / "dynamics" / "model.safetensors")


def test_the_stage_trains_with_them_and_a_resumed_training_ends_alike(run, monkeypatch):
    whole = weights(run, CONFIG)
    step, taken = stages.train, []

    def interrupted(module, batches, *given):
        def stop_once(number, rows):
            taken.append(number)
            if number == 4 and taken.count(4) == 1:
                raise KeyboardInterrupt
            return batches(number, rows)

        return step(module, stop_once, *given)

    (run / "dynamics").rename(run / "whole")
    monkeypatch.setattr(stages, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        weights(run, CONFIG)
    again = weights(run, CONFIG)
    assert taken == [0, 1, 2, 3, 4, 4, 5], "goes on where it stopped"
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    without = weights(run, replace(CONFIG, own_rollouts=OwnRolloutsConfig()))
    assert any(not torch.equal(value, without[name]) for name, value in whole.items())


def test_several_processes_are_refused_before_the_training(run, monkeypatch):
    monkeypatch.setattr(stages, "distributed", lambda: True)
    with pytest.raises(ConfigError, match=r"one process.*dynamics\.own_rollouts\.share=0"):
        train_dynamics(CONFIG, run, 0, "cpu")
