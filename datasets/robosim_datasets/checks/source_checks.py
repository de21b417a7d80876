"""The checks that every source passes through, whatever its layout: each episode's numbers, then its pictures.

Each frame is decoded once; what it takes to see that a picture stands still, or that two episodes are the same, is
kept as hashes and judged at the end.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from robosim.errors import DatasetError
from robosim.progress import Bar
from robosim_datasets.checks.number_checks import number_faults
from robosim_datasets.checks.picture_checks import Watched, black_faults, run_list, watch
from robosim_datasets.faults import Fault
from robosim_datasets.sources.source import Source, SourceEpisode, SourceInfo

FROZEN_SECONDS = 0.5
"""A picture that stands still for longer, while the arm moves, is frozen. A resting arm's may stand still."""

FROZEN_FRAMES = 5
"""The same in frames, for sources that don't say how long a frame lasts."""

MOTION_SHARE = 0.1
"""The arm moves when one of its numbers goes through this share of the most it ever does in an episode."""


def source_faults(source: Source, bar: Bar | None = None) -> list[Fault]:
    """Everything that is wrong with a source, what was seen on opening it included. `bar` counts frames.

    Episodes are read by as many threads as there are cores: decoding doesn't hold Python's lock.
    """
    check = _SourceCheck(source.info)
    executor = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    try:
        for seen in executor.map(lambda index: _look(source, index, bar), range(source.info.episodes)):
            check.add(seen)
    finally:
        executor.shutdown(cancel_futures=True)
    if bar is not None:  # nobody knows how long the episodes are that can't be read
        bar.advance(max(0, bar.total - bar.done))
    return [
        *source.info.faults,
        *_spec_faults(source.info),
        *check.faults,
        *check.frozen(),
        *check.repeated(),
    ]


@dataclass
class _Seen:
    """What one reading of an episode showed; `episode` None: it can't be read."""

    index: int
    episode: SourceEpisode | None = None
    videos: dict[str, Watched] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def _look(source: Source, index: int, bar: Bar | None) -> _Seen:
    """Read one episode; a damaged one is a fault and doesn't keep the others from being read."""
    seen = _Seen(index)
    try:
        episode = seen.episode = source.read(index)
    except DatasetError as error:
        if not _said(source.info, index, str(error)):
            seen.faults.append(Fault("damaged", "episode", without_stop(error), index))
        return seen
    for camera, size in source.info.cameras.items():
        try:
            frames = source.frames(index, camera, range(episode.length))
            seen.videos[camera] = watched = watch(frames, camera, size, index)
            if watched.frames != episode.length:
                what = f"has {watched.frames} frames for {episode.length} rows"
                seen.faults.append(Fault("length", f"camera {camera}", what, index))
        except DatasetError as error:
            seen.faults.append(Fault("damaged", f"camera {camera}", without_stop(error), index))
        if bar is not None:
            bar.advance(episode.length)
    return seen


def _said(info: SourceInfo, index: int, error: str) -> bool:
    """Whether what keeps an episode from being read was seen on opening: it needn't be said again."""
    known = (fault for fault in info.faults if fault.episode == index)
    return any(fault.where in error or fault.what in error for fault in known)


@dataclass(frozen=True)
class _Still:
    """A run of the same picture, and how far the arm's numbers went meanwhile, [S + A]."""

    episode: int
    camera: str
    first: int
    last: int
    motion: np.ndarray


@dataclass(frozen=True)
class _Content:
    """What an episode holds, to find it again."""

    episode: int
    split: str | None
    numbers: str | None
    """Hash of actions and states; None where they say nothing."""
    videos: dict[str, str]
    """Hash by camera, of those that show something move."""


