"""What can be wrong with the files of a LeRobotDataset that a reader of single episodes doesn't notice."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from robosim.errors import DatasetError
from robosim_datasets import lerobot_format as layout
from robosim_datasets.checks.source_checks import without_stop
from robosim_datasets.faults import Fault
from robosim_datasets.sources.source import Source
from robosim_datasets.sources.video_frames import probe
from robosim_datasets.video_dataset import read_errors

COUNTS = ("episode_index", "frame_index", "index")

EPISODE_FILE = re.compile(r"episode_(\d+)")

RANGE = re.compile(r"(\d{1,18}):(\d{1,18})", re.ASCII)


def lerobot_faults(source: Source) -> list[Fault]:
    """Rows that don't count, videos with other numbers of frames than rows, splits that overlap."""
    try:
        info = json.loads((source.root / layout.INFO_JSON).read_text())
    except (OSError, ValueError):
        return []  # the source couldn't have been opened
    return [
        *_counting_faults(source.root),
        *_video_faults(source, info),
        *split_faults(info, source.info.episodes),
    ]


def _counting_faults(root: Path) -> Iterator[Fault]:
    """Rows must count episodes and frames without gaps: this is where a reader's idea of time comes from."""
    episode, frame, index = -1, 0, -1
    for path in sorted(root.glob("data/**/*.parquet")):
        name = path.relative_to(root).as_posix()
        try:
            with read_errors(path):
                table = pq.read_table(path, columns=list(COUNTS))
                episodes, frames, indices = (table[key].to_numpy() for key in COUNTS)
        except DatasetError as error:
            yield Fault("damaged", name, without_stop(error))
            episode, frame, index = -1, 0, -1
            continue
        if not len(episodes):
            continue
        if episode < 0:  # the first file, or the one after a file that is lost
            episode, frame, index = int(episodes[0]), int(frames[0]) - 1, int(indices[0]) - 1
        previous = np.concatenate([[episode], episodes[:-1]])
        before = np.concatenate([[frame], frames[:-1]])
        same = episodes == previous
        bad = {
            "episode_index": ~same & (episodes != previous + 1),
            "frame_index": np.where(same, frames != before + 1, frames != 0),
            "index": indices != np.concatenate([[index], indices[:-1]]) + 1,
        }
        for key, wrong in bad.items():
            if wrong.any():
                row = int(np.flatnonzero(wrong)[0])
                what = f"{key} is {int(table[key][row].as_py())} in row {row}, where it doesn't count on"
                yield Fault("time", name, what, int(episodes[row]))
        episode, frame, index = int(episodes[-1]), int(frames[-1]), int(indices[-1])


def _video_faults(source: Source, info: dict[str, Any]) -> Iterator[Fault]:
    """A video may be longer than its rows, which nobody notices who asks for as many frames as there are rows."""
    features = info.get("features") or {}
    keys = [
        key
        for key, feature in features.items()
        if isinstance(feature, dict) and feature.get("dtype") == "video"
    ]
    paths = sorted(source.root.glob("videos/**/*.mp4"))
    for key in keys:
        total, whole = 0, True
        for path in (path for path in paths if key in path.parts):
            try:
                frames = probe(path).frames
            except DatasetError:
                whole = False  # its episodes can't be read, which says as much
                continue
            total += frames
            if match := EPISODE_FILE.search(path.stem):
                yield from _longer(source, int(match[1]), path, frames)
        if (
            whole
            and total != source.info.frames
            and not any(EPISODE_FILE.search(path.stem) for path in paths)
        ):
            yield Fault(
                "length", key, f"its files hold {total} frames, the episodes {source.info.frames} rows"
            )


def _longer(source: Source, episode: int, path: Path, frames: int) -> Iterator[Fault]:
    try:
        length = source.read(episode).length
    except DatasetError:
        return
    if frames > length:
        name = path.relative_to(source.root).as_posix()
        yield Fault("length", name, f"holds {frames} frames for {length} rows", episode)


def split_faults(info: dict[str, Any], episodes: int) -> Iterator[Fault]:
    """The ranges of `meta/info.json` that overlap, or name episodes that aren't there."""
    splits = info.get("splits")
    ranges: list[tuple[int, int, str]] = []
    for name, text in (
        splits.items() if isinstance(splits, dict) else ()
    ):  # the source names what else there is
        match = RANGE.fullmatch(str(text))
        if match is None:
            what = f"{name} is {reprlib.repr(text)} and not a range such as 0:8"
            yield Fault("splits", layout.INFO_JSON, what)
            continue
        first, stop = int(match[1]), int(match[2])
        if stop > episodes:
            what = f"{name} is {first}:{stop}, but there are {episodes} episodes"
            yield Fault("splits", layout.INFO_JSON, what)
        if first < min(stop, episodes):
            ranges.append((first, min(stop, episodes), name))
    yield from _overlaps(sorted(ranges))


def _overlaps(ranges: list[tuple[int, int, str]]) -> Iterator[Fault]:
    """One fault for each of the (first, stop, name), in ascending order, that begins within those before it."""
    reach, holder = 0, ""
    for first, stop, name in ranges:
        if first < reach:
            both = f"{first}:{min(stop, reach)}"
            yield Fault("splits", layout.INFO_JSON, f"{holder} and {name} both have the episodes {both}")
        if stop > reach:
            reach, holder = stop, name
