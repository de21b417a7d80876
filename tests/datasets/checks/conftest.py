"""A made-up source in memory, sound until a test breaks it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from robosim_datasets.checks.source_checks import source_faults
from robosim_datasets.faults import Fault
from robosim_datasets.sources.source import SourceEpisode, SourceInfo

from robosim.errors import DatasetError
from robosim.spec import EnvSpec, RobotSpec, TaskSpec

SIZE, FPS, LENGTH = 16, 10, 20


class Recording:
    """Three episodes of a bright bar that follows the first of two joints. See `Source`."""

    root = Path("made-up")

    def __init__(self) -> None:
        robot = RobotSpec("stick", ("turn", "grip"), ("rad", "fraction"), (-2.0, 0.0), (2.0, 1.0))
        tasks = (TaskSpec("reach", "reach", 30, 0.03, "tool"),)
        self.spec = EnvSpec(robot, tasks, ("front", "side"), SIZE, FPS)
        self.episodes = [self._episode(seed) for seed in range(3)]
        self.pictures = [
            {
                camera: self._frames(episode.state[:, 0], shade)
                for camera, shade in (("front", 200), ("side", 240))
            }
            for episode in self.episodes
        ]
        self.damaged: set[int] = set()
        self.seen_on_opening: tuple[Fault, ...] = ()

    @property
    def info(self) -> SourceInfo:
        return SourceInfo(
            layout="made up",
            name="recording",
            cameras={camera: (SIZE, SIZE) for camera in self.spec.cameras},
            fps=FPS,
            state_names=self.spec.state_columns,
            action_names=self.spec.action_columns,
            action_kind="joint_position",
            robot="stick",
            episodes=len(self.episodes),
            frames=sum(episode.length for episode in self.episodes),
            instructions=("reach",),
            splits={"train": 2, "val": 1},
            faults=self.seen_on_opening,
            spec=self.spec,
        )

    def read(self, episode: int) -> SourceEpisode:
        if episode in self.damaged:
            raise DatasetError(f"file {episode} is cut off; restore it")
        return replace(self.episodes[episode])

    def frames(self, episode: int, camera: str, chosen: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
        for number in chosen:
            if number >= len(self.pictures[episode][camera]):
                raise DatasetError(f"file {episode} ends before frame {number}")
            yield self.pictures[episode][camera][number]

    def faults(self) -> list[str]:
        return [fault.sentence() for fault in source_faults(self)]

    def edit(self, index: int, **values: Any) -> None:
        self.episodes[index] = replace(self.episodes[index], **values)

    def _episode(self, seed: int) -> SourceEpisode:
        turn = np.sin(np.linspace(seed, seed + 3, LENGTH))
        state = np.stack([turn, np.full(LENGTH, 0.5)], axis=1).astype(np.float32)
        return SourceEpisode(
            length=LENGTH,
            state=state,
            action=np.roll(state, -1, axis=0),
            reward=np.zeros(LENGTH, np.float32),
            success=np.zeros(LENGTH, np.bool_),
            timestamps=np.arange(LENGTH) / FPS,
            split="val" if seed == 2 else "train",
        )

    def _frames(self, turn: np.ndarray, shade: int) -> np.ndarray:
        frames = np.full((len(turn), SIZE, SIZE, 3), 60, np.uint8)
        for frame, place in zip(frames, turn, strict=True):
            frame[:, round(7 + 6 * place)] = shade
            frame[0, :] = 100 * place + 120  # changes, however slow the arm
        return frames


@pytest.fixture
def recording() -> Recording:
    return Recording()
