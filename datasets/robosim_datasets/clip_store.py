"""The clip store: a dataset decoded once, so that training reads frames at the speed of memory.

    <store>/index.json          spec, episode rows, and size and SHA-256 of every shard
    <store>/frames/*.h5         frames of whole episodes, one file a camera and shard
    <store>/columns/<name>.h5   one value a frame, [num_frames, ...]

A mixture is a store without frames of its own: its index names shards that lie in the stores it mixes.

Frames and every column lie in files of their own: a stage that learns from video only never opens a label. Files
are immutable; a later stage adds a column, and nothing appends.
"""

from __future__ import annotations

import bisect
import itertools
import logging
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robosim.checkpoint import json_hash
from robosim.errors import DatasetError
from robosim.progress import progress as progress_bar
from robosim.spec import LABELS, EnvSpec
from robosim_datasets import clip_files as files
from robosim_datasets.folders import StagedFolder
from robosim_datasets.lerobot_io import (
    AGAIN,
    VideoDataset,
    dataset_hash,
    open_dataset,
    read_all_columns,
)
from robosim_datasets.video_file import decode_frames

log = logging.getLogger(__name__)

MOTION = "motion"
"""Column from pixels alone: mean absolute change, in grey levels, from frame t to t + 1; 0 at an episode's end."""

SHARD_BYTES = 256 * 1024 * 1024
"""Size at which a shard is full. An episode is never cut in two."""


@dataclass(frozen=True)
class EpisodeRow:
    """Where an episode lies in the store: its frames are rows `start … start + length` of every column."""

    index: int
    start: int
    length: int
    split: str
    task: str
    behaviour: str
    seed: int
    success: bool
    instruction: str = ""
    """Its sentence; empty in stores of the first versions."""
    labelled: bool = True
    """Whether the store's labels are known of it: in a mixture they aren't of parts without commands."""


