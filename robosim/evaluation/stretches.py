"""The held-out stretches that a simulator is evaluated on: one of an episode, a few episodes a task.

Legend of shape suffixes: N stretches, T frames of the longest (shorter ones are padded by their last frame), H/W
pixels, J numbers of a command, S of a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from robosim_datasets.clip_store import ClipStore
from torch import Tensor

from robosim.errors import DatasetError
from robosim.spec import EnvSpec


@dataclass(frozen=True)
class Stretches:
    """Parts of held-out episodes. The last of the first `context` frames is the present, from which horizons count.

    Row t of `command` acts between frames t and t + 1. Labels that the data don't have are NaN, or 0 wide.
    """

    task: np.ndarray  # str [N]
    episode: np.ndarray  # int64 [N]: position in the clip store
    start: np.ndarray  # int64 [N]: its frame of the episode
    length: np.ndarray  # int64 [N]: frames, the context included
    context: int
    frames: Tensor  # uint8 [N,T,H,W,3]
    command: np.ndarray  # float32 [N,T,J]
    before: np.ndarray  # float32 [N,J]: the command before the first row's; NaN where there is none
    state: np.ndarray  # float32 [N,T,S]
    positions: np.ndarray  # float32 [N,T,9]: tool, object, goal, metres

    def __len__(self) -> int:
        return len(self.task)

    @property
    def tasks(self) -> list[str]:
        """In the order of the data."""
        return list(dict.fromkeys(self.task.tolist()))

    @property
    def future(self) -> int:
        """Frames after the context of the longest stretch."""
        return int(self.length.max()) - self.context

    @property
    def present(self) -> Tensor:
        """The last context frames, uint8 [N,H,W,3]."""
        return self.frames[:, self.context - 1]

    def reaches(self, horizon: int) -> np.ndarray:
        """Bool [N]: the stretches that have a frame `horizon` steps after the present."""
        return self.length >= self.context + horizon

    def at(self, horizon: int) -> Tensor:
        """The true frames `horizon` steps after the present, uint8 [N,H,W,3]; padding where there is none."""
        return self.frames[:, self.context - 1 + horizon]

    def has_object(self, spec: EnvSpec) -> np.ndarray:
        """Bool [N]: whether the task is about an object. A task without one labels its goal as one."""
        known = np.isfinite(self.positions).all(axis=(1, 2))
        apart = (self.positions[..., 3:6] != self.positions[..., 6:9]).any(axis=(1, 2))
        by_task = np.array([spec.task(name).subject == "object" for name in self.task.tolist()], dtype=bool)
        return np.where(known, apart, by_task)


def choose_places(
    store: ClipStore, episodes: Sequence[int], clips: int, context: int, horizon: int, long: int, seed: int
) -> list[tuple[int, int, int]]:
    """(episode, first frame, frames) of one stretch of up to `clips` of these episodes.

    Episodes are taken evenly over their lengths, the shortest and the longest included: the long ones alone would be
    those in which nothing succeeds. A stretch has `context` frames and `long` more if its episode is so long, else
    `horizon` more, else all there are; where that leaves room, a seeded draw says where it begins.
    """
    able = [episode for episode in episodes if store.episodes[episode].length > context]
    able.sort(key=lambda episode: (store.episodes[episode].length, episode))
    chosen = spread(len(able), clips)
    generator = np.random.default_rng(seed)
    places = []
    for episode in (able[i] for i in chosen):
        frames = store.episodes[episode].length
        wanted = context + max(horizon, long if frames >= context + long else 0)
        length = min(wanted, frames)
        places.append((episode, int(generator.integers(frames - length + 1)), length))
    return places


def spread(count: int, most: int) -> list[int]:
    """Up to `most` of `count` indices, evenly spread, the first and the last included."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int)).tolist()


def read_stretches(store: ClipStore, places: Sequence[tuple[int, int, int]], context: int) -> Stretches:
    """Read frames and labels of `places`. Raises `DatasetError` where there is none."""
    if not places:
        raise DatasetError(
            f"{store.path} has no held-out episode of more than context={context} frames to evaluate; set a smaller "
            "context=, other tasks=, or collect or import longer episodes"
        )
    spec, longest = store.spec, max(length for _, _, length in places)
    camera = spec.cameras[0]

    def padded(values: np.ndarray) -> np.ndarray:
        return values[np.minimum(np.arange(longest), len(values) - 1)]

    def column(name: str, width: int) -> np.ndarray:
        if name not in spec.labels:
            return np.full((len(places), longest, width), np.nan, np.float32)
        rows = [store.episodes[e].start + first for e, first, _ in places]
        whole = store.column(name)
        parts = [whole[row : row + length] for row, (_, _, length) in zip(rows, places, strict=True)]
        return np.stack([padded(part) for part in parts]).astype(np.float32)

    frames = [padded(store.frames(e, first, first + n, camera)) for e, first, n in places]
    command = column("action", len(spec.action_columns))
    before = np.full((len(places), command.shape[-1]), np.nan, np.float32)
    for i, (episode, first, _) in enumerate(places):
        if first and "action" in spec.labels:
            before[i] = store.column("action")[store.episodes[episode].start + first - 1]
    return Stretches(
        task=np.array([store.episodes[e].task for e, _, _ in places]),
        episode=np.array([e for e, _, _ in places]),
        start=np.array([first for _, first, _ in places]),
        length=np.array([n for _, _, n in places]),
        context=context,
        frames=torch.from_numpy(np.stack(frames)),
        command=command,
        before=before,
        state=column("state", len(spec.state_columns)),
        positions=column("environment_state", 9),
    )
