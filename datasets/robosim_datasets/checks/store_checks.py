"""What can be wrong with a clip store: its files, how they fit together, and the dataset that it came from.

An episode's number is its place in the store, which in a mixture isn't the one that its own dataset gives it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from robosim.errors import DatasetError
from robosim.spec import LABELS, EnvSpec
from robosim_datasets import clip_files as files
from robosim_datasets.checks.dataset_checks import json_faults
from robosim_datasets.checks.number_checks import frame_list
from robosim_datasets.checks.source_checks import without_stop
from robosim_datasets.clip_store import MOTION, ClipStore
from robosim_datasets.episode import SPLITS
from robosim_datasets.faults import Fault
from robosim_datasets.lerobot_io import dataset_hash

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
        added = sorted(column.stem for column in (path / "columns").glob("*.h5"))
        for name in dict.fromkeys([*EnvSpec.from_json(index["spec"]).labels, MOTION, *added]):
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
    """A column that is missing or damaged, or has numbers that aren't finite."""
    column = files.column_path(path, name)
    where = column.relative_to(path).as_posix()
    if not column.exists():
        yield Fault("damaged", where, "is missing")
        return
    try:
        values = files.read_column(path, name, sum(row["length"] for row in episodes))
    except DatasetError as error:
        yield Fault("checksum", where, without_stop(error))
        return
    if values.dtype.kind != "f":
        return
    finite = np.isfinite(values.reshape(len(values), -1))
    for position, row in enumerate(episodes if not finite.all() else ()):
        if name in LABELS and not row.get("labelled", True):
            continue  # of a mixture's part without commands
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