class ClipStore:
    """An opened store. Opening checks that every shard is there and as long as it was written.

    With `verify`, a shard's SHA-256 is checked when it is first read in this process; a damaged file raises
    `DatasetError` and is never used. Columns are always checked.
    """

    def __init__(self, path: Path, verify: bool = True) -> None:
        self.path = Path(path)
        self._thorough = verify
        index = files.read_index(self.path)
        self.spec = EnvSpec.from_json(index["spec"])
        self.source: str = index["source"]
        """Hash of the dataset that was decoded, or of what was mixed."""
        self.episodes = [EpisodeRow(**row) for row in index["episodes"]]
        self.num_frames = sum(row.length for row in self.episodes)
        self.parts = [files.Part(**part) for part in index.get("parts", [])]
        """Of a mixture, in the order of their episodes."""
        self._shards: dict[str, list[dict[str, Any]]] = {camera: [] for camera in self.spec.cameras}
        for part in self.parts:
            mine = [shard for shard in index["shards"] if shard["file"].startswith(f"{part.path}/")]
            files.check_part(self.path, part, mine)
        for shard in index["shards"]:
            self._shards[shard["camera"]].append(shard)
            files.check_shard(self.path, shard, thorough=False)
        self._maps: dict[str, np.ndarray] = {}
        self._columns: dict[str, np.ndarray] = {}

    def select(
        self,
        split: str | None = None,
        task: str | None = None,
        behaviour: str | None = None,
        labelled: bool | None = None,
    ) -> list[int]:
        """Positions in `episodes` of those that match every given value.

        Whoever reads labels takes only those that are `labelled`; the others' rows hold NaN.
        """
        wanted = {"split": split, "task": task, "behaviour": behaviour, "labelled": labelled}
        return [
            position
            for position, row in enumerate(self.episodes)
            if all(value is None or getattr(row, name) == value for name, value in wanted.items())
        ]

    def frames(
        self, episode: int, start: int = 0, stop: int | None = None, camera: str | None = None
    ) -> np.ndarray:
        """Frames `start … stop` of an episode, a read-only view of the file, uint8 [T, H, W, 3].

        `camera` None is the first of the spec's.
        """
        row = self.episodes[episode]
        stop = row.length if stop is None else stop
        if not 0 <= start <= stop <= row.length:
            raise IndexError(f"frames {start}:{stop} of episode {episode}, which has {row.length}")
        shard = self._shard(row.start, camera or self.spec.cameras[0])
        first = row.start - shard["first_frame"]
        return self._map(shard)[first + start : first + stop]

    def shards(self, camera: str) -> list[dict[str, Any]]:
        """What the index says about the files of a camera, in the order of their frames."""
        if camera not in self._shards:
            raise ValueError(f"no camera {camera!r} in {self.path}; it has {', '.join(self.spec.cameras)}")
        return self._shards[camera]

    def column(self, name: str) -> np.ndarray:
        """A column of the whole store, read-only [num_frames, ...], kept in memory.

        Episode e has the rows of its `EpisodeRow`. Raises `DatasetError` when it is missing or damaged.
        """
        if name not in self._columns:
            self._columns[name] = files.read_column(self.path, name, self.num_frames)
        return self._columns[name]

    def column_names(self) -> list[str]:
        return sorted(path.stem for path in (self.path / "columns").glob("*.h5"))

    def column_provenance(self, name: str) -> dict[str, Any] | None:
        """What `add_column` was told about a column's origin, or None where there is no such column."""
        if not files.column_path(self.path, name).exists():
            return None
        return files.read_provenance(self.path, name)

    def add_column(self, name: str, values: np.ndarray, provenance: dict[str, Any]) -> None:
        """Write one value a frame, [num_frames, ...], under `name`: all of it or nothing.

        `provenance` says what made it (configuration, hashes of inputs). A column of another provenance is
        replaced, which the log says. The dataset's own columns are refused.
        """
        if name in (*LABELS, MOTION) or not name.replace("_", "").isalnum():
            raise ValueError(f"{name!r} can't name an added column; the dataset has {', '.join(LABELS)}")
        if len(values) != self.num_frames:
            raise ValueError(
                f"column {name!r} has {len(values)} rows, the store has {self.num_frames} frames"
            )
        old = self._provenance_hash(name)
        if old is not None and old != json_hash(provenance):
            log.info("replacing the column %s of %s, which another configuration made", name, self.path)
        files.write_column(self.path, name, values, provenance)
        self._columns.pop(name, None)

    def verify(self) -> list[str]:
        """Read every file; return one sentence for each that is damaged."""
        faults = []
        for shard in itertools.chain.from_iterable(self._shards.values()):
            try:
                files.check_shard(self.path, shard, thorough=True)
            except DatasetError as error:
                faults.append(str(error))
        for name in self.column_names():
            try:
                files.read_column(self.path, name, self.num_frames)
            except DatasetError as error:
                faults.append(str(error))
        return faults

    def _shard(self, frame: int, camera: str) -> dict[str, Any]:
        shards = self.shards(camera)
        return shards[bisect.bisect_right(shards, frame, key=lambda shard: shard["first_frame"]) - 1]

    def _map(self, shard: dict[str, Any]) -> np.ndarray:
        name = shard["file"]
        if name not in self._maps:
            files.check_shard(self.path, shard, self._thorough)
            self._maps[name] = files.map_shard(self.path, shard, self.spec.size)
        return self._maps[name]

    def _provenance_hash(self, name: str) -> str | None:
        try:
            provenance = self.column_provenance(name)
        except DatasetError:  # damaged, and about to be replaced
            return None
        return None if provenance is None else json_hash(provenance)


def build_clip_store(
    dataset_root: Path, out: Path, progress: bool = True, replace: bool = False
) -> ClipStore:
    """Decode every frame of a dataset into a new clip store at `out`, and copy its labels beside.

    A store of this very dataset at `out` is returned as it is, with the columns that were added to it. A store of
    another dataset raises `OutputError`, unless `replace`: then it is kept until the new one is complete.
    """
    dataset, out = open_dataset(dataset_root), Path(out)
    source = dataset_hash(dataset_root)
    if (out / files.INDEX).is_file() and (store := _reusable(out, source, replace)):
        return store
    folder = StagedFolder(out, marker=files.INDEX, replace=replace)
    try:
        rows = _episode_rows(dataset)
        shards = _write_frames(dataset, rows, folder.path, progress)
        for name, values in read_all_columns(dataset).items():
            files.write_column(folder.path, name, values, {"dataset": source})
        index = {
            "spec": dataset.spec.to_json(),
            "source": source,
            "episodes": [asdict(row) for row in rows],
            "shards": shards,
        }
        files.write_index(folder.path, index)
        folder.commit()
    except BaseException:
        folder.abort()
        raise
    return ClipStore(out)


