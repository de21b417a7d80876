"""A source in memory, so that a test says what is in it and sees what is read of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from robosim_datasets.importing import import_dataset as module
from robosim_datasets.sources.source import SourceEpisode, SourceInfo

from robosim.errors import DatasetError

NAMES = ("x", "y", "gripper")


class ArraySource:
    """Episodes whose every frame has its number in the red of its lower half: 10 + 2 · number."""

    def __init__(self, root: Path, lengths: Sequence[int], fps: float | None = 20.0, **facts: Any) -> None:
        self.root, self.lengths = root, lengths
        self.broken: set[int] = set()
        self.black: set[tuple[int, str]] = set()
        self.splits: dict[int, str] = {}
        self.timestamps: dict[int, np.ndarray] = {}
        self.missing: set[tuple[int, str]] = set()
        self.without_reward: set[int] = set()
        values = {
            "layout": "arrays",
            "name": "squares",
            "cameras": {"front": (48, 64), "wrist": (48, 64)},
            "fps": fps,
            "state_names": NAMES,
            "action_names": NAMES,
            "action_kind": "ee_delta",
            "robot": "stick",
            "episodes": len(lengths),
            "frames": sum(lengths),
            "instructions": ("push the square",),
            "splits": {},
            "metadata": {"maker": "a test"},
        }
        self.info = SourceInfo(**{**values, **facts})

    def read(self, episode: int) -> SourceEpisode:
        if episode in self.broken:
            raise DatasetError(f"episode {episode} of {self.root} is cut off")
        length = self.lengths[episode]
        action = np.random.default_rng(episode).uniform(0.1, 0.9, (length, 3)).astype(np.float32)
        state = np.concatenate([np.zeros((1, 3), np.float32), np.cumsum(action, 0)[:-1].astype(np.float32)])
        return SourceEpisode(
            length=length,
            state=state if self.info.state_names else state[:, :0],
            action=action if self.info.action_names else action[:, :0],
            instruction="push the square",
            reward=None if episode in self.without_reward else np.ones(length, np.float32),
            timestamps=self.timestamps.get(episode),
            split=self.splits.get(episode),
            metadata={"number": episode},
        )

    def frames(self, episode: int, camera: str, chosen: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
        if (episode, camera) in self.missing:
            raise DatasetError(f"episode {episode} has no camera {camera}")
        for number in chosen:
            colour = (10 + 2 * (number % 100), 60 + 20 * (number // 100), 20 * (episode % 10))
            frame = np.full((48, 64, 3), colour, np.uint8)
            frame[4:12, 8:56] = (220, 60, 20)
            yield frame * ((episode, camera) not in self.black)


@pytest.fixture
def make_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make an `ArraySource` that the import opens, whatever it is told to open."""

    def make(*arguments: Any, **facts: Any) -> ArraySource:
        source = ArraySource(tmp_path / "source", *arguments, **facts)
        source.root.mkdir(exist_ok=True)
        monkeypatch.setattr(module, "open_source", lambda path, layout: source)
        return source

    return make
