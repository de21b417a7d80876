"""What robosim's own datasets promise beyond LeRobot's format: checksums, and a table that agrees with LeRobot's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robosim.errors import DatasetError
from robosim_datasets import lerobot_format as layout
from robosim_datasets.checks.source_checks import without_stop
from robosim_datasets.episode import SPLITS
from robosim_datasets.faults import Fault, FaultKind
from robosim_datasets.lerobot_io import open_dataset, open_tables
from robosim_datasets.video_dataset import ROWS, VideoDataset, episode_hashes, file_fault


def own_faults(root: Path) -> list[Fault]:
    """Files that aren't what was written, the episodes in them, and tables that disagree."""
    faults = list(json_faults(root / layout.ROBOSIM_JSON, layout.ROBOSIM_JSON))
    try:
        dataset = open_tables(root)
    except DatasetError as error:
        return faults or [Fault("schema", "meta", without_stop(error))]
    faults += file_faults(root, dataset.files)
    faults += _stray_files(dataset)
    faults += _episode_faults(dataset)
    if not faults:
        try:
            open_dataset(root)
        except DatasetError as error:
            faults.append(Fault("schema", "meta", without_stop(error)))
    return [*faults, *_table_faults(dataset), *_seed_faults(dataset)]


def json_faults(path: Path, name: str) -> Iterator[Fault]:
    """Whether a JSON file that robosim wrote still has the bytes that robosim writes, its own checksum apart."""
    try:
        text = path.read_bytes().decode()
        document = json.loads(text)
    except FileNotFoundError:
        yield Fault("damaged", name, "is missing")
    except (OSError, ValueError) as error:
        yield Fault("damaged", name, f"can't be read ({error})")
    else:
        if text != json.dumps(document, indent=2, sort_keys=True) + "\n":
            yield Fault("checksum", name, "was changed since it was written")


def file_faults(root: Path, files: dict[str, dict[str, Any]]) -> Iterator[Fault]:
    """Every recorded file, byte by byte."""
    for name, record in files.items():
        what = file_fault(root / name, record, thorough=True)
        if what is not None:
            kind: FaultKind = "checksum" if what.startswith("was changed") else "damaged"
            yield Fault(kind, name, what)


def _stray_files(dataset: VideoDataset) -> Iterator[Fault]:
    """LeRobot reads every file below data/, whoever put it there."""
    for folder in ("data", "videos"):
        for path in sorted((dataset.root / folder).rglob("*")):
            name = path.relative_to(dataset.root).as_posix()
            if path.is_file() and name not in dataset.files:
                yield Fault("schema", name, "isn't a file of this dataset")


def _episode_faults(dataset: VideoDataset) -> Iterator[Fault]:
    """Episodes whose rows or packets of video aren't those that were written."""
    if len(dataset.places) < len(dataset.episodes):
        return  # `_table_faults` says so
    for index, (written, found) in enumerate(zip(dataset.hashes, episode_hashes(dataset), strict=False)):
        for key, value in written.items():
            if found.get(key) != value:
                path = dataset.data_path(index) if key == ROWS else dataset.video_place(index, key)[0]
                what = "its rows" if key == ROWS else f"its frames of camera {key}"
                name = path.relative_to(dataset.root).as_posix()
                yield Fault("checksum", name, f"{what} were changed or lost", index)


def _table_faults(dataset: VideoDataset) -> Iterator[Fault]:
    tasks = [task.name for task in dataset.spec.tasks]
    if len(dataset.places) != len(dataset.episodes):
        what = f"has {len(dataset.places)} episodes, {layout.ROBOSIM_JSON} {len(dataset.episodes)}"
        yield Fault("schema", layout.EPISODES_PARQUET, what)
    for index, (row, place) in enumerate(zip(dataset.episodes, dataset.places, strict=False)):
        if row["index"] != index or place["episode_index"] != index or row["length"] != place["length"]:
            yield Fault("schema", layout.ROBOSIM_JSON, "the two episode tables disagree", index)
        if row["task"] not in tasks:
            what = f"its task {row['task']!r} isn't among {', '.join(tasks)}"
            yield Fault("schema", layout.ROBOSIM_JSON, what, index)
        if row["split"] not in SPLITS:
            what = f"its split {row['split']!r} isn't {' or '.join(SPLITS)}"
            yield Fault("splits", layout.ROBOSIM_JSON, what, index)


def _seed_faults(dataset: VideoDataset) -> Iterator[Fault]:
    """One start must not be in two splits: what is held out would have been seen."""
    first: dict[tuple[str, int], int] = {}
    for index, row in enumerate(dataset.episodes):
        other = first.setdefault((row["task"], row["seed"]), index)
        split = dataset.episodes[other]["split"]
        if split != row["split"]:
            what = f"task {row['task']}, seed {row['seed']} is in {row['split']} and in {split} (episode {other})"
            yield Fault("splits", layout.ROBOSIM_JSON, what, index)
