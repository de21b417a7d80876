"""The policies that a comparison runs: one read from a LeRobot checkpoint, and the random floor."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robosim.errors import CheckpointError

RANDOM_HOLD = 5
"""Steps for which the random policy keeps one direction: half a second."""


@dataclass(frozen=True)
class CommandRange:
    """Where recorded commands lie and how fast they move: float32 [J] each, in the robot's units."""

    lower: np.ndarray
    upper: np.ndarray
    step: np.ndarray


def command_range(actions: np.ndarray, starts: np.ndarray) -> CommandRange:
    """Range and liveliness of recorded commands: 1st and 99th percentile, 95th percentile of |a_t − a_{t−1}|.

    `actions` is [F,J], `starts` bool [F] marks the first row of every episode, across which no increment counts.
    """
    steps = np.abs(np.diff(actions, axis=0))[~starts[1:]]
    lower, upper = np.quantile(actions, [0.01, 0.99], axis=0)
    fast = np.quantile(steps, 0.95, axis=0)
    return CommandRange(lower.astype(np.float32), upper.astype(np.float32), fast.astype(np.float32))


class RandomPolicy:
    """The floor: aimless but lively motion where the recorded arm moved, too.

    The command starts at the current joints and moves by an increment that is drawn uniformly from ± `step` for
    each joint and kept for `RANDOM_HOLD` steps: white noise of the same size would tremble on the spot and be too
    low a floor. Commands stay within the recorded range, so that the arm doesn't just wander off the table.

    Row i draws from the seed of row i alone, so a rollout doesn't depend on the batch that it is in.
    """

    def __init__(self, recorded: CommandRange, seeds: Sequence[int]) -> None:
        self._recorded, self._seeds = recorded, list(seeds)

    def reset(self, num_rows: int) -> None:
        if num_rows != len(self._seeds):
            raise ValueError(f"{len(self._seeds)} seeds for {num_rows} rows")
        # Streams apart from those that draw the starts, lest motions depend on where the goal lies.
        self._generators = [np.random.default_rng([seed, 5]) for seed in self._seeds]
        self._command: np.ndarray | None = None
        self._step = 0

    def act(self, observation: Mapping[str, Any], instruction: Sequence[str]) -> np.ndarray:
        if self._command is None:
            self._command = np.array(observation["agent_pos"], dtype=np.float32)
        if self._step % RANDOM_HOLD == 0:
            joints = len(self._recorded.step)
            draws = [generator.uniform(-1.0, 1.0, joints) for generator in self._generators]
            self._increment = np.array(draws, np.float32) * self._recorded.step
        self._step += 1
        moved = self._command + self._increment
        self._command = np.clip(moved, self._recorded.lower, self._recorded.upper)
        return self._command


class LeRobotPolicy:
    """A policy read from a LeRobot checkpoint, driven the way `lerobot-eval` drives it."""

    def __init__(self, checkpoint: Path, device: str = "cpu") -> None:
        """Read `checkpoint` (a `pretrained_model` folder) of any registered type with its processors.

        Raises `CheckpointError` when the folder isn't a policy that this LeRobot knows.
        """
        from lerobot.configs.policies import PreTrainedConfig
        from lerobot.policies.factory import get_policy_class, make_pre_post_processors
        from lerobot.utils.import_utils import register_third_party_plugins

        register_third_party_plugins()
        if not (checkpoint / "config.json").is_file():
            raise CheckpointError(
                f"{checkpoint} holds no policy (config.json is missing); run robosim pretrain"
            )
        try:
            config = PreTrainedConfig.from_pretrained(str(checkpoint))
            config.device = device
            policy_class = get_policy_class(config.type)
            with contextlib.redirect_stdout(io.StringIO()):  # LeRobot prints that it reads a local folder
                policy = policy_class.from_pretrained(str(checkpoint), config=config)
            self._policy = policy.to(device).eval()
            self._before, self._after = make_pre_post_processors(
                config,
                pretrained_path=str(checkpoint),
                preprocessor_overrides={"device_processor": {"device": device}},
            )
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"the policy in {checkpoint} can't be read: {error}") from error

    def reset(self, num_rows: int) -> None:
        self._policy.reset()

    def act(self, observation: Mapping[str, Any], instruction: Sequence[str]) -> np.ndarray:
        import torch
        from lerobot.envs.utils import preprocess_observation

        batch: dict[str, Any] = preprocess_observation(dict(observation))
        batch["task"] = list(instruction)
        with torch.inference_mode():
            action = self._after(self._policy.select_action(self._before(batch)))
        return action.to("cpu").numpy()
