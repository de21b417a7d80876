"""Pretraining in a world small enough to know the answer: a red dot, moved by the latent action, and a green one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.configs import PreTrainedConfig
from torch import Tensor

from robosim.adapter.action_adapter import ActionAdapter
from robosim.errors import UnsupportedError
from robosim.spec import EnvSpec, RobotSpec, SuccessRule, TaskSpec
from robosim.training.cloning import Examples, MixedBatches
from robosim.training.imagination import Ledger, PretrainConfig, TaskTraining
from robosim.training.imagined import Imagined, advantages, imagine, imagined_examples
from robosim.training.policies import PolicyModel, make_policy, policy_class

SIZE, STEP = 24, 0.08
ROBOT = RobotSpec("point", ("x", "y"), ("rad", "rad"), (-1.0, -1.0), (1.0, 1.0))
SPEC = EnvSpec(
    ROBOT, (TaskSpec("reach", "reach the dot", horizon=8, success_distance=0.1, subject="tool"),), size=SIZE
)
SMALL = PolicyModel(channels=8, keypoints=6, hidden=32)


def draw(dot: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Frames uint8 [N, S, S, 3] of both dots, positions [N, 2] in -1…1."""
    centre = (np.arange(SIZE) + 0.5) * 2 / SIZE - 1
    frames = np.zeros((len(dot), SIZE, SIZE, 3), np.uint8)
    for channel, where in ((0, dot), (1, goal)):
        near = ((centre - where[:, :1]) / 0.1) ** 2
        down = ((centre - where[:, 1:]) / 0.1) ** 2
        frames[..., channel] = 255 * np.exp(-(near[:, None, :] + down[:, :, None]) / 2)
    return frames


def locate(frames: np.ndarray, channel: int) -> np.ndarray:
    """Where the dot of a channel is: [N, 2]."""
    centre = (np.arange(SIZE) + 0.5) * 2 / SIZE - 1
    weight = frames[..., channel].astype(np.float64)
    total = weight.sum((1, 2))
    return np.stack([(weight.sum(1) @ centre) / total, (weight.sum(2) @ centre) / total], -1)


