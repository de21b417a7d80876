"""An opened dataset: its tables, where each episode lies, and whether its bytes are still those that were written.

Every file has a checksum, and every episode has some of its own: of its rows, and of its packets in each camera's
video. So one damaged byte costs one episode and not the file that holds a thousand.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robosim.checkpoint import file_hash
from robosim.errors import DatasetError
from robosim.spec import EnvSpec
from robosim_datasets import lerobot_format as layout
from robosim_datasets.video_file import packet_hashes

AGAIN = "restore it or collect the dataset again"

ROWS = "rows"
"""Key of the checksum of an episode's rows, beside those of its cameras."""

FOOTERS_HELD = 4
"""Parsed footers of data files that are kept: one of a file with thousands of episodes takes 0.1 s to parse."""


@dataclass(frozen=True)
class VideoDataset:
    """An opened dataset: its spec, one table row an episode, and where each episode's data lie."""

    root: Path
    spec: EnvSpec
    episodes: list[dict[str, Any]]
    """Rows with `index, task, instruction, behaviour, split, seed, length, success`."""
    places: list[dict[str, Any]]
    """LeRobot's rows: file numbers, frame ranges, seconds within the video files."""
    files: dict[str, dict[str, Any]]
    """Size and SHA-256 by path, as they were written."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """What made the dataset: source, renderer, configuration."""
    hashes: list[dict[str, str]] = field(default_factory=list)
    """An episode's own checksums, of its "rows" and by camera; empty in datasets of the first versions."""
    _sound: set[Path] = field(default_factory=set, repr=False, compare=False)

    def data_path(self, index: int) -> Path:
        place = self.places[index]
        number = place["data/chunk_index"] * layout.CHUNK_FILES + place["data/file_index"]
        return self.root / layout.data_file(number)

    def video_place(self, index: int, camera: str) -> tuple[Path, int]:
        """The video file of an episode and the number of its first frame in that file."""
        place, key = self.places[index], f"videos/{layout.video_key(camera)}"
        number = place[f"{key}/chunk_index"] * layout.CHUNK_FILES + place[f"{key}/file_index"]
        first = round(place[f"{key}/from_timestamp"] * self.spec.fps)
        return self.root / layout.video_file(camera, number), first

    def row_group(self, index: int) -> int:
        """Which row group of its data file an episode is."""
        return index - self._first_episodes[self.data_path(index)]

    def check_file(self, path: Path) -> None:
        """Raise `DatasetError` unless a file has the bytes that were written; each is read once."""
        if path in self._sound:
            return
        record = self.files.get(path.relative_to(self.root).as_posix())
        fault = "isn't recorded" if record is None else file_fault(path, record, thorough=True)
        if fault is not None:
            raise DatasetError(f"{path} {fault}; {AGAIN}")
        self._sound.add(path)

    def read_rows(self, index: int) -> pa.Table:
        """All columns of an episode, read once. Raises `DatasetError` unless the rows are those that were written."""
        path = self.data_path(index)
        if not self.hashes:
            self.check_file(path)
        with read_errors(path):
            table = _read_row_group(path, self._footer(path), self.row_group(index))
            found = _rows_hash(table) if self.hashes else None
        if self.hashes and found != self.hashes[index].get(ROWS):
            raise DatasetError(f"{path}: the rows of episode {index} were changed; {AGAIN}")
        return table

    def check_video(self, index: int, camera: str) -> None:
        """Raise `DatasetError` unless an episode's video is the one that was written; nothing is decoded."""
        path, first = self.video_place(index, camera)
        if not self.hashes:
            return self.check_file(path)
        (found,) = packet_hashes(path, [(first, self.episodes[index]["length"])])
        if found != self.hashes[index].get(camera):
            raise DatasetError(f"{path}: the video of episode {index} was changed; {AGAIN}")

    @cached_property
    def _first_episodes(self) -> dict[Path, int]:
        """The first episode of each data file."""
        first: dict[Path, int] = {}
        for index in range(len(self.places)):
            first.setdefault(self.data_path(index), index)
        return first

    @cached_property
    def _footer(self) -> Callable[[Path], pq.FileMetaData]:
        return lru_cache(maxsize=FOOTERS_HELD)(pq.read_metadata)


