"""The first look at a source: every episode's numbers, and two pictures of each camera."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from robosim.errors import DatasetError
from robosim.progress import progress
from robosim.spec import ActionKind
from robosim_datasets.faults import Fault
from robosim_datasets.importing.config import ImportConfig
from robosim_datasets.importing.resample import choose_rows, resample_actions
from robosim_datasets.sources.source import Source, SourceEpisode

BLACK = 8
"""Grey levels of the brightest pixel up to which a picture shows nothing."""

SLOWEST = 1.5
"""Periods between two frames, in the median, that still count as the rate of the result."""


@dataclass(frozen=True)
class Look:
    """What one episode shows at the rate of the result."""

    rows: np.ndarray
    """int64 [T]: the source's frames that are taken"""
    lower: np.ndarray
    upper: np.ndarray
    """float32 [A]: the smallest and the largest command"""
    instruction: str
    split: str | None
    outcomes: frozenset[str]
    """Which of reward and success it has."""
    blank: dict[str, str]
    """Cameras that show nothing here, and why: black, or what is wrong with them."""


def look_at_all(
    source: Source, config: ImportConfig, fps: float, spec_fps: int, kind: ActionKind, threads: int
) -> tuple[dict[int, Look], list[Fault]]:
    """What every episode shows, by its number; and why others are left out."""
    numbers = range(min(source.info.episodes, config.episodes or source.info.episodes))
    looks: dict[int, Look] = {}
    left_out: list[Fault] = []

    def attempt(number: int) -> Look | DatasetError:
        try:
            return look_at(source, config, fps, spec_fps, kind, number)
        except DatasetError as error:
            return error

    with progress("look at the source", len(numbers), "episode") as bar:
        for number, seen in in_threads(attempt, numbers, threads):
            if isinstance(seen, DatasetError):
                left_out.append(Fault("damaged", source.root.name, str(seen), number))
            elif len(seen.rows) < 2:
                what = f"{len(seen.rows)} frames are left of it, 2 are needed"
                left_out.append(Fault("length", source.root.name, what, number))
            else:
                looks[number] = seen
            bar.advance()
    return looks, left_out


def look_at(
    source: Source, config: ImportConfig, fps: float, spec_fps: int, kind: ActionKind, number: int
) -> Look:
    """Raises `DatasetError` where the episode can't be imported."""
    episode = source.read(number)
    check_numbers(source, episode)
    stamps = None if config.source_fps else episode.timestamps
    rows = choose_rows(episode.length, fps, spec_fps, stamps)
    if stamps is not None and len(rows) > 1:
        period = float(np.median(np.diff(stamps[rows])))
        if period > SLOWEST / spec_fps:
            raise DatasetError(
                f"it has {1 / period:.3g} frames/s where the result has {spec_fps}; import it apart, or with fps="
            )
    action = resample_actions(episode.action, rows, kind, source.info.action_names)
    there = {"reward": episode.reward, "success": episode.success}
    return Look(
        rows=rows,
        lower=action.min(axis=0),
        upper=action.max(axis=0),
        instruction=episode.instruction,
        split=episode.split,
        outcomes=frozenset(name for name, values in there.items() if values is not None),
        blank=_blank_cameras(source, config, number, episode.length),
    )


def check_numbers(source: Source, episode: SourceEpisode) -> None:
    """Raise `DatasetError` unless states and commands are there, of one length and finite."""
    for name, values, names in (
        ("state", episode.state, source.info.state_names),
        ("action", episode.action, source.info.action_names),
    ):
        if values.shape != (episode.length, len(names)):
            raise DatasetError(f"its {name} is {values.shape} and not {(episode.length, len(names))}")
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            raise DatasetError(f"its {name} isn't finite at frame {row}")


def in_threads[A, B](
    function: Callable[[A], B], arguments: Sequence[A], threads: int
) -> Iterator[tuple[A, B]]:
    """(argument, result) in order; what hasn't begun is dropped when the caller stops."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield from zip(arguments, pool.map(function, arguments), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _blank_cameras(source: Source, config: ImportConfig, number: int, length: int) -> dict[str, str]:
    """Of the cameras that may be taken, those that show nothing here. One that was asked for must be readable."""
    blank: dict[str, str] = {}
    for camera in config.cameras or source.info.cameras:
        few = list(dict.fromkeys([0, length // 2]))
        try:
            if max(frame.max() for frame in source.frames(number, camera, few)) <= BLACK:
                blank[camera] = "it is black"
        except DatasetError as error:
            if config.cameras:
                raise
            blank[camera] = str(error)
    return blank
