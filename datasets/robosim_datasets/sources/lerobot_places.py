"""The episode tables of a LeRobotDataset, v2 and v3: how long each episode is and in which files it lies.

What can't be read of a table becomes a fault; the episodes in the rest of it stay. The tables may come from anywhere:
they name files within the dataset and no others.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from robosim.errors import DatasetError
from robosim_datasets.faults import Fault
from robosim_datasets.lerobot_format import DATA_PATH, INFO_JSON, VIDEO_PATH

PATHS = {
    2: (
        "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    ),
    3: (DATA_PATH, VIDEO_PATH),
}
"""Where data and videos lie, if `meta/info.json` doesn't say."""

FIELDS = {2: ("episode_chunk", "episode_index", "video_key"), 3: ("chunk_index", "file_index", "video_key")}
"""What may stand in braces there."""

FORMAT = re.compile(r"0?[1-9]?d?")
"""How a number may be written: a width of hundreds of millions would fill the memory."""

MORE_EPISODES = 1000
"""So many episodes may be missing from the table and still be counted; a larger number is a damaged one."""

PLACE_COLUMNS = ("episode_index", "length", "tasks", "dataset_from_index", "dataset_to_index")
ROW_ERRORS = (KeyError, TypeError, ValueError, IndexError, AttributeError)
"""What a row of a damaged table gives."""


@dataclass(frozen=True)
class Clip:
    """An episode's part of a video file."""

    path: Path
    start: float = 0.0
    """Seconds of the episode's first frame."""
    frames: int | None = None
    """Frames from there to the next episode; None: the file holds this episode alone."""


@dataclass(frozen=True)
class Place:
    """One row of the episode table."""

    length: int
    tasks: tuple[str, ...]
    data: Path
    clips: dict[str, Clip]
    """By the video's key."""
    more: dict[str, Any]
    """What else the row says, beside places and statistics."""


