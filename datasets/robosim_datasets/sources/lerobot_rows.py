"""The rows of one episode in LeRobot's data files: numbers, and pictures where they lie in the table.

Only the row groups that hold the episode are read, so that damage elsewhere in a file doesn't reach it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robosim.errors import DatasetError
from robosim_datasets.sources.lerobot_places import inside, regular
from robosim_datasets.sources.pictures import ERRORS, decode_picture

PICTURE_BATCH = 32
"""Rows of pictures that are in memory at a time."""

LISTS = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)

PICTURE_BUFFER = 1 << 20
"""Bytes that are read at a time; without a limit Arrow reads the whole column of a row group."""

HELD_GROUPS = 2
"""Row groups that are kept: converted datasets have one for all episodes of a file."""

HELD_COLUMNS = 8
"""Columns of pictures that a thread keeps open: as many cameras may take turns."""


class PictureColumn:
    """The pictures of one row group. Arrow reads them forwards only, so the place is kept for the next episode."""

    def __init__(self, path: Path, key: str, group: int) -> None:
        self.path, self.key, self.group = path, key, group
        self.first = 0
        """The first row that can still be read."""
        self._batch = pa.array([])
        self._batches = _opened(path, PICTURE_BUFFER).iter_batches(
            PICTURE_BATCH, row_groups=[group], columns=[key], use_threads=False
        )

    def read(self, row: int) -> Any:
        """The value of a row that isn't before `first`. Raises `DatasetError` beyond the end."""
        while row >= self.first + len(self._batch):
            batch = next(self._batches, None)
            if batch is None:
                raise DatasetError(f"{self.path}: {self.key} ends before row {row}; restore it")
            self.first, self._batch = self.first + len(self._batch), batch[self.key]
        return self._batch[row - self.first].as_py()


class DataFiles:
    """Reads the columns `numbers` of episodes. Threads may share it: each keeps its own files open."""

    def __init__(self, numbers: Sequence[str]) -> None:
        self._numbers = list(numbers)
        self._held = threading.local()
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
        column = None
        with _named(path, episode):
            rows = [at for group in self._groups_of(path, episode) for at in self._rows(path, group, episode)]
            for number in chosen:
                if number >= len(rows):
                    what = f"ends after {len(rows)} pictures {key} of episode {episode}"
                    raise DatasetError(f"{path} {what}; restore it")
                group, row = rows[number]
                if column is None or column.group != group or column.first > row:
                    column = self._take_column(path, key, group, row)
                where = f"{path}: {key} of episode {episode}, frame {number}"
                yield _open_picture(column.read(row), root, where)
        if column is not None:
            self._keep_column(column)

    def _take_column(self, path: Path, key: str, group: int, row: int) -> PictureColumn:
        """The one that this thread keeps, if it hasn't passed the row, else a new one.

        It isn't kept while it is in use: the next taker would move it on.
        """
        held = self._held.__dict__.setdefault("columns", {})
        column = held.pop((path, key), None)
        if column is None or column.group != group or column.first > row:
            column = PictureColumn(path, key, group)
        return column

    def _keep_column(self, column: PictureColumn) -> None:
        held = self._held.__dict__.setdefault("columns", {})
        held[column.path, column.key] = column
        if len(held) > HELD_COLUMNS:
            del held[next(iter(held))]

    def _rows(self, path: Path, group: int, episode: int) -> list[tuple[int, int]]:
        """Where the episode's rows of a row group are, each as (group, row)."""
        numbers = self._table(path, group)["episode_index"].to_numpy()
        return [(group, int(row)) for row in np.flatnonzero(numbers == episode)]

    def _groups_of(self, path: Path, episode: int) -> list[int]:
        ranges = self._groups(path)
        return [group for group, (low, high) in enumerate(ranges) if low <= episode <= high]

    def _read_group(self, path: Path, group: int) -> pa.Table:
        with _opened(path) as file:
            names = set(file.schema_arrow.names)
            columns = [name for name in self._numbers if name in names]
            return file.read_row_group(group, columns=columns, use_threads=False)


def to_array(
    table: pa.Table, key: str, numbers: int, where: str, dtype: type[np.floating] = np.float32
) -> np.ndarray:
    """A column as [T, numbers] of `dtype`.

    Raises `DatasetError` naming `where` when it is missing or of another shape.
    """
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
    return values.astype(dtype).reshape(table.num_rows, numbers)


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
        return decode_picture(value.get("bytes") or _file_bytes(inside(root, value["path"])))
    except (*ERRORS, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{where} can't be decoded ({error}); restore it or leave it out") from error


def _file_bytes(path: Path) -> bytes:
    regular(path)
    return path.read_bytes()


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


def _opened(path: Path, buffer: int = 0) -> pq.ParquetFile:
    regular(path)
    return pq.ParquetFile(path, page_checksum_verification=True, buffer_size=buffer)


@contextmanager
def _named(path: Path, episode: int) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DatasetError(
            f"{path} can't be read ({reason}), so episode {episode} is lost; restore it or leave the episode out"
        ) from error