class DotEnv:
    """A latent action of 1 moves the red dot by `STEP`; the vector contract as far as pretraining uses it."""

    env_spec = SPEC

    def reset(self, seed: list[int], options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        frames = options["frames"][:, -1]
        self.seeds, self.actions = seed, []
        self.dot, self.goal = locate(frames, 0), locate(frames, 1)
        self.rule = SuccessRule(SPEC.tasks[0].success_distance, len(frames))
        self.success = np.zeros(len(frames), bool)
        return self._observe()

    def step(self, action: np.ndarray) -> tuple[Any, ...]:
        self.actions.append(action)
        before, running = self._distance(), ~self.success
        self.dot = np.clip(self.dot + STEP * action * running[:, None], -1, 1)
        self.success |= self.rule.update(self._distance()) & running
        reward = np.where(running, before - self._distance() + (self.success & running), 0.0)
        observation, info = self._observe()
        late = np.full(len(action), len(self.actions) >= SPEC.tasks[0].horizon)
        return observation, reward.astype(np.float32), self.success.copy(), late, info

    def _distance(self) -> np.ndarray:
        return np.linalg.norm(self.dot - self.goal, axis=-1)

    def _observe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        pixels = {"front": draw(self.dot, self.goal)}
        return {"pixels": pixels}, {"task_distance": self._distance(), "is_success": self.success.copy()}


@dataclass
class Bundle:
    adapter: ActionAdapter


class DotTask:
    """What `LearnedTask` offers, with an expert that aims well but moves at `speed` times the best latent action."""

    spec, task = SPEC, SPEC.tasks[0]

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self.bundle = Bundle(ActionAdapter.from_config({"num_joints": 2, "latent_size": 2}))

    def env(self, starts: Tensor, action_mode: str, decoding_steps: int) -> DotEnv:
        assert action_mode == "latent"
        return DotEnv()

    def first_frames(self, split: str) -> Tensor:
        return self.start_frames(8, 1 if split == "val" else 2)

    def start_frames(self, count: int, seed: int) -> Tensor:
        generator = np.random.default_rng(seed)
        dot, goal = generator.uniform(-0.6, 0.6, (2, count, 2))
        return torch.from_numpy(draw(dot, goal))

    def examples(self, split: str) -> list[Examples]:
        frames = self.start_frames(256, 3 if split == "val" else 4)
        away = locate(frames.numpy(), 1) - locate(frames.numpy(), 0)
        latents = torch.from_numpy(self.speed * np.clip(away / STEP, -1, 1)).float()
        return [Examples.equal(frames, latents)] * 2


CONFIG = PretrainConfig(
    tasks=("reach",),
    policy=SMALL,
    batch=32,
    cloning_steps=120,
    learning_rate=3e-3,
    rounds=1,
    rollouts=64,
    checks=16,
    noise=0.5,
    improvement_steps=120,
    improvement_rate=1e-3,
)


def training(config: PretrainConfig, folder: Any, speed: float = 0.3) -> TaskTraining:
    return TaskTraining(config, DotTask(speed), Ledger(folder, "request"))  # type: ignore[arg-type]


def imagined(rewards: list[float], distance: list[float], alive: list[bool] | None = None) -> Imagined:
    """N one-step rows."""
    rows = len(rewards)
    mask = torch.tensor([alive or [True] * rows])
    frames, latents = (
        torch.zeros(1, rows, 2, 2, 3, dtype=torch.uint8),
        torch.arange(2.0 * rows).view(1, rows, 2),
    )
    return Imagined(
        frames, latents, torch.tensor([rewards]), torch.tensor([distance]), mask, torch.zeros(rows)
    )


def test_imagined_steps_are_aligned_and_repeatable():
    learned, env = DotTask(), DotEnv()
    policy = make_policy(SMALL, SPEC, learned.bundle.adapter, 0, "cpu")
    starts = learned.start_frames(6, 0)
    result = imagine(env, policy, starts, seed=3, noise=0.4, steps=8)
    assert (result.frames[0].int() - starts.int()).abs().max() < 4  # the dots were read off the picture
    assert np.array_equal(np.stack(env.actions), result.latents.numpy())
    # Row t is the frame before the latent action of step t.
    moved = locate(result.frames[1].numpy(), 0) - locate(result.frames[0].numpy(), 0)
    assert np.allclose(moved, STEP * result.latents[0].numpy(), atol=0.02)
    gain = (result.distance[0] - result.distance[1]).numpy()
    assert np.allclose(result.rewards[0].numpy(), gain, atol=1e-5)
    again = imagine(DotEnv(), policy, starts, seed=3, noise=0.4, steps=8)
    assert torch.equal(again.latents, result.latents) and torch.equal(again.frames, result.frames)
    other = imagine(DotEnv(), policy, starts, seed=4, noise=0.4, steps=8)
    assert not torch.equal(other.latents, result.latents)
    assert result.latents.abs().max() <= policy.config.latent_bound


def test_finished_rows_stop_counting():
    class Perfect:
        def __init__(self, policy: Any) -> None:
            self.config = policy.config

        def predict_latent(self, batch: dict[str, Tensor]) -> Tensor:
            frames = (batch[self.config.image_key].permute(0, 2, 3, 1) * 255).byte().numpy()
            return torch.from_numpy((locate(frames, 1) - locate(frames, 0)) / STEP).float()

    learned = DotTask()
    policy = Perfect(make_policy(SMALL, SPEC, learned.bundle.adapter, 0, "cpu"))
    near = torch.from_numpy(draw(np.zeros((2, 2)), np.array([[0.2, 0.0], [0.9, 0.9]])))
    result = imagine(DotEnv(), policy, near, seed=0, noise=0.0, steps=8)
    assert result.success.tolist() == [True, False]
    assert result.alive.sum(0).tolist()[0] < result.alive.sum(0).tolist()[1] == SPEC.tasks[0].horizon
    assert result.rewards[~result.alive].abs().sum() == 0


def test_advantage_is_what_distance_does_not_explain():
    distance = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    surprise = [1, -1, -1, 1, 1, -1, -1, 1]
    rewards = [0.5 * d + 0.01 * s for d, s in zip(distance, surprise, strict=True)]
    gain = advantages(imagined(rewards, distance), discount=0.9)[0]
    assert torch.equal(gain > 0, torch.tensor(surprise) > 0)
    # A constant factor or a bonus that every row gets makes nothing better than anything else.
    assert torch.allclose(
        advantages(imagined([10 * r + 3 for r in rewards], distance), 0.9)[0], gain, atol=1e-3
    )


def test_better_steps_weigh_more_and_finished_rows_are_left_out():
    rewards, distance = [0.0, 0.2, 0.1, -0.2, 9.0], [0.3, 0.3, 0.3, 0.3, 0.3]
    examples = imagined_examples(imagined(rewards, distance, [True] * 4 + [False]), 0.9, temperature=1.0)
    assert len(examples) == 4
    assert examples.weights.argsort(descending=True).tolist() == [1, 2, 0, 3]
    assert examples.weights.mean().item() == pytest.approx(1.0)


def test_batches_depend_on_seed_and_step_alone_and_keep_the_shares():
    black, white = (
        torch.zeros(8, 8, 8, 3, dtype=torch.uint8),
        torch.full((4, 8, 8, 3), 255, dtype=torch.uint8),
    )
    sources = [Examples.equal(black, torch.zeros(8, 2)), Examples.equal(white, torch.ones(4, 2))]
    batches = MixedBatches(sources, (0.25, 0.75), "image", batch=400, seed=1)
    first = batches(7)
    assert all(torch.equal(first[key], value) for key, value in batches(7).items())
    assert not torch.equal(first["image"], batches(8)["image"])
    share = first["latent_action"].mean().item()
    assert 0.68 < share < 0.82
    bright = first["image"].mean((1, 2, 3))
    assert torch.equal(bright > 0.5, first["latent_action"][:, 0] > 0.5)  # frame and latent stay together
    assert first["image"].min() >= 0 and first["image"].max() <= 1


def test_shift_moves_the_picture_by_at_most_that_many_pixels():
    frame = torch.zeros(1, 16, 16, 3, dtype=torch.uint8)
    frame[0, 8, 8] = 255
    batches = MixedBatches(
        [Examples.equal(frame, torch.zeros(1, 2))], (1.0,), "image", 200, 0, shift=2, colour=0
    )
    where = batches(0)["image"][:, 0].flatten(1).argmax(1)
    rows, columns = where // 16, where % 16
    assert set(rows.tolist()) == set(columns.tolist()) == {6, 7, 8, 9, 10}


def test_cloning_learns_and_imagination_improves_on_a_slow_expert(tmp_path):
    run = training(CONFIG, tmp_path)
    run.finish()
    figures = run.ledger.figures()
    assert figures["bc_loss"] < 0.35 * figures["bc_constant_loss"]
    assert figures["rounds_accepted"] == 1
    # The expert closes a third of what is possible; what is imagined teaches to go faster.
    assert figures["imagined_return_after"] > figures["imagined_return_before"] + 0.02
    config = PreTrainedConfig.from_pretrained(tmp_path / "pretrained_model")
    loaded = policy_class(config.type).from_pretrained(tmp_path / "pretrained_model", config=config)
    for name, tensor in run.policy.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert {p.name for p in (tmp_path / "pretrained_model").glob("policy_*processor.json")} == {
        "policy_preprocessor.json",
        "policy_postprocessor.json",
    }


def test_a_round_that_makes_it_worse_is_dropped(tmp_path, monkeypatch):
    run = training(CONFIG, tmp_path)
    returns = iter([1.0, 0.5])
    monkeypatch.setattr(run, "_check", lambda: {"return": next(returns), "success": 0.0})
    run.finish()
    figures = run.ledger.figures()
    assert figures["rounds_accepted"] == 0 and figures["imagined_return_after"] == 1.0
    cloned = training(CONFIG, tmp_path)
    cloned.ledger.rounds = cloned.ledger.rounds[:1]
    cloned.ledger.restore(cloned.policy)
    for name, tensor in cloned.policy.state_dict().items():
        assert torch.equal(run.policy.state_dict()[name], tensor), name


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path, monkeypatch):
    config = PretrainConfig(tasks=("reach",), policy=SMALL, batch=8, cloning_steps=12, rounds=2, rollouts=8, checks=4,
                            improvement_steps=6)  # fmt: skip
    whole = training(config, tmp_path / "whole")
    whole.finish()
    broken = training(config, tmp_path / "broken")
    monkeypatch.setattr(broken, "_improve", lambda number: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        broken.finish()
    assert len(Ledger(tmp_path / "broken", "request").rounds) == 1
    assert not Ledger(tmp_path / "broken", "another request").rounds
    again = training(config, tmp_path / "broken")
    monkeypatch.setattr(again, "_clone", lambda: pytest.fail("the cloning was done again"))
    again.finish()
    assert again.ledger.figures() == whole.ledger.figures() and again.ledger.finished
    for name, tensor in whole.policy.state_dict().items():
        assert torch.equal(again.policy.state_dict()[name], tensor), name


def test_an_unknown_policy_type_names_the_known_ones():
    with pytest.raises(UnsupportedError, match=r"no policy 'robosim_latnt' \(.*robosim_latent"):
        policy_class("robosim_latnt")