@dataclass
class Tables:
    """Everything about the episodes that stands in `meta/`."""

    episodes: int = 0
    """Those that can't be read, because their row is missing or damaged, among them."""
    places: dict[int, Place] = field(default_factory=dict)
    tasks: dict[int, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def read_tables(root: Path, info: dict[str, Any], video_keys: tuple[str, ...], version: int) -> Tables:
    """The tables of a dataset of `codebase_version` 2 or 3."""
    tables = Tables()
    tasks = _jsonl(root, "meta/tasks.jsonl", tables) if version == 2 else _parquet_tasks(root, tables)
    for where, row in tasks:
        try:
            tables.tasks[int(row["task_index"])] = str(row["task"])
        except ROW_ERRORS as error:
            tables.faults.append(Fault("schema", where, f"a task lacks its number or sentence ({error!r})"))
    _read_places(root, info, video_keys, version, tables)
    return tables


def _read_places(
    root: Path, info: dict[str, Any], video_keys: tuple[str, ...], version: int, tables: Tables
) -> None:
    """Fill in `tables.places` and `tables.episodes`."""
    rows = _jsonl(root, "meta/episodes.jsonl", tables) if version == 2 else _parquet_episodes(root, tables)
    rows, said = list(rows), info.get("total_episodes")
    believed = said if isinstance(said, int) and 0 <= said <= len(rows) + MORE_EPISODES else 0
    usual = dict(zip(("data_path", "video_path"), PATHS[version], strict=True))
    info = {**info, **{key: _template(key, info.get(key) or usual[key], FIELDS[version]) for key in usual}}
    for where, row in rows:
        number = row.get("episode_index") if isinstance(row, dict) else None
        try:
            if not 0 <= row["episode_index"] < max(len(rows), believed):
                raise ValueError(f"episode_index {number}")
            place = (_place_v2 if version == 2 else _place_v3)(root, info, video_keys, row)
        except ROW_ERRORS as error:
            known = number if isinstance(number, int) else None
            tables.faults.append(Fault("schema", where, f"an episode's row is damaged ({error!r})", known))
            continue
        if number in tables.places:
            tables.faults.append(Fault("schema", where, "the episode stands in the table twice", number))
        else:
            tables.places[int(row["episode_index"])] = place
    tables.episodes = max(believed, max(tables.places, default=-1) + 1)
    tables.faults += _missing(tables, said, len(rows))


def _missing(tables: Tables, said: Any, rows: int) -> list[Fault]:
    """A fault for each episode without a row, and for a number of episodes that isn't that of the table."""
    named = {fault.episode for fault in tables.faults}
    missing = [
        number for number in range(tables.episodes) if number not in tables.places and number not in named
    ]
    faults = [Fault("schema", "meta/episodes", "the table lacks the episode", number) for number in missing]
    if said != tables.episodes:
        faults.append(Fault("schema", INFO_JSON, f"says {said!r} episodes, the episode table has {rows}"))
    return faults


def find_faults(root: Path, tables: Tables) -> Iterator[Fault]:
    """Files that the tables name and that aren't there, and videos that are shorter than their episode."""
    there: dict[Path, bool] = {}
    for number, place in sorted(tables.places.items()):
        for path in [place.data, *(clip.path for clip in place.clips.values())]:
            if path not in there:
                there[path] = os.path.isfile(path)
            if not there[path]:
                yield Fault("damaged", name_of(root, path), "the file is missing", number)
        for key, clip in place.clips.items():
            if clip.frames is not None and clip.frames < place.length:
                what = f"the video has {clip.frames} frames, the episode {place.length} rows"
                yield Fault("length", key, what, number)


def name_of(root: Path, path: Path) -> str:
    """A file as the user knows it: relative to the dataset where it lies within it."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def inside(root: Path, name: str) -> Path:
    """The file `name` within a dataset. Raises `ValueError` for a name that leads elsewhere.

    By the name alone: in the Hub's cache the files themselves are links to elsewhere.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"{name[:80]!r} isn't within the dataset")
    return root / path


def regular(path: Path) -> None:
    """Raise `FileNotFoundError` unless there is a file: a link to a device may have no end."""
    if not os.path.isfile(path):  # unlike Path.is_file, False for names that are too long
        raise FileNotFoundError(errno.ENOENT, "there is no such file", str(path))


def _template(key: str, template: Any, fields: tuple[str, ...]) -> str:
    """`template` if it holds only these fields, numbers in at most nine places. Raises `DatasetError` for others."""
    try:
        parts = list(Formatter().parse(template))
    except (TypeError, ValueError):
        parts = [("", "", "", None)]
    for _, name, form, conversion in parts:
        plain = not form if name == "video_key" else FORMAT.fullmatch(form or "")
        if name is not None and (name not in fields or conversion or not plain):
            raise DatasetError(
                f"{INFO_JSON} says {key} {str(template)[:80]!r}, which is no path with the fields "
                f"{', '.join(fields)}; restore it"
            )
    return template


def _place_v2(root: Path, info: dict[str, Any], video_keys: tuple[str, ...], row: dict[str, Any]) -> Place:
    number = int(row["episode_index"])
    fields = {"episode_index": number, "episode_chunk": number // int(info.get("chunks_size") or 1000)}
    clips = {
        key: Clip(inside(root, info["video_path"].format(video_key=key, **fields))) for key in video_keys
    }
    data = inside(root, info["data_path"].format(video_key="", **fields))
    more = {key: value for key, value in row.items() if key not in PLACE_COLUMNS}
    return Place(_length(row), _tasks(row), data, clips, more)


def _place_v3(root: Path, info: dict[str, Any], video_keys: tuple[str, ...], row: dict[str, Any]) -> Place:
    clips = {key: _clip(root, info, key, row) for key in video_keys}
    chunk, file = int(row["data/chunk_index"]), int(row["data/file_index"])
    data = inside(root, info["data_path"].format(video_key="", chunk_index=chunk, file_index=file))
    more = {key: value for key, value in row.items() if key not in PLACE_COLUMNS and "/" not in key}
    length = _length(row)
    if "dataset_from_index" in row and row["dataset_to_index"] - row["dataset_from_index"] != length:
        raise ValueError(f"{length} frames in rows {row['dataset_from_index']} to {row['dataset_to_index']}")
    return Place(length, _tasks(row), data, clips, more)


def _clip(root: Path, info: dict[str, Any], key: str, row: dict[str, Any]) -> Clip:
    start, stop = float(row[f"videos/{key}/from_timestamp"]), float(row[f"videos/{key}/to_timestamp"])
    path = info["video_path"].format(
        video_key=key,
        chunk_index=int(row[f"videos/{key}/chunk_index"]),
        file_index=int(row[f"videos/{key}/file_index"]),
    )
    return Clip(inside(root, path), start, round((stop - start) * float(info["fps"])))


def _length(row: dict[str, Any]) -> int:
    length = int(row["length"])
    if length < 1:
        raise ValueError(f"a length of {length} frames")
    return length


def _tasks(row: dict[str, Any]) -> tuple[str, ...]:
    tasks = row.get("tasks") or ()
    return (tasks,) if isinstance(tasks, str) else tuple(str(task) for task in tasks)


def _jsonl(root: Path, name: str, tables: Tables) -> Iterator[tuple[str, Any]]:
    """The rows of a file with one JSON object a line."""
    try:
        regular(root / name)
        lines = (root / name).read_bytes().splitlines()
    except OSError as error:
        tables.faults.append(Fault("damaged", name, f"the file can't be read ({error.strerror})"))
        return
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                yield name, json.loads(line)
        except ValueError:
            tables.faults.append(Fault("damaged", name, f"line {number} is no JSON"))


def _parquet_episodes(root: Path, tables: Tables) -> Iterator[tuple[str, dict[str, Any]]]:
    paths = sorted((root / "meta/episodes").glob("*/*.parquet"))
    if not paths:
        tables.faults.append(Fault("damaged", "meta/episodes", "there is no episode table"))
    for path in paths:
        for row in _parquet(root, path, tables):
            yield name_of(root, path), row


def _parquet_tasks(root: Path, tables: Tables) -> Iterator[tuple[str, dict[str, Any]]]:
    path = root / "meta/tasks.parquet"
    for row in _parquet(root, path, tables):
        # LeRobot writes the sentences as the index of a pandas frame, which has a name only in newer versions.
        yield name_of(root, path), {"task": row.get("__index_level_0__"), **row}


def _parquet(root: Path, path: Path, tables: Tables) -> list[dict[str, Any]]:
    try:
        regular(path)
        names = [name for name in pq.read_schema(path).names if not name.startswith("stats/")]
        return pq.read_table(path, columns=names).to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        tables.faults.append(
            Fault("damaged", name_of(root, path), f"the file can't be read ({_brief(error)})")
        )
        return []


def _brief(error: Exception) -> str:
    """The first line of an error, without a full stop."""
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
