"""The rows of one episode in LeRobot's data files: numbers, and pictures where they lie in the table.

Only the row groups that hold the episode are read, so that damage elsewhere in a file doesn't reach it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robosim.errors import DatasetError
from robosim_datasets.sources.pictures import ERRORS, decode_picture

PICTURE_BATCH = 32
"""Rows of pictures that are in memory at a time."""

LISTS = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)

HELD_GROUPS = 2
"""Row groups that are kept: converted datasets have one for all episodes of a file."""


class DataFiles:
    """Reads the columns `numbers` of episodes; the files are opened for each reading, so threads may share this."""

    def __init__(self, numbers: Sequence[str]) -> None:
        self._numbers = list(numbers)
        self._groups = lru_cache(maxsize=64)(_episode_ranges)
        self._table = lru_cache(maxsize=HELD_GROUPS)(self._read_group)

    def read(self, path: Path, episode: int, length: int) -> pa.Table:
        """The episode's `length` rows. Raises `DatasetError` when the file is damaged or has other rows."""
        with _named(path, episode):
            found = [self._table(path, group) for group in self._groups_of(path, episode)]
            parts = [_only(table, episode) for table in found]
            rows = sum(part.num_rows for part in parts)
            if rows != length:
                raise DatasetError(
                    f"{path} has {rows} rows of episode {episode}, the episode table says {length}; restore it or "
                    "leave the episode out"
                )
            return pa.concat_tables(parts)

    def pictures(
        self, path: Path, key: str, episode: int, chosen: Sequence[int], root: Path
    ) -> Iterator[np.ndarray]:
        """The pictures of the ascending rows `chosen`, one uint8 [H, W, 3] each."""
        first, left = 0, list(chosen)
        with _named(path, episode):
            for batch in self._picture_batches(path, key, episode):
                while left and left[0] < first + len(batch):
                    where = f"{path}: {key} of episode {episode}, frame {left[0]}"
                    yield _open_picture(batch[left.pop(0) - first].as_py(), root, where)
                first += len(batch)
                if not left:
                    return
        raise DatasetError(f"{path} ends after {first} pictures {key} of episode {episode}; restore it")

    def _picture_batches(self, path: Path, key: str, episode: int) -> Iterator[pa.Array]:
        groups = self._groups_of(path, episode)
        columns = ["episode_index", key]
        with _opened(path) as file:
            for batch in file.iter_batches(
                PICTURE_BATCH, row_groups=groups, columns=columns, use_threads=False
            ):
                yield _only(batch, episode)[key]

    def _groups_of(self, path: Path, episode: int) -> list[int]:
        ranges = self._groups(path)
        return [group for group, (low, high) in enumerate(ranges) if low <= episode <= high]

    def _read_group(self, path: Path, group: int) -> pa.Table:
        with _opened(path) as file:
            names = set(file.schema_arrow.names)
            columns = [name for name in self._numbers if name in names]
            return file.read_row_group(group, columns=columns, use_threads=False)


def to_array(table: pa.Table, key: str, numbers: int, where: str) -> np.ndarray:
    """A column as float32 [T, numbers]. Raises `DatasetError` naming `where` when it is missing or of another shape."""
    if key not in table.column_names:
        raise DatasetError(f"{where} has no column {key}, which meta/info.json names; restore it")
    column = table[key].combine_chunks()
    while any(is_list(column.type) for is_list in LISTS):
        column = _flattened(column, where, key)
    values = column.to_numpy(zero_copy_only=False)
    if values.size != table.num_rows * numbers or values.dtype.kind not in "fiub":
        raise DatasetError(
            f"{where}: {key} has {values.size} numbers ({values.dtype}) in {table.num_rows} rows, but meta/info.json "
            f"says {numbers} a row; restore it"
        )
    return values.astype(np.float32).reshape(table.num_rows, numbers)


def _only[T: (pa.Table, pa.RecordBatch)](rows: T, episode: int) -> T:
    return rows.filter(pa.array(rows["episode_index"].to_numpy() == episode))


def _flattened(column: Any, where: str, key: str) -> pa.Array:
    """One level of lists less. Lists of different lengths would mix the numbers of rows."""
    even = pa.types.is_fixed_size_list(column.type) or len(np.unique(np.diff(column.offsets.to_numpy()))) < 2
    if not even or column.null_count:
        raise DatasetError(f"{where}: the rows of {key} have different lengths; restore it")
    return column.flatten()


def _open_picture(value: Any, root: Path, where: str) -> np.ndarray:
    """A picture as Hugging Face stores it: the bytes of a file, or a file's path."""
    try:
        return decode_picture(value.get("bytes") or (root / value["path"]).read_bytes())
    except (*ERRORS, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{where} can't be decoded ({error}); restore it or leave it out") from error


def _episode_ranges(path: Path) -> list[tuple[int, int]]:
    """First and last episode of each row group; none (1, 0) of one whose numbers can't be read.

    Not from the statistics in the file's footer: damaged ones end the process, from within Arrow.
    """
    ranges = []
    with _opened(path) as file:
        for group in range(file.num_row_groups):
            try:
                column = file.read_row_group(group, columns=["episode_index"], use_threads=False)[
                    "episode_index"
                ]
                ranges.append((column.to_numpy().min(), column.to_numpy().max()))
            except (pa.ArrowException, OSError, ValueError):
                ranges.append((1, 0))
    return ranges


def _opened(path: Path) -> pq.ParquetFile:
    return pq.ParquetFile(path, page_checksum_verification=True)


@contextmanager
def _named(path: Path, episode: int) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DatasetError(
            f"{path} can't be read ({reason}), so episode {episode} is lost; restore it or leave the episode out"
        ) from error
