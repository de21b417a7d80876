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
from robosim_datasets.dataset_writer import DatasetWriter
from robosim_datasets.folders import write_errors
from robosim_datasets.statistics import Statistics, column_statistics
from robosim_datasets.video_dataset import AGAIN, VideoDataset, read_errors
from robosim_datasets.video_file import ticks_per_frame


class DatasetCopier(DatasetWriter):
    """Writes chosen episodes of a dataset into a new dataset folder, under the same promises as `DatasetWriter`.

        with DatasetCopier(root, source, spec, provenance, check) as copier:
            copier.copy(3)

    `spec` is the source's with fewer cameras, tasks or labels; what it lacks isn't copied. Episodes are copied in
    ascending order, each after its checksums were compared. `check` gets the finished folder before it takes its place,
    and may raise.
    """

    def __init__(
        self,
        root: Path,
        source: VideoDataset,
        spec: EnvSpec,
        provenance: dict[str, Any],
        check: Callable[[Path], None],
    ) -> None:
        super().__init__(root, spec, provenance)
        self._source, self._check = source, check
        self._sound: dict[Path, bool] = {}
        self._copies = {camera: _VideoCopies(self._folder.path, camera, spec.fps) for camera in spec.cameras}
        self._source_rows = _SourceRows(source, list(layout.label_features(spec)))
        self._statistics = _SourceStatistics(source, spec)

    def __enter__(self) -> DatasetCopier:
        return self

    def copy(self, index: int) -> None:
        """Append the source's episode `index`. Raises `DatasetError` where it is damaged, `OutputError` on a full
        disk."""
        row = self._source.episodes[index]
        length, number = row["length"], len(self._rows)
        task_index = self._tasks.setdefault(row["instruction"], len(self._tasks))
        with self._aborting():
            self._check_bytes(index)
            counted = {
                "episode_index": np.full(length, number),
                "index": self._frames + np.arange(length),
                "task_index": np.full(length, task_index),
            }
            table = self._source_rows.read(index, counted)
            statistics = self._statistics.read(index)
            statistics |= {name: column_statistics(values) for name, values in counted.items()}
            place = {
                "episode_index": number,
                "tasks": [row["instruction"]],
                "length": length,
                "dataset_from_index": self._frames,
                "dataset_to_index": self._frames + length,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
            }
            with write_errors(self._folder.final):
                place |= self._data.add(table)
                for camera, copies in self._copies.items():
                    place |= copies.add(*self._source.video_place(index, camera), length)
                self._episodes.add(place, statistics)
        self._rows.append({**row, "index": number})
        self._frames += length

    def close(self) -> None:
        """Finish the files and put the dataset in its place. Does nothing the second time."""
        with self._aborting(), write_errors(self._folder.final):
            for copies in self._copies.values():
                copies.close()
        super().close()

    def abort(self) -> None:
        """Throw away what was written."""
        for copies in self._copies.values():
            with suppress(OSError):
                copies.close()
        super().abort()

    def _check_bytes(self, index: int) -> None:
        """Raise `DatasetError` unless an episode's rows and video are those that were written.

        Files are checked as a whole, once; in a damaged one, the episode itself.
        """
        if not self._is_sound(self._source.data_path(index)):
            self._source.check_rows(index)
        for camera in self._copies:
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

    def _write_metadata(self, stats: dict[str, Statistics]) -> None:
        super()._write_metadata(stats)
        self._check(self._folder.path)


class _SourceRows:
    """The rows of a source's data files, an episode at a time."""

    def __init__(self, source: VideoDataset, labels: list[str]) -> None:
        self._source = source
        self._columns = [*labels, *layout.index_features()]
        self._path: Path | None = None
        self._file: pq.ParquetFile | None = None
        paths = [source.data_path(index) for index in range(len(source.episodes))]
        self._first = {path: index for index, path in reversed(list(enumerate(paths)))}

    def read(self, index: int, counted: dict[str, np.ndarray]) -> pa.Table:
        """The rows of an episode, the columns in `counted` replaced."""
        path = self._source.data_path(index)
        with read_errors(path):
            if self._file is None or path != self._path:
                self._path, self._file = path, pq.ParquetFile(path, pre_buffer=False)
            # Row groups are small: threads would cost twenty times what they give.
            row_group = index - self._first[path]
            table = self._file.read_row_group(row_group, columns=self._columns, use_threads=False)
            table = table.select(self._columns)
        if table.num_rows != self._source.episodes[index]["length"]:
            raise DatasetError(
                f"{path} has {table.num_rows} rows where the episode table says "
                f"{self._source.episodes[index]['length']} for episode {index}; {AGAIN}"
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
        with read_errors(path):
            names = pq.read_schema(path).names
            kept = [name for name in names if name.startswith(tuple(f"stats/{key}/" for key in features))]
            self._table = pq.read_table(path, columns=kept)

    def read(self, index: int) -> dict[str, Statistics]:
        """By feature and name, as `DatasetWriter` made them."""
        statistics: dict[str, Statistics] = {}
        for column, value in self._table.slice(index, 1).to_pylist()[0].items():
            _, feature, name = column.split("/")
            statistics.setdefault(feature, {})[name] = np.asarray(value)
        return statistics


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