def has_commands(spec: EnvSpec) -> bool:
    """Whether episodes come with commands, beside their video."""
    return "action" in spec.labels


def frame_motion(frames: np.ndarray) -> np.ndarray:
    """Mean absolute change in grey levels from each frame of uint8 [T, H, W, 3] to the next; float32 [T]."""
    change = np.maximum(frames[1:], frames[:-1]) - np.minimum(frames[1:], frames[:-1])
    return np.append(change.mean(axis=(1, 2, 3)), 0).astype(np.float32)


def _reusable(out: Path, source: str, replace: bool) -> ClipStore | None:
    """The store at `out` if it was made from the dataset of hash `source`."""
    try:
        store = ClipStore(out)
    except DatasetError:
        if replace:
            return None
        raise
    return store if store.source == source else None


def _episode_rows(dataset: VideoDataset) -> list[EpisodeRow]:
    starts = itertools.accumulate((row["length"] for row in dataset.episodes), initial=0)
    names = ("index", "length", "split", "task", "behaviour", "seed", "success", "instruction")
    return [
        EpisodeRow(start=start, **{name: row[name] for name in names})
        for row, start in zip(dataset.episodes, starts, strict=False)
    ]


def _write_frames(
    dataset: VideoDataset, rows: list[EpisodeRow], folder: Path, progress: bool
) -> list[dict[str, Any]]:
    """Decode all cameras into shards; return their index entries. The motion column is the first camera's."""
    size, cameras = dataset.spec.size, dataset.spec.cameras
    total = sum(row.length for row in rows) * len(cameras)
    shards: list[dict[str, Any]] = []
    motion: list[np.ndarray] = []
    with progress_bar("decode", total, unit="frame") if progress else nullcontext() as bar:

        def watched(episodes: Iterator[np.ndarray], camera: str) -> Iterator[np.ndarray]:
            for frames in episodes:
                if camera == cameras[0]:
                    motion.append(frame_motion(frames))
                if bar is not None:
                    bar.advance(len(frames))
                yield frames

        for camera in cameras:
            episodes = watched(_decoded_episodes(dataset, camera), camera)
            for number, group in enumerate(_shard_groups(rows, size)):
                path = folder / "frames" / f"{camera}-{number:05d}.h5"
                frames = sum(row.length for row in group)
                files.write_shard(path, (frames, size, size, 3), itertools.islice(episodes, len(group)))
                shards.append(files.shard_entry(path, folder, camera, group[0].start, frames))
    files.write_column(folder, MOTION, np.concatenate(motion), {"from": "pixels"})
    return shards


def _shard_groups(rows: list[EpisodeRow], size: int) -> Iterator[list[EpisodeRow]]:
    limit = max(1, SHARD_BYTES // (size * size * 3))
    group: list[EpisodeRow] = []
    for row in rows:
        if group and row.start + row.length - group[0].start > limit:
            yield group
            group = []
        group.append(row)
    yield group


def _decoded_episodes(dataset: VideoDataset, camera: str) -> Iterator[np.ndarray]:
    """Each episode's frames, uint8 [T, H, W, 3], decoding every video file once from its beginning."""
    current: Path | None = None
    frames: Iterator[np.ndarray] = iter(())
    for index, row in enumerate(dataset.episodes):
        path, _ = dataset.video_place(index, camera)
        if path != current:
            dataset.check_file(path)
            current, frames = path, decode_frames(path, dataset.spec.size)
        decoded = list(itertools.islice(frames, row["length"]))
        if len(decoded) != row["length"]:
            raise DatasetError(
                f"{path} ends after {len(decoded)} of the {row['length']} frames of episode {index}; {AGAIN}"
            )
        yield np.stack(decoded)