class _SourceCheck:
    """What is known of the episodes so far."""

    def __init__(self, info: SourceInfo) -> None:
        self.faults: list[Fault] = []
        self._info = info
        self._stills: list[_Still] = []
        self._ranges = np.zeros(0)
        self._contents: list[_Content] = []
        self._long = math.ceil(FROZEN_SECONDS * info.fps) if info.fps else FROZEN_FRAMES

    def add(self, seen: _Seen) -> None:
        """Judge an episode, and keep what it takes to judge it beside the others."""
        index, episode = seen.index, seen.episode
        if episode is None:
            self.faults += seen.faults
            return
        self.faults += [*number_faults(self._info, index, episode), *seen.faults]
        signal = self._signal(episode)
        if len(signal):
            moved = np.nan_to_num(np.ptp(signal, axis=0))
            if not len(self._ranges):
                self._ranges = moved
            elif len(moved) == len(self._ranges):  # others have a fault, or no labels
                self._ranges = np.maximum(self._ranges, moved)
        videos = {}
        for camera, watched in seen.videos.items():
            self._judge(watched, index, camera, signal)
            if not watched.all_black and not watched.all_still:
                videos[camera] = watched.digest
        self._contents.append(_Content(index, episode.split, _numbers_hash(episode), videos))

    def frozen(self) -> Iterator[Fault]:
        """The runs of the same picture during which the arm moved."""
        needed = MOTION_SHARE * self._ranges
        for still in self._stills:
            if len(still.motion) == len(needed) and np.any((still.motion > needed) & (needed > 0)):
                run = run_list([(still.first, still.last)])
                what = f"the same picture at {run}, while the arm moves"
                yield Fault("frozen", f"camera {still.camera}", what, still.episode)

    def repeated(self) -> Iterator[Fault]:
        """Videos that were seen before, and content that is in more than one split."""
        # The first that holds a content, in each split; None in place of a camera: the numbers.
        holders: dict[tuple[str | None, str], dict[str | None, _Content]] = {}
        for content in self._contents:
            elsewhere: dict[str, _Content] = {}
            numbers = () if content.numbers is None else ((None, content.numbers),)
            for camera, digest in itertools.chain(content.videos.items(), numbers):
                known = holders.setdefault((camera, digest), {})
                if known and camera is not None:
                    what = f"shows the same frames as episode {next(iter(known.values())).episode}"
                    yield Fault("repeated", f"camera {camera}", what, content.episode)
                for split, other in known.items():
                    if split and content.split and split != content.split:
                        elsewhere.setdefault(split, other)
                known.setdefault(content.split, content)
            for split, other in elsewhere.items():
                what = f"the recording is in {content.split} and in {split} (episode {other.episode})"
                yield Fault("splits", "split", what, content.episode)

    def _judge(self, seen: Watched, index: int, camera: str, signal: np.ndarray) -> None:
        if seen.odd is not None:
            self.faults.append(seen.odd)
        self.faults += black_faults(seen, camera, index)
        if seen.all_black:
            return
        if seen.all_still:
            what = f"all {seen.frames} frames are the same picture"
            self.faults.append(Fault("frozen", f"camera {camera}", what, index))
            return
        for first, last in seen.still:
            if last - first >= self._long and last < len(signal):
                motion = np.ptp(signal[first : last + 1], axis=0)
                self._stills.append(_Still(index, camera, first, last, motion))

    def _signal(self, episode: SourceEpisode) -> np.ndarray:
        """Where the arm is and is told to be, [T, S + A]."""
        length = episode.length
        if len(episode.state) != length or len(episode.action) != length:
            return np.zeros((0, 0))
        delta = self._info.action_kind == "ee_delta"
        told = np.cumsum(episode.action, axis=0) if delta else episode.action
        return np.concatenate([episode.state, told], axis=1)


def _spec_faults(info: SourceInfo) -> Iterator[Fault]:
    """Where a source with a contract of its own doesn't keep it."""
    if info.spec is None:
        return
    size = info.spec.size
    for camera in info.spec.cameras:
        height, width = info.cameras.get(camera, (0, 0))
        if (height, width) != (size, size):
            yield Fault(
                "shape", f"camera {camera}", f"shows {width}×{height} pixels, the spec says {size}×{size}"
            )
    if info.fps != info.spec.fps:
        yield Fault("time", "fps", f"{info.fps} frames/s, the spec says {info.spec.fps}")


def without_stop(error: Exception) -> str:
    return str(error).rstrip(".")


def _numbers_hash(episode: SourceEpisode) -> str | None:
    values = np.concatenate([episode.action.ravel(), episode.state.ravel()])
    if not len(values) or np.ptp(values) == 0:
        return None
    return hashlib.sha256(f"{episode.length} ".encode() + values.tobytes()).hexdigest()
