"""Frames of a run's own video to start from, with the frames before them as context."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robosim.errors import RobosimError
from robosim.simulator import Simulator


class StartError(RobosimError):
    """There is no such frame to start from."""


@dataclass(frozen=True)
class StartEpisode:
    """One line of the list that a person chooses from."""

    index: int
    length: int
    split: str
    task: str


@dataclass(frozen=True)
class RecordedStart:
    """A frame of an episode and what led to it. Labels are None where the episode has none."""

    frames: np.ndarray  # uint8 [C,S,S,3], the last being the present
    joints: np.ndarray | None  # float32 [J]
    previous_command: np.ndarray | None  # float32 [J]
    commands: np.ndarray | None  # float32 [frame,J]: all commands since the episode's first frame
    task: str
    seed: int


def list_episodes(simulator: Simulator) -> list[StartEpisode]:
    """The run's episodes; of a saved simulator, its held-out first frames as episodes of one frame."""
    if simulator.clips is None:
        task = simulator.spec.tasks[0].name
        return [StartEpisode(index, 1, "val", task) for index in range(len(simulator.starts))]
    return [
        StartEpisode(index, row.length, row.split, row.task)
        for index, row in enumerate(simulator.clips.episodes)
    ]


def recorded_start(simulator: Simulator, episode: int, frame: int) -> RecordedStart:
    """Frame `frame` of an episode, with as many frames before it as the dynamics look back over.

    Raises `StartError` for an episode or frame that doesn't exist, `DatasetError` where a file is damaged.
    """
    episodes = list_episodes(simulator)
    if not 0 <= episode < len(episodes):
        raise StartError(f"there is no episode {episode}; choose one from 0 to {len(episodes) - 1}")
    if not 0 <= frame < episodes[episode].length:
        raise StartError(
            f"episode {episode} has no frame {frame}; choose one from 0 to {episodes[episode].length - 1}"
        )
    clips = simulator.clips
    if clips is None:
        task = episodes[episode].task
        return RecordedStart(simulator.starts[episode][None], None, None, None, task, episode)
    row = clips.episodes[episode]
    frames = clips.frames(episode, max(0, frame + 1 - simulator.window), frame + 1)
    joints = commands = None
    known = row.labelled and {"state", "action"} <= set(clips.column_names())
    if known and simulator.bundle is not None:
        joints = clips.column("state")[row.start + frame]
        commands = clips.column("action")[row.start : row.start + frame]
    # Before an episode's first command the arm holds its joints.
    previous = commands[-1] if commands is not None and len(commands) else None
    return RecordedStart(frames, joints, previous, commands, row.task, row.seed)
