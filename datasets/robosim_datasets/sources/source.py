"""What every layout of robot recordings looks like to robosim: episodes that can be read one at a time.

A source is opened by reading its tables and headers, never its pictures; pictures are decoded frame by frame as they
are asked for. Sources are read by several threads at once: a reader opens its own handles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from robosim.spec import ActionKind, EnvSpec
from robosim_datasets.faults import Fault


@dataclass(frozen=True)
class SourceInfo:
    """What a source says of itself, and what its tables show."""

    layout: str
    """In words, such as "LeRobotDataset v2.1" or "RLDS (TFRecord)"."""
    name: str
    """Of the dataset: what it calls itself, else its folder or file."""
    cameras: dict[str, tuple[int, int]]
    """name -> (height, width) in pixels; only cameras that show a colour picture in at least one episode."""
    fps: float | None
    """Frames a second; None where the source doesn't say."""
    state_names: tuple[str, ...]
    """Of the S numbers of a state; none: there are no states."""
    action_names: tuple[str, ...]
    """Of the numbers of a command; none: there are no commands."""
    action_kind: ActionKind
    robot: str
    episodes: int
    frames: int
    """Of all episodes together, as the tables count them."""
    instructions: tuple[str, ...]
    """The different sentences, in order of appearance; none: there is no language."""
    splits: dict[str, int]
    """Episodes by the source's own names of its splits; empty: it has none."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """What the source says about the whole of itself, as JSON: kept in `meta/robosim.json`."""
    notes: tuple[str, ...] = ()
    """What a user should know before importing: assumptions, columns and cameras that are left out."""
    faults: tuple[Fault, ...] = ()
    """What is wrong with files as a whole, seen on opening: the rest of a file that was cut off, say."""
    spec: EnvSpec | None = None
    """The contract, where the source is robosim's own."""
    bytes: int = 0
    """Size of all its files."""


@dataclass
class SourceEpisode:
    """One episode's numbers and texts; frames come from `Source.frames`. T frames, S numbers a state, A a command.

    Row t is (observation t, action t), action t acting between frames t and t + 1; `reward` and `success` of row t
    are what action t led to, as LeRobot's `next.*` columns, RLDS and robomimic have it.
    """

    length: int
    """Number of frames T."""
    state: np.ndarray
    """float32 [T, S]; [T, 0] where there are none"""
    action: np.ndarray
    """float32 [T, A]; [T, 0] where there are none"""
    instruction: str = ""
    reward: np.ndarray | None = None
    """float32 [T]"""
    success: np.ndarray | None = None
    """bool [T]"""
    environment_state: np.ndarray | None = None
    """float32 [T, 9] of robosim's own datasets, see `ENVIRONMENT_STATE`"""
    timestamps: np.ndarray | None = None
    """float64 [T], seconds, where the source has any"""
    split: str | None = None
    """The source's own name, such as "train", "val", "validation" or "test"."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """What the source says about this episode, as JSON."""
    row: dict[str, Any] | None = None
    """The episode's row of `meta/robosim.json`, where the source is robosim's own."""


class Source(Protocol):
    """An opened source. `read` and `frames` raise `DatasetError` naming file and episode where one is damaged."""

    root: Path
    info: SourceInfo

    def read(self, episode: int) -> SourceEpisode:
        """Numbers and texts of episode 0 … `info.episodes` − 1."""
        ...

    def frames(self, episode: int, camera: str, chosen: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
        """The frames with the ascending numbers `chosen`, one uint8 [H, W, 3] each, decoded as they are taken.

        A number may come more than once. Raises `DatasetError` if the video ends before one of them.
        """
        ...
