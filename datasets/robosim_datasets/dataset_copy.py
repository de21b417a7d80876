"""Copying episodes of one dataset into another without loss: rows as they are, video packet by packet.

`VideoFileWriter` starts every episode with a key frame and lets no frame refer to a later one, so that an episode's
packets make sense without their neighbours. Nothing is decoded or encoded, whichever episodes and cameras are chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from av.error import FFmpegError

from robosim.errors import DatasetError
from robosim.spec import EnvSpec
from robosim_datasets import lerobot_format as layout
from robosim_datasets.dataset_writer import DatasetFolder
from robosim_datasets.statistics import Statistics, column_statistics
from robosim_datasets.video_dataset import AGAIN, VideoDataset, read_errors
from robosim_datasets.video_file import ticks_per_frame


class DatasetCopier(DatasetFolder["_VideoCopies"]):
    """Writes chosen episodes of a dataset into a new dataset folder, under the promises of `DatasetFolder`.

        with DatasetCopier(root, source, spec, provenance, check) as copier:
            copier.copy(3)

    `spec` is the source's with fewer cameras, tasks or labels; what it lacks isn't copied. Episodes are copied in
    ascending order, each after its checksums were compared.
    """

    def __init__(
        self,
        root: Path,
        source: VideoDataset,
        spec: EnvSpec,
        provenance: dict[str, Any],
        check: Callable[[Path], None],
    ) -> None:
        super().__init__(root, spec, provenance, check=check)
        self._source = source
        self._sound: dict[Path, bool] = {}
        self._columns = [*layout.label_features(spec), *layout.index_features()]
        self._statistics = _SourceStatistics(source, spec)
        self._videos = {camera: _VideoCopies(self._folder.path, camera, spec.fps) for camera in spec.cameras}

    def copy(self, index: int) -> None:
        """Append the source's episode `index`. Raises `DatasetError` where it is damaged, `OutputError` on a full
        disk."""
        row = self._source.episodes[index]
        length, number = row["length"], len(self._rows)
        task_index = self._tasks.setdefault(row["instruction"], len(self._tasks))
        counted = {
            "episode_index": np.full(length, number),
            "index": self._frames + np.arange(length),
            "task_index": np.full(length, task_index),
        }
        with self._aborting():
            self._check_videos(index)
            table = self._read_rows(index, counted)
            statistics = self._statistics.read(index)
        statistics |= {name: column_statistics(values) for name, values in counted.items()}

        def add_video(camera: str) -> dict[str, float]:
            return self._videos[camera].add(*self._source.video_place(index, camera), length)

        self._append({**row, "index": number}, table, statistics, add_video)

    def _check_videos(self, index: int) -> None:
        """Raise `DatasetError` unless an episode's video is the one that was written.

        Files are checked as a whole, once; in a damaged one, the episode itself.
        """
        for camera in self._videos:
            if not self._is_sound(self._source.video_place(index, camera)[0]):
                self._source.check_video(index, camera)

    def _is_sound(self, path: Path) -> bool:
        if path not in self._sound:
            try:
                self._source.check_file(path)
                self._sound[path] = True
            except DatasetError:
                self._sound[path] = False
        return self._sound[path]

    def _read_rows(self, index: int, counted: dict[str, np.ndarray]) -> pa.Table:
        """The rows of an episode as they were written, the columns in `counted` replaced."""
        path, length = self._source.data_path(index), self._source.episodes[index]["length"]
        table = self._source.read_rows(index)
        with read_errors(path):
            table = table.select(self._columns)
        if table.num_rows != length:
            raise DatasetError(
                f"{path} has {table.num_rows} rows where the episode table says {length} for episode {index}; {AGAIN}"
            )
        for name, values in counted.items():
            table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
        return table


class _SourceStatistics:
    """The statistics that a source keeps of every episode, of the features that are copied as they are."""

    def __init__(self, source: VideoDataset, spec: EnvSpec) -> None:
        path = source.root / layout.EPISODES_PARQUET
        videos = [layout.video_key(camera) for camera in spec.cameras]
        features = (*videos, *layout.label_features(spec), "timestamp", "frame_index")
        self._path = path
        with read_errors(path):
            footer = pq.read_metadata(path)
            names = footer.schema.to_arrow_schema().names
            sizes = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
        self._names = [name for name in names if name.startswith(tuple(f"stats/{key}/" for key in features))]
        self._ends = np.cumsum(sizes)
        self._table, self._first, self._end = pa.table({}), 0, 0

    def read(self, index: int) -> dict[str, Statistics]:
        """By feature and name, as `DatasetWriter` made them. Only the row group of `index` is kept in memory."""
        if not self._first <= index < self._end:
            self._open(int(np.searchsorted(self._ends, index, side="right")))
        statistics: dict[str, Statistics] = {}
        for column, value in self._table.slice(index - self._first, 1).to_pylist()[0].items():
            _, feature, name = column.split("/")
            statistics.setdefault(feature, {})[name] = np.asarray(value)
        return statistics

    def _open(self, row_group: int) -> None:
        with read_errors(self._path), pq.ParquetFile(self._path) as file:
            self._table = file.read_row_group(row_group, columns=self._names, use_threads=False)
        self._end = int(self._ends[row_group])
        self._first = self._end - self._table.num_rows


class _VideoCopies:
    """One camera's video files: a new one for every file of the source that has a chosen episode."""

    def __init__(self, root: Path, camera: str, fps: int) -> None:
        self._root, self._camera, self._fps = root, camera, fps
        self._number = -1
        self._file: _VideoCopy | None = None

    def add(self, source: Path, first: int, count: int) -> dict[str, float]:
        """Copy `count` frames of `source` from number `first` on; return where they went, seconds within the file."""
        if self._file is None or self._file.source != source:
            self.close()
            self._number += 1
            self._file = _VideoCopy(source, self._root / layout.video_file(self._camera, self._number))
        start = self._file.num_frames
        self._file.add(first, count)
        chunk_index, file_index = divmod(self._number, layout.CHUNK_FILES)
        key = f"videos/{layout.video_key(self._camera)}"
        return {
            f"{key}/chunk_index": chunk_index,
            f"{key}/file_index": file_index,
            f"{key}/from_timestamp": start / self._fps,
            f"{key}/to_timestamp": self._file.num_frames / self._fps,
        }

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def abort(self) -> None:
        with suppress(OSError):
            self.close()


