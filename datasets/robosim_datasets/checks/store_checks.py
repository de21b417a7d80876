"""What can be wrong with a clip store: its files, how they fit together, and the dataset that it came from.

An episode's number is its place in the store, which in a mixture isn't the one that its own dataset gives it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from robosim.errors import DatasetError
from robosim_datasets import clip_files as files
from robosim_datasets.checks.dataset_checks import json_faults
from robosim_datasets.checks.number_checks import frame_list
from robosim_datasets.checks.source_checks import without_stop
from robosim_datasets.clip_store import ClipStore
from robosim_datasets.episode import SPLITS
from robosim_datasets.faults import Fault
from robosim_datasets.lerobot_io import dataset_hash
from robosim_datasets.sources.source import SourceEpisode, SourceInfo

INDEX_KEYS = {"format", "spec", "source", "episodes", "shards", "parts", "sha256"}


def store_faults(path: Path, dataset: Path | None = None) -> list[Fault]:
    """Every file of a clip store, byte by byte, and whether it was decoded from `dataset`, if that is given."""
    faults = list(json_faults(path / files.INDEX, files.INDEX))
    try:
        index = files.read_index(path)
        faults += [
            Fault("schema", files.INDEX, f"has the unknown key {key}") for key in index.keys() - INDEX_KEYS
        ]
        for shard in index["shards"]:
            faults += _shard_faults(path, shard)
        for name in sorted(column.stem for column in (path / "columns").glob("*.h5")):
            faults += _column_faults(path, name, index["episodes"])
        store = ClipStore(path)
    except DatasetError as error:
        return faults or [Fault("damaged", files.INDEX, without_stop(error))]
    faults += _index_faults(store)
    if dataset is not None:
        faults += _origin_faults(store, dataset)
    return faults


def _shard_faults(path: Path, shard: dict) -> Iterator[Fault]:
    try:
        files.check_shard(path, shard, thorough=True)
    except DatasetError as error:
        last = shard["first_frame"] + shard["frames"] - 1
        what = f"{without_stop(error)} (frames {shard['first_frame']} … {last} of the store)"
        yield Fault("checksum", shard["file"], what)


def _column_faults(path: Path, name: str, episodes: list[dict]) -> Iterator[Fault]:
    """A column that is damaged, or has numbers that aren't finite."""
    where = files.column_path(path, name).relative_to(path).as_posix()
    try:
        values = files.read_column(path, name, sum(row["length"] for row in episodes))
    except DatasetError as error:
        yield Fault("checksum", where, without_stop(error))
        return
    if values.dtype.kind != "f":
        return
    finite = np.isfinite(values.reshape(len(values), -1))
    for position, row in enumerate(episodes if not finite.all() else ()):
        bad = np.flatnonzero(~finite[row["start"] : row["start"] + row["length"]].all(axis=1))
        if len(bad):
            yield Fault("not finite", where, f"at {frame_list(bad)}", position)


def _index_faults(store: ClipStore) -> Iterator[Fault]:
    """Episodes and shards must follow each other without a gap."""
    start = 0
    for position, row in enumerate(store.episodes):
        if row.start != start:
            yield Fault("schema", files.INDEX, f"begins at frame {row.start} and not {start}", position)
        if row.split not in SPLITS:
            yield Fault(
                "splits", files.INDEX, f"its split {row.split!r} isn't {' or '.join(SPLITS)}", position
            )
        start += row.length
    for camera in store.spec.cameras:
        frame = 0
        for shard in store.shards(camera):
            if shard["first_frame"] != frame:
                what = f"begins at frame {shard['first_frame']} and not {frame}"
                yield Fault("schema", shard["file"], what)
            frame = shard["first_frame"] + shard["frames"]
        if frame != store.num_frames:
            yield Fault("length", f"camera {camera}", f"has {frame} frames, the episodes {store.num_frames}")


def _origin_faults(store: ClipStore, dataset: Path) -> Iterator[Fault]:
    try:
        same = store.parts or dataset_hash(dataset) == store.source
    except DatasetError:
        return  # the dataset's own faults are named
    if not same:
        what = f"was decoded from another dataset than {dataset}; delete {store.path} and build the clip store again"
        yield Fault("checksum", files.INDEX, what)


class StoreSource:
    """A clip store as a source, so that its numbers and pictures pass through the same checks. See `Source`."""

    def __init__(self, store: ClipStore) -> None:
        self.root, self._store, spec = store.path, store, store.spec
        self.info = SourceInfo(
            layout="clip store",
            name=store.path.name,
            cameras={camera: (spec.size, spec.size) for camera in spec.cameras},
            fps=spec.fps,
            state_names=spec.state_columns,
            action_names=spec.action_columns,
            action_kind=spec.action_kind,
            robot=spec.robot.name,
            episodes=len(store.episodes),
            frames=store.num_frames,
            instructions=(),
            splits={},
            spec=spec,
        )

    def read(self, episode: int) -> SourceEpisode:
        row, labels = self._store.episodes[episode], self._store.spec.labels

        def column(name: str) -> np.ndarray | None:
            if name not in labels or not files.column_path(self.root, name).exists():
                return None
            return self._store.column(name)[row.start : row.start + row.length]

        nothing = np.zeros((row.length, 0), np.float32)
        state, action = column("state"), column("action")
        return SourceEpisode(
            length=row.length,
            state=nothing if state is None else state,
            action=nothing if action is None else action,
            reward=column("reward"),
            success=column("success"),
            environment_state=column("environment_state"),
            split=row.split,
        )

    def frames(self, episode: int, camera: str, chosen: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
        frames = self._store.frames(episode, camera=camera)
        yield from (frames[number] for number in chosen)
