"""The contract that the two simulators share, as the code that they share.

`ArmVectorEnv` keeps the time, the seeds, the reward, success and frozen rows; a simulator says only how a row
starts, how rows advance, and what is seen. So a policy can't tell which one it is in.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from robosim.spec import CONTROL_HZ, EnvSpec, SuccessRule

Observation = dict[str, Any]
Info = dict[str, np.ndarray]


class ArmVectorEnv(gymnasium.vector.VectorEnv, ABC):
    """N rows of one task.

    Observation `{"pixels": {camera: uint8 [N,H,W,3]}, "agent_pos": float32 [N,S]}`, the joints (S = J) or what else
    the spec calls a state; action float32 [N,J], absolute joint targets (rad, gripper opening 0…1) unless the spec's
    action kind or a simulator says otherwise. Reward: decrease of the task distance in metres, +1 on success; 0 where
    no distance is known. Success terminates, the task's horizon truncates. Autoreset is disabled: a finished row is
    frozen (last observation, reward 0) until a reset.

    `info`: `is_success` bool [N], `task_distance` float32 [N], and `tool`, `object`, `goal` float32 [N,3], metres.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "render_fps": CONTROL_HZ,
        "render_modes": ["rgb_array"],
        "autoreset_mode": AutoresetMode.DISABLED,
    }
    render_mode = "rgb_array"
    reset_options: ClassVar[tuple[str, ...]] = ("reset_mask", "lerobot_new_rollout")
    """Keys of `options` that `reset` knows; a subclass adds its own."""

    def __init__(self, spec: EnvSpec, task: str, num_envs: int, seed: int | None = None) -> None:
        """Raises `ValueError` for a task that the spec doesn't have."""
        self.env_spec, self.num_envs = spec, num_envs
        self.task_spec = spec.task(task)
        self.task, self.task_description = task, self.task_spec.instruction
        self._max_episode_steps = self.task_spec.horizon
        self.single_observation_space, self.single_action_space = make_spaces(spec)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generators = [
            np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(num_envs)
        ]
        self._rule = SuccessRule(self.task_spec.success_distance, num_envs)
        self._started = np.zeros(num_envs, dtype=bool)
        self._warned = False
        size = (num_envs, spec.size, spec.size, 3)
        self._pixels = {camera: np.zeros(size, np.uint8) for camera in spec.cameras}
        self._agent_pos = np.zeros((num_envs, len(spec.state_columns)), np.float32)
        self._elapsed = np.zeros(num_envs, dtype=np.int64)
        self._terminated, self._truncated = np.zeros(num_envs, dtype=bool), np.zeros(num_envs, dtype=bool)
        self._distance = np.zeros(num_envs)
        self._places = {name: np.zeros((num_envs, 3), np.float32) for name in ("tool", "object", "goal")}

    @abstractmethod
    def _start_rows(self, rows: np.ndarray, seeds: list[int], options: Mapping[str, Any]) -> None:
        """Start episodes in `rows` (int [R]); `seeds` has one number for each of them."""

    @abstractmethod
    def _advance_rows(self, rows: np.ndarray, actions: np.ndarray) -> None:
        """One control period of `rows` under `actions` [R, …]."""

    @abstractmethod
    def _observe_rows(self, rows: np.ndarray) -> None:
        """Fill `_pixels`, `_agent_pos`, `_distance` and `_places` of `rows`."""

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, Info]:
        """Start new episodes.

        `seed`: one a row, or an int s for s, s + 1, …, or None, and a row then draws the next one from its own
        generator. Option `reset_mask` bool [N]: the rows to restart (default: all). Keys that this simulator
        doesn't know are ignored with one warning.
        """
        options = dict(options or {})
        self._warn_of_unknown(options)
        mask = self._reset_mask(options.get("reset_mask"))
        rows, seeds = np.flatnonzero(mask), self._seeds(seed)
        self._start_rows(rows, [self._row_seed(int(row), seeds[row]) for row in rows], options)
        self._rule.reset(mask)
        self._elapsed[mask] = 0
        self._terminated[mask] = self._truncated[mask] = False
        self._started |= mask
        self._observe_rows(rows)
        return self._observation(), self._info()

    def step(self, actions: np.ndarray) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, Info]:
        """One control period under `actions` [N, …]; finished rows ignore theirs."""
        actions = np.asarray(actions, dtype=np.float64)
        running = ~(self._terminated | self._truncated)
        self._check_actions(actions, running)
        before, rows = self._distance.copy(), np.flatnonzero(running)
        self._elapsed[running] += 1
        if len(rows):
            self._advance_rows(rows, actions[rows])
            self._observe_rows(rows)
        success = self._rule.update(self._distance) & running
        self._terminated |= success
        self._truncated |= running & ~success & (self._elapsed >= self._max_episode_steps)
        known = np.isfinite(self._distance)
        nearer = np.subtract(before, self._distance, out=np.zeros(self.num_envs), where=known)
        reward = np.where(running, nearer + success, 0.0).astype(np.float32)
        return self._observation(), reward, self._terminated.copy(), self._truncated.copy(), self._info()

    def render(self) -> tuple[np.ndarray, ...]:
        """The first camera's picture of every row: N times uint8 [H,W,3]."""
        return tuple(self._pixels[self.env_spec.cameras[0]].copy())

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """An attribute, or a method's result, once a row; a method that answers for all rows is called once."""
        value = getattr(self, name)
        if callable(value):
            value = value(*args, **kwargs)
            if isinstance(value, tuple) and len(value) == self.num_envs:
                return value
        return (value,) * self.num_envs

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute, once a row."""
        return (getattr(self, name),) * self.num_envs

    def _observation(self) -> Observation:
        return {
            "pixels": {camera: frames.copy() for camera, frames in self._pixels.items()},
            "agent_pos": self._agent_pos.copy(),
        }

    def _info(self) -> Info:
        return {
            "is_success": self._terminated.copy(),
            "task_distance": self._distance.astype(np.float32),
            **{name: place.copy() for name, place in self._places.items()},
        }

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, (int, np.integer)):
            return [int(seed) + row for row in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"{len(seed)} seeds for {self.num_envs} rows; give one a row, an int, or None")
        return [None if one is None else int(one) for one in seed]

    def _row_seed(self, row: int, seed: int | None) -> int:
        if seed is None:
            return int(self._generators[row].integers(2**31))
        # A stream apart from the start's: a reset without a seed must not repeat it.
        self._generators[row] = np.random.default_rng([seed, 3])
        return seed

    def _reset_mask(self, mask: Any) -> np.ndarray:
        mask = np.ones(self.num_envs, dtype=bool) if mask is None else np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != bool:
            raise ValueError(
                f"reset_mask must be bool [{self.num_envs}], not {mask.dtype} {list(mask.shape)}"
            )
        if not (mask | self._started).all():
            raise ValueError("rows outside reset_mask were never started; reset all rows first")
        return mask

    def _warn_of_unknown(self, options: Mapping[str, Any]) -> None:
        unknown = [key for key in options if key not in self.reset_options]
        if unknown and not self._warned:
            self._warned = True
            warnings.warn(f"reset options {unknown} are unknown here and ignored", stacklevel=3)

    def _check_actions(self, actions: np.ndarray, running: np.ndarray) -> None:
        if not self._started.all():
            raise RuntimeError("step before reset; call reset first")
        expected = self.action_space.shape
        if actions.shape != expected:
            raise ValueError(f"actions must have shape {expected}, not {actions.shape}")
        bad = running & ~np.isfinite(actions).all(axis=1)
        if bad.any():
            raise ValueError(f"actions of row {int(np.flatnonzero(bad)[0])} aren't finite")


def make_spaces(spec: EnvSpec) -> tuple[spaces.Dict, spaces.Box]:
    """Observation and action space of one row. Measured joints may overshoot their limits, so they have none."""
    picture = spaces.Box(0, 255, (spec.size, spec.size, 3), np.uint8)
    state = len(spec.state_columns)
    observation = spaces.Dict(
        {
            "pixels": spaces.Dict({camera: picture for camera in spec.cameras}),
            "agent_pos": spaces.Box(-np.inf, np.inf, (state,), np.float32),
        }
    )
    lower, upper = (np.array(limits, np.float32) for limits in (spec.robot.lower, spec.robot.upper))
    return observation, spaces.Box(lower, upper, dtype=np.float32)