class _VideoCopy:
    """One MP4 file that gets packets of another, which is read once from its beginning."""

    def __init__(self, source: Path, path: Path) -> None:
        self.source, self.num_frames = source, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._input = av.open(str(source))
            template = self._input.streams.video[0]
        except (FFmpegError, OSError, IndexError) as error:
            raise DatasetError(f"{source} can't be opened ({error}); {AGAIN}") from error
        self._ticks = ticks_per_frame(template)
        self._packets = self._demux(template)
        self._output = av.open(str(path), "w")
        self._stream = self._output.add_stream_from_template(template)
        self._stream.time_base = template.time_base

    def add(self, first: int, count: int) -> None:
        """Append frames `first` … `first + count − 1`, which start with a key frame."""
        copied = 0
        for number, packet in self._packets:
            if number < first:
                continue
            if number != first + copied or (copied == 0 and not packet.is_keyframe):
                raise DatasetError(
                    f"{self.source} has no key frame {first}, where an episode begins; {AGAIN}"
                )
            packet.pts = packet.dts = self.num_frames * self._ticks
            packet.stream = self._stream
            try:
                self._output.mux(packet)
            except FFmpegError as error:  # a full disk, in FFmpeg's own class
                raise OSError(error.errno, error.strerror) from error
            self.num_frames += 1
            copied += 1
            if copied == count:
                return
        raise DatasetError(f"{self.source} ends after {copied} of {count} frames of an episode; {AGAIN}")

    def close(self) -> None:
        """Write the file's index."""
        self._input.close()
        try:
            self._output.close()
        except FFmpegError as error:
            raise OSError(error.errno, error.strerror) from error

    def _demux(self, stream: av.VideoStream) -> Iterator[tuple[int, av.Packet]]:
        """(frame number, packet) in order."""
        try:
            for packet in self._input.demux(stream):
                if packet.pts is not None:
                    yield round(packet.pts / self._ticks), packet
        except FFmpegError as error:
            raise DatasetError(f"{self.source} can't be read ({error}); {AGAIN}") from error
