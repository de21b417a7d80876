"""Random clips as a pure function of (seed, step), so that a resumed run sees exactly what an uninterrupted one would.

Every draw is a raw 64-bit word of NumPy's Philox counter generator, keyed by (seed, step) and read row by row.
The raw stream is fixed for good (NEP 19), and a row's words don't depend on how many rows follow it: row b is the
same in every batch size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from robosim.errors import DatasetError
from robosim_datasets.clip_store import MOTION, ClipStore

CANDIDATES = 4
"""Clips among which a motion-biased draw takes the one that moves most."""


class ClipSampler:
    """Batches of clips of `length` consecutive frames, every possible clip equally likely.

    `episodes` are positions in `store.episodes`; those shorter than `length` give no clips. With probability
    `motion_bias` a row takes, of `CANDIDATES` clips, the one whose pixels change most: in robot video most of a
    frame is still, and much of an episode too.

    Where the store is a mixture with weights, each part gives its share of the rows, and within a part every clip is
    equally likely; `motion_bias` then chooses within the part.
    """

    def __init__(
        self,
        store: ClipStore,
        episodes: list[int],
        length: int,
        batch: int,
        seed: int,
        columns: tuple[str, ...] = ("frames",),
        motion_bias: float = 0.0,
        camera: str | None = None,
    ) -> None:
        self.store, self.length, self.batch, self.seed = store, length, batch, seed
        self.columns, self.motion_bias, self.camera = columns, motion_bias, camera
        self._episodes = np.array([e for e in episodes if store.episodes[e].length >= length], dtype=np.int64)
        if not len(self._episodes):
            longest = max((store.episodes[e].length for e in episodes), default=0)
            raise DatasetError(
                f"no episode of {store.path} is long enough for clips of {length} frames (of {len(episodes)} "
                f"selected, the longest has {longest}); bring in longer episodes, or train on "
                "shorter clips (clip_length= of the stage)"
            )
        groups, weights = _by_part(store, self._episodes, episodes, length)
        self._episodes = np.concatenate(groups)
        lengths = np.array([store.episodes[e].length for e in self._episodes])
        self._starts = np.array([store.episodes[e].start for e in self._episodes])
        self._clips_before = np.concatenate([[0], np.cumsum(lengths - length + 1)])
        bounds = self._clips_before[np.cumsum([0, *map(len, groups)])]
        self._first_clips, self._num_clips = bounds[:-1], np.diff(bounds).astype(np.uint64)
        self._edges = _word_edges(weights)
        self._values = {name: store.column(name) for name in columns if name != "frames"}
        self._change = np.concatenate([[0], np.cumsum(store.column(MOTION), dtype=np.float64)])

    @property
    def num_clips(self) -> int:
        """How many different clips there are."""
        return int(self._clips_before[-1])

    def __call__(self, step: int, rows: slice = slice(None)) -> dict[str, Tensor]:
        """These `rows` of the batch of a step: each column [B, length, ...], frames uint8 [B, T, H, W, 3].

        Beside them `noise_seed` (a seed for whatever randomness the model needs for this row), `episode` and
        `start` (frame within the episode), int64 [B] each.
        """
        words = np.random.Philox(key=[self.seed % 2**64, step]).random_raw(self.batch * (2 + CANDIDATES))
        words = words.reshape(self.batch, 2 + CANDIDATES)[rows]
        chosen = self._choose(words[:, 1], words[:, 2:])
        position = np.searchsorted(self._clips_before, chosen, side="right") - 1
        start = chosen - self._clips_before[position]
        frame_rows = (self._starts[position] + start)[:, None] + np.arange(self.length)
        batch = {name: torch.from_numpy(values[frame_rows]) for name, values in self._values.items()}
        if "frames" in self.columns:
            batch["frames"] = self._frames(position, start)
        batch["noise_seed"] = torch.from_numpy((words[:, 0] >> np.uint64(1)).astype(np.int64))
        batch["episode"] = torch.from_numpy(self._episodes[position])
        batch["start"] = torch.from_numpy(start)
        return batch

    def _choose(self, coins: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Clip numbers [B] from one word a row that decides on the bias, and `CANDIDATES` words that propose.

        The size of the first word that proposes also decides on the part.
        """
        part = np.searchsorted(self._edges, draws[:, 0], side="right")[:, None]
        candidates = self._first_clips[part] + (draws % self._num_clips[part]).astype(np.int64)
        if self.motion_bias <= 0:
            return candidates[:, 0]
        position = np.searchsorted(self._clips_before, candidates, side="right") - 1
        first = self._starts[position] + candidates - self._clips_before[position]
        change = self._change[first + self.length - 1] - self._change[first]
        liveliest = candidates[np.arange(len(candidates)), change.argmax(axis=1)]
        biased = coins.astype(np.float64) / 2.0**64 < self.motion_bias
        return np.where(biased, liveliest, candidates[:, 0])

    def _frames(self, position: np.ndarray, start: np.ndarray) -> Tensor:
        size = self.store.spec.size
        frames = np.empty((len(start), self.length, size, size, 3), np.uint8)
        for row, (episode, first) in enumerate(zip(self._episodes[position], start, strict=True)):
            frames[row] = self.store.frames(int(episode), first, first + self.length, self.camera)
        return torch.from_numpy(frames)


def _by_part(
    store: ClipStore, long_enough: np.ndarray, selected: Sequence[int], length: int
) -> tuple[list[np.ndarray], list[float]]:
    """The episodes `long_enough` in groups, and each group's weight: one group, or one a part of a weighted mixture.

    A part without selected episodes gives nothing. Raises `DatasetError` where all those selected are too short.
    """
    groups, weights, first = [], [], 0
    for part in store.parts:
        last, weight = first + part.episodes, part.weight
        if weight is None:
            return [long_enough], [1.0]
        group = long_enough[(long_enough >= first) & (long_enough < last)]
        if not len(group) and any(first <= episode < last for episode in selected):
            raise DatasetError(
                f"{part.name} has a weight in {store.path}, but no episode of it is long enough for clips of {length} "
                "frames; leave it out, or train on shorter clips"
            )
        if len(group):
            groups.append(group)
            weights.append(weight)
        first = last
    return (groups, weights) if groups else ([long_enough], [1.0])


def _word_edges(weights: Sequence[float]) -> np.ndarray:
    """Where the 64-bit words of each group but the first begin: every group has its weight's share of the words."""
    shares = np.cumsum(weights)[:-1] / np.sum(weights)
    return np.array([min(int(share * 2.0**64), 2**64 - 1) for share in shares], dtype=np.uint64)