def file_fault(path: Path, record: dict[str, Any], thorough: bool) -> str | None:
    """What became of a recorded file: it is missing, of another size or, if `thorough`, of another SHA-256."""
    if not path.is_file():
        return "is missing"
    if path.stat().st_size != record["bytes"]:
        return f"is truncated or was changed ({path.stat().st_size} bytes, written {record['bytes']})"
    if thorough and file_hash(path) != record["sha256"]:
        return "was changed since it was written"
    return None


def read_places(root: Path) -> list[dict[str, Any]]:
    """LeRobot's table of episodes, without their statistics."""
    path = root / layout.EPISODES_PARQUET
    with read_errors(path), pq.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
        return file.read(columns=names, use_threads=False).to_pylist()


class read_errors:
    """Turn what Arrow says about a damaged parquet file into a `DatasetError` about `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # Arrow reports a damaged file in several of Python's classes too.
        if isinstance(
            error, pa.ArrowException | OSError | KeyError | ValueError | OverflowError | MemoryError
        ):
            reason = " ".join(str(error).split())
            raise DatasetError(f"{self._path} can't be read ({reason}); {AGAIN}") from error


def episode_hashes(dataset: VideoDataset) -> list[dict[str, str]]:
    """The checksums of every episode's rows and video as the files are now, for `VideoDataset.hashes`.

    Those in a file that can't be read are missing.
    """
    hashes: list[dict[str, str]] = [{} for _ in dataset.episodes]
    for path, group in _by_file(dataset.data_path(index) for index in range(len(hashes))):
        with suppress(DatasetError), read_errors(path):
            footer = pq.read_metadata(path)
            for row_group, index in enumerate(group):
                with suppress(DatasetError), read_errors(path):
                    hashes[index][ROWS] = _rows_hash(_read_row_group(path, footer, row_group))
    for camera in dataset.spec.cameras:
        places = [dataset.video_place(index, camera) for index in range(len(hashes))]
        for path, group in _by_file(path for path, _ in places):
            with suppress(DatasetError):
                found = packet_hashes(path, [(places[i][1], dataset.episodes[i]["length"]) for i in group])
                for index, value in zip(group, found, strict=True):
                    hashes[index][camera] = value
    return hashes


def _read_row_group(path: Path, footer: pq.FileMetaData, row_group: int) -> pa.Table:
    # An episode's rows are few: threads would take a hundred times as long.
    with pq.ParquetFile(path, metadata=footer, pre_buffer=False) as file:
        return file.read_row_group(row_group, use_threads=False)


def _by_file(paths: Iterator[Path]) -> Iterator[tuple[Path, Sequence[int]]]:
    """Each file with the numbers of its episodes, which lie next to each other."""
    for path, group in itertools.groupby(enumerate(paths), key=lambda item: item[1]):
        yield path, [index for index, _ in group]


def _rows_hash(table: pa.Table) -> str:
    """SHA-256 of the values of all columns, by name."""
    digest = hashlib.sha256()
    for name in sorted(table.column_names):
        values = column_array(table[name])
        digest.update(f"{name} {values.dtype} {values.shape} ".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def column_array(column: pa.ChunkedArray) -> np.ndarray:
    """A column of numbers as an array, [T] or for fixed-size lists [T, D]."""
    array = column.combine_chunks()
    if pa.types.is_fixed_size_list(array.type):
        return array.flatten().to_numpy(zero_copy_only=False).reshape(-1, array.type.list_size).copy()
    return array.to_numpy(zero_copy_only=False).copy()
