"""Writing a LeRobotDataset v3 with `meta/robosim.json`, whole or not at all."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robosim.checkpoint import atomic_write_json, file_hash, json_hash
from robosim.errors import OutputError
from robosim.spec import EnvSpec
from robosim_datasets import lerobot_format as layout
from robosim_datasets.episode import Episode
from robosim_datasets.folders import StagedFolder, write_errors
from robosim_datasets.statistics import Statistics, column_statistics, merge_statistics, video_statistics
from robosim_datasets.video_dataset import VideoDataset, episode_hashes, read_places
from robosim_datasets.video_file import VideoFileWriter

MEGABYTE = 1024 * 1024

EPISODES_HELD = 1000
"""Rows of the episode table that are in memory at a time."""


class CameraFiles(Protocol):
    """One camera's video files in the making."""

    def close(self) -> None: ...

    def abort(self) -> None: ...


class DatasetFolder[Camera: CameraFiles]:
    """A dataset in the making: data files, episode table and metadata. What adds episodes is the subclass's.

    The folder appears at `root` when this closes without an error. What an interrupted run left in `<root>.partial` is
    removed by the next, which says so in the log. An existing dataset raises `OutputError` unless `replace`; then it is
    kept until the new one is complete. `check` gets the finished folder before it takes its place, and may raise.
    """

    def __init__(
        self,
        root: Path,
        spec: EnvSpec,
        provenance: dict[str, Any],
        replace: bool = False,
        check: Callable[[Path], None] | None = None,
    ) -> None:
        self.spec = spec
        self.provenance = provenance
        self._check = check
        self._folder = StagedFolder(Path(root), marker=layout.INFO_JSON, replace=replace)
        self._data = _DataFiles(self._folder.path)
        self._videos: dict[str, Camera] = {}
        """By camera; the subclass's to fill."""
        self._episodes = _EpisodeTable(self._folder.path / layout.EPISODES_PARQUET)
        self._rows: list[dict[str, Any]] = []
        self._tasks: dict[str, int] = {}
        self._frames = 0
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    def close(self) -> None:
        """Finish the files and put the dataset in its place. Does nothing the second time."""
        if not self._open:
            return
        with self._aborting():
            if not self._rows:
                raise OutputError(f"no episodes were added, so {self._folder.final} wasn't written")
            with write_errors(self._folder.final):
                self._data.close()
                for files in self._videos.values():
                    files.close()
                self._write_metadata(self._episodes.close())
            if self._check is not None:
                self._check(self._folder.path)
            self._folder.commit()
        self._open = False

    def abort(self) -> None:
        """Throw away what was written; an older dataset at the same place stays."""
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(OSError):
            self._data.close()
            self._episodes.abort()
        for files in self._videos.values():
            files.abort()
        self._folder.abort()

    def _append(
        self,
        row: dict[str, Any],
        table: pa.Table,
        statistics: dict[str, Statistics],
        add_video: Callable[[str], dict[str, float]],
    ) -> None:
        """Write an episode's rows and, by `add_video(camera)`, its video; `row` is its row of `meta/robosim.json`."""
        place = {
            "episode_index": row["index"],
            "tasks": [row["instruction"]],
            "length": row["length"],
            "dataset_from_index": self._frames,
            "dataset_to_index": self._frames + row["length"],
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        with self._aborting(), write_errors(self._folder.final):
            place |= self._data.add(table)
            for camera in self._videos:
                place |= add_video(camera)
            self._episodes.add(place, statistics)
        self._rows.append(row)
        self._frames += row["length"]

    @contextlib.contextmanager
    def _aborting(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.abort()
            raise

    def _write_metadata(self, stats: dict[str, Statistics]) -> None:
        root = self._folder.path
        info = layout.info_json(
            self.spec,
            episodes=len(self._rows),
            frames=self._frames,
            tasks=len(self._tasks),
            splits=layout.split_ranges([row["split"] for row in self._rows]),
        )
        _write_tasks(self._tasks, root / layout.TASKS_PARQUET)
        atomic_write_json(
            root / layout.STATS_JSON,
            {name: {key: value.tolist() for key, value in part.items()} for name, part in stats.items()},
        )
        atomic_write_json(root / layout.INFO_JSON, info)
        written = VideoDataset(root, self.spec, self._rows, read_places(root), files={})
        document = {
            "format": layout.FORMAT,
            "spec": self.spec.to_json(),
            "provenance": self.provenance,
            "episodes": self._rows,
            "hashes": episode_hashes(written),
            "files": {
                path.relative_to(root).as_posix(): {"bytes": path.stat().st_size, "sha256": file_hash(path)}
                for path in sorted(root.rglob("*"))
                if path.is_file()
            },
        }
        document = json.loads(json.dumps(document))  # so that what is read back has the same hash
        atomic_write_json(root / layout.ROBOSIM_JSON, document | {"sha256": json_hash(document)})


class DatasetWriter(DatasetFolder["_VideoFiles"]):
    """Writes episodes into a new dataset folder; see `DatasetFolder` for `root` and `replace`.

        with DatasetWriter(root, spec, provenance={"renderer": "mujoco-warp"}) as writer:
            writer.add(episode)

    Add all episodes of one split before those of the next, so that LeRobot's own `splits` can name them.
    """

    def __init__(self, root: Path, spec: EnvSpec, provenance: dict[str, Any], replace: bool = False) -> None:
        super().__init__(root, spec, provenance, replace)
        self._videos = {camera: _VideoFiles(self._folder.path, camera, spec) for camera in spec.cameras}

    def add(self, episode: Episode) -> None:
        """Append one episode. Raises `DatasetError` when it doesn't fit the spec, `OutputError` on a full disk."""
        episode.check(self.spec)
        index = len(self._rows)
        task_index = self._tasks.setdefault(episode.instruction, len(self._tasks))
        columns = layout.episode_columns(episode, self.spec, index, self._frames, task_index)
        statistics = {name: column_statistics(values) for name, values in columns.items()}
        for camera, frames in episode.frames.items():
            statistics[layout.video_key(camera)] = video_statistics(frames)
        self._append(
            _table_row(episode, index),
            layout.data_table(columns),
            statistics,
            lambda camera: self._videos[camera].add(episode.frames[camera]),
        )


class _EpisodeTable:
    """LeRobot's table of episodes with the statistics of each: 40 kB of Python objects a row, so that they are
    written and merged every `EPISODES_HELD`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []
        self._statistics: list[dict[str, Statistics]] = []
        self._writer: pq.ParquetWriter | None = None

    def add(self, row: dict[str, Any], statistics: dict[str, Statistics]) -> None:
        for feature, values in statistics.items():
            row |= {f"stats/{feature}/{name}": value.tolist() for name, value in values.items()}
        self._rows.append(row)
        self._statistics.append(statistics)
        if len(self._rows) == EPISODES_HELD:
            self._flush()

    def close(self) -> dict[str, Statistics]:
        """Finish the file; the statistics of all episodes, by feature."""
        if self._rows:
            self._flush()
        self.abort()
        return self._statistics[0]

    def abort(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _flush(self) -> None:
        table = pa.Table.from_pylist(self._rows, None if self._writer is None else self._writer.schema)
        if self._writer is None:
            self._path.parent.mkdir(parents=True)
            self._writer = pq.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)
        merged = {
            name: merge_statistics([part[name] for part in self._statistics]) for name in self._statistics[0]
        }
        self._rows, self._statistics = [], [merged]


class _DataFiles:
    """Parquet files of about `DATA_FILE_MB`, one row group an episode, as LeRobot writes them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._number = -1
        self._bytes = 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> dict[str, int]:
        """Write one episode; return where it went."""
        writer = self._writer
        if writer is None or self._bytes >= layout.DATA_FILE_MB * MEGABYTE:
            self.close()
            self._number, self._bytes = self._number + 1, 0
            path = self._root / layout.data_file(self._number)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = writer = pq.ParquetWriter(path, table.schema, compression="snappy")
        writer.write_table(table)
        self._bytes += table.nbytes
        chunk_index, file_index = divmod(self._number, layout.CHUNK_FILES)
        return {"data/chunk_index": chunk_index, "data/file_index": file_index}

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


class _VideoFiles:
    """One camera's video files of about `VIDEO_FILE_MB`; an episode is never cut in two."""

    def __init__(self, root: Path, camera: str, spec: EnvSpec) -> None:
        self._root, self._camera, self._spec = root, camera, spec
        self._number = -1
        self._writer: VideoFileWriter | None = None

    def add(self, frames: np.ndarray) -> dict[str, float]:
        """Encode one episode; return where it went, seconds within the file."""
        if self._writer is None or self._writer.num_bytes >= layout.VIDEO_FILE_MB * MEGABYTE:
            self.close()
            self._number += 1
            path = self._root / layout.video_file(self._camera, self._number)
            self._writer = VideoFileWriter(path, self._spec.size, self._spec.fps)
        first = self._writer.num_frames
        self._writer.add(frames)
        chunk_index, file_index = divmod(self._number, layout.CHUNK_FILES)
        key = f"videos/{layout.video_key(self._camera)}"
        return {
            f"{key}/chunk_index": chunk_index,
            f"{key}/file_index": file_index,
            f"{key}/from_timestamp": first / self._spec.fps,
            f"{key}/to_timestamp": self._writer.num_frames / self._spec.fps,
        }

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def abort(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abort()


def _table_row(episode: Episode, index: int) -> dict[str, Any]:
    return {
        "index": index,
        "task": episode.task,
        "instruction": episode.instruction,
        "behaviour": episode.behaviour,
        "split": episode.split,
        "seed": int(episode.seed),
        "length": episode.length,
        "success": bool(episode.success.any()),
        "factors": episode.factors,
        "measures": episode.measures,
        **({"source": episode.source} if episode.source else {}),
    }


def _write_tasks(tasks: dict[str, int], path: Path) -> None:
    """LeRobot looks a task up by the sentence in the index of a pandas frame."""
    import pandas as pd

    index = pd.Index(list(tasks), name="task")
    pd.DataFrame({"task_index": list(tasks.values())}, index=index).to_parquet(path)
