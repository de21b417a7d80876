"""Open-loop replay: drive the learned simulator with the commands of held-out episodes, compare with the recording.

No policy is involved, so this is the cheapest honest figure of trust: the simulator is told what the arm was told,
and must show what the camera saw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from robosim.world_model.metrics import moving_mask, pooled_psnr

if TYPE_CHECKING:
    from robosim_datasets.clip_store import ClipStore

HORIZONS = (1, 4, 8, 16)
"""Steps after the start at which a replay is scored."""


@dataclass(frozen=True)
class RecordedClips:
    """N stretches of held-out episodes, each of H steps from its own start.

    Row t of `command` acts between frames t and t + 1; `previous` is the command before the first one.
    """

    episode: np.ndarray  # int64 [N]: position in the clip store
    start: np.ndarray  # int64 [N]: frame of the episode at which the replay begins
    frames: np.ndarray  # uint8 [N,H+1,H_px,W,3]
    command: np.ndarray  # float32 [N,H,J]
    previous: np.ndarray  # float32 [N,J]
    state: np.ndarray  # float32 [N,H+1,J]
    positions: np.ndarray  # float32 [N,H+1,9]: tool, object, goal, metres

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True)
class Replayed:
    """What the learned simulator showed for `RecordedClips`; row 0 is the start frame as it was given."""

    frames: np.ndarray  # uint8 [N,H+1,H_px,W,3]
    agent_pos: np.ndarray  # float32 [N,H+1,J]
    tool: np.ndarray  # float32 [N,H+1,3]
    object: np.ndarray  # float32 [N,H+1,3]
    distance: np.ndarray  # float32 [N,H+1]: the judge's task distance, metres


def held_out_clips(store: ClipStore, task: str, steps: int, limit: int, seed: int = 0) -> RecordedClips:
    """Stretches of `steps` steps from the labelled `val` episodes of `task`, at most `limit`.

    Every episode gives its start and then every `steps // 2`-th frame, as long as a whole stretch is left. When
    there are more than `limit`, a seeded draw keeps the episodes' starts first.
    """
    places: list[tuple[int, int]] = []
    for episode in store.select(split="val", task=task, labelled=True):
        last = store.episodes[episode].length - 1 - steps
        places += [(episode, start) for start in range(0, last + 1, max(steps // 2, 1))]
    order = np.random.default_rng(seed).permutation(len(places))
    chosen = sorted(sorted(order, key=lambda i: places[i][1] > 0)[:limit])
    return _cut(store, [places[i] for i in chosen], steps)


def _cut(store: ClipStore, places: Sequence[tuple[int, int]], steps: int) -> RecordedClips:
    columns = {name: store.column(name) for name in ("state", "action", "environment_state")}
    camera = store.spec.cameras[0]
    clips: list[dict[str, Any]] = []
    for episode, start in places:
        row = store.episodes[episode].start + start
        state = columns["state"][row : row + steps + 1]
        clips.append(
            {
                "frames": store.frames(episode, start, start + steps + 1, camera),
                "command": columns["action"][row : row + steps],
                # Before the first command of an episode the arm holds its joints.
                "previous": columns["action"][row - 1] if start else state[0],
                "state": state,
                "positions": columns["environment_state"][row : row + steps + 1],
            }
        )
    joints, size = store.spec.robot.num_joints, store.spec.size
    empty = {
        "frames": np.zeros((0, steps + 1, size, size, 3), np.uint8),
        "command": np.zeros((0, steps, joints), np.float32),
        "previous": np.zeros((0, joints), np.float32),
        "state": np.zeros((0, steps + 1, joints), np.float32),
        "positions": np.zeros((0, steps + 1, 9), np.float32),
    }
    arrays = {name: np.stack([clip[name] for clip in clips]) if clips else empty[name] for name in empty}
    index = np.array(places, dtype=np.int64).reshape(-1, 2)
    return RecordedClips(episode=index[:, 0], start=index[:, 1], **arrays)


def others_motions(clips: RecordedClips, seed: int = 0) -> np.ndarray:
    """Commands [N,H,J] that make the motions of *another* clip from this clip's start.

    Commands are absolute, so those of another clip would first jump to its posture; its increments don't.
    """
    count = len(clips)
    shift = 1 + np.random.default_rng(seed).integers(max(count - 1, 1))
    other = (np.arange(count) + shift) % max(count, 1)
    moved = clips.command[other] - clips.previous[other][:, None]
    return clips.previous[:, None] + moved


def replay(
    make_env: Callable[[int], Any],
    clips: RecordedClips,
    commands: np.ndarray,
    seed: int = 0,
) -> Replayed:
    """Send `commands` [N,H,J] to learned simulators that start at the clips' first frames.

    `make_env(rows)` must give an environment that doesn't end before H steps, whatever happens in it.
    """
    env = make_env(len(clips))
    camera = next(iter(env.single_observation_space["pixels"]))
    options = {
        "frames": clips.frames[:, :1],
        "agent_pos": clips.state[:, 0],
        "previous_command": clips.previous,
    }
    observation, info = env.reset(seed=[seed + row for row in range(len(clips))], options=options)
    shown: dict[str, list[np.ndarray]] = {field.name: [] for field in fields(Replayed)}

    def keep() -> None:
        shown["frames"].append(np.array(observation["pixels"][camera]))
        shown["agent_pos"].append(np.array(observation["agent_pos"]))
        shown["tool"].append(np.array(info["tool"]))
        shown["object"].append(np.array(info["object"]))
        shown["distance"].append(np.array(info["task_distance"]))

    keep()
    for step in range(commands.shape[1]):
        observation, _, terminated, truncated, info = env.step(commands[:, step])
        if (terminated | truncated).any() and step + 1 < commands.shape[1]:
            raise ValueError(
                f"the replay's environment ended a row at step {step + 1} of {commands.shape[1]}"
            )
        keep()
    shown["frames"][0] = clips.frames[:, 0]
    return Replayed(**{name: np.stack(values, axis=1) for name, values in shown.items()})


def moving_psnr_by_horizon(
    predicted: np.ndarray, true: np.ndarray, horizons: Sequence[int] = HORIZONS
) -> dict[str, float]:
    """Pooled PSNR in dB of frame h over the pixels that moved between frames 0 and h of `true`.

    Both are uint8 [N,H+1,H_px,W,3] with the start frame first; keys are the horizons that fit, as text.
    """
    figures = {}
    for horizon in (h for h in horizons if h < true.shape[1]):
        now, start = (torch.from_numpy(np.array(true[:, at])) for at in (horizon, 0))
        shown = torch.from_numpy(np.array(predicted[:, horizon]))
        figures[str(horizon)] = pooled_psnr(shown, now, moving_mask(now, start))
    return figures


def drift_by_horizon(
    predicted: np.ndarray, true: np.ndarray, horizons: Sequence[int] = HORIZONS
) -> dict[str, float]:
    """Mean distance in metres between predicted and true positions [N,H+1,3] after h steps."""
    distance = np.linalg.norm(predicted - true, axis=-1)
    return {str(h): float(distance[:, h].mean()) for h in horizons if h < distance.shape[1]}


def repeat_last(frames: np.ndarray) -> np.ndarray:
    """The baseline without a model: the start frame, for ever. uint8 [N,H+1,...] → the same shape."""
    return np.broadcast_to(frames[:, :1], frames.shape)
