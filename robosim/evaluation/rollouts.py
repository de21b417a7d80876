"""Run a policy in any environment of the contract, and keep what happened.

Both simulators, and both kinds of policy, go through `run_policy`: whatever differs between two rollout sets is
then the simulator or the policy, never the bookkeeping.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from robosim.checkpoint import atomic_write_bytes
from robosim.errors import CheckpointError


class Policy(Protocol):
    """What `run_policy` asks of a policy."""

    def reset(self, num_rows: int) -> None:
        """Forget the past; `num_rows` episodes begin."""
        ...

    def act(self, observation: Mapping[str, Any], instruction: Sequence[str]) -> np.ndarray:
        """Commands [N,J] for an observation of the contract and one task sentence a row."""
        ...


@dataclass(frozen=True)
class RolloutSet:
    """N episodes of one policy in one simulator, all as long as the task's horizon T.

    A finished row stays frozen: its last observation repeats and its reward is 0. Row t of `action` acts between
    frames t and t + 1. Distances and positions are in metres, joints in the robot's units.
    """

    seeds: np.ndarray  # int64 [N]
    success: np.ndarray  # bool [N]
    length: np.ndarray  # int64 [N]: steps until success or the horizon
    distance: np.ndarray  # float32 [N,T+1]: task distance, as this simulator sees it
    reward: np.ndarray  # float32 [N,T]
    action: np.ndarray  # float32 [N,T,J]
    agent_pos: np.ndarray  # float32 [N,T+1,J]
    tool: np.ndarray  # float32 [N,T+1,3]
    object: np.ndarray  # float32 [N,T+1,3]
    goal: np.ndarray  # float32 [N,T+1,3]
    frames: np.ndarray  # uint8 [N,T+1,H,W,3]; N = 0 where frames weren't recorded

    def __len__(self) -> int:
        return len(self.success)

    @property
    def final_distance(self) -> np.ndarray:
        """Task distance [N] when the episode ended."""
        return self.distance[:, -1]

    def first(self, count: int) -> RolloutSet:
        """The first `count` episodes."""
        return replace(self, **{f.name: getattr(self, f.name)[:count] for f in fields(self)})


def concatenate(parts: Sequence[RolloutSet]) -> RolloutSet:
    """Join rollout sets of the same task along the episodes."""
    return RolloutSet(
        **{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(RolloutSet)}
    )


def save_rollouts(path: Path, rollouts: RolloutSet, kept_frames: int | None = None) -> None:
    """Write a rollout set as one compressed npz, atomically; frames of the first `kept_frames` episodes only."""
    arrays = {f.name: getattr(rollouts, f.name) for f in fields(rollouts)}
    arrays["frames"] = rollouts.frames[:kept_frames]
    save_arrays(path, arrays)


def load_rollouts(path: Path) -> RolloutSet:
    """Read what `save_rollouts` wrote. Raises `CheckpointError` when it is missing or damaged."""
    arrays = load_arrays(path)
    try:
        return RolloutSet(**arrays)
    except TypeError as error:
        raise CheckpointError(f"{path} isn't a rollout set ({error}); run the compare stage again") from error


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as one compressed npz, atomically."""
    buffer = io.BytesIO()
    contiguous: dict[str, Any] = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    np.savez_compressed(buffer, **contiguous)
    atomic_write_bytes(path, buffer.getvalue())


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read an npz without ever unpickling. Raises `CheckpointError` when it is missing or damaged."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; run the stage that writes it")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib and NumPy each raise their own classes on a damaged file
        raise CheckpointError(f"{path} is damaged ({error}); delete it and run its stage again") from error


def run_policy(
    env: Any,
    policy: Policy,
    seeds: Sequence[int],
    options: Mapping[str, Any] | None = None,
    camera: str | None = None,
    on_finish: Callable[[int], None] = lambda episodes: None,
) -> RolloutSet:
    """Roll `policy` out in `env` until every row is done.

    `env` is a vector environment of the contract with autoreset disabled; `seeds` has one entry a row, and
    `options` go to `env.reset` (start states or start frames). `camera` None records no frames. `on_finish` is
    told how many episodes ended whenever some do. Raises `ValueError` when the number of seeds isn't the number
    of rows.
    """
    if len(seeds) != env.num_envs:
        raise ValueError(f"{len(seeds)} seeds for an environment of {env.num_envs} rows")
    horizon = int(env.get_attr("_max_episode_steps")[0])
    instruction = list(env.call("task_description"))
    policy.reset(env.num_envs)
    observation, info = env.reset(seed=[int(seed) for seed in seeds], options=dict(options or {}))
    running = np.ones(env.num_envs, dtype=bool)
    length = np.zeros(env.num_envs, dtype=np.int64)
    success = np.zeros(env.num_envs, dtype=bool)
    states, actions, rewards = [_state(observation, info, camera)], [], []
    while running.any() and len(actions) < horizon:
        action = np.asarray(policy.act(observation, instruction), dtype=np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        length += running
        success |= running & np.asarray(info["is_success"], dtype=bool)
        ended = running & (terminated | truncated)
        running &= ~ended
        if ended.any():
            on_finish(int(ended.sum()))
        states.append(_state(observation, info, camera))
        actions.append(action)
        rewards.append(np.asarray(reward, dtype=np.float32))
    steps = len(actions)
    series = {name: _padded(np.stack([s[name] for s in states], axis=1), horizon + 1) for name in states[0]}
    still = _padded(np.stack(actions, axis=1), horizon)
    reward = np.pad(np.stack(rewards, axis=1), ((0, 0), (0, horizon - steps)))
    return RolloutSet(
        np.asarray(seeds, dtype=np.int64), success, length, reward=reward, action=still, **series
    )


def _state(
    observation: Mapping[str, Any], info: Mapping[str, Any], camera: str | None
) -> dict[str, np.ndarray]:
    """Copies of what an environment shows now; environments may reuse their buffers."""
    agent_pos = np.array(observation["agent_pos"], dtype=np.float32)
    frames = observation["pixels"][camera] if camera else np.zeros((0, 0, 0, 3))
    return {
        "distance": np.array(info["task_distance"], dtype=np.float32),
        "agent_pos": agent_pos,
        "tool": np.array(info["tool"], dtype=np.float32),
        "object": np.array(info["object"], dtype=np.float32),
        "goal": np.array(info["goal"], dtype=np.float32),
        "frames": np.array(frames, dtype=np.uint8),
    }


def _padded(values: np.ndarray, length: int) -> np.ndarray:
    """Repeat the last entry of axis 1 of [N,t,...] until it holds `length`: what a frozen row would show."""
    missing = length - values.shape[1]
    return np.concatenate([values, np.repeat(values[:, -1:], missing, axis=1)], axis=1)
