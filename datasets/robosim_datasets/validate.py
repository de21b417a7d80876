"""The thorough check of a dataset: every byte, every row, every frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robosim.checkpoint import file_hash
from robosim.errors import DatasetError
from robosim_datasets.episode import SPLITS
from robosim_datasets.lerobot_io import AGAIN, VideoDataset, open_dataset, read_all_columns
from robosim_datasets.video_file import decode_frames


def check_dataset(root: Path) -> list[str]:
    """One sentence for each fault; an empty list means that the dataset is sound.

    Compares every file with the hash it was written with, the rows with the episode table, and decodes every
    frame: 4,000 frames/s and more at 64 px. `open_dataset` does the cheap part on every use.
    """
    try:
        dataset = open_dataset(root)
    except DatasetError as error:
        return [str(error)]
    faults = []
    for check in (_check_hashes, _check_table, _check_rows, _check_values, _check_videos):
        try:
            faults += check(dataset)
        except DatasetError as error:
            faults.append(str(error))
    return faults


def _check_hashes(dataset: VideoDataset) -> Iterator[str]:
    for name, record in dataset.files.items():
        if file_hash(dataset.root / name) != record["sha256"]:
            yield f"{dataset.root / name} was changed since it was written; {AGAIN}"


def _check_table(dataset: VideoDataset) -> Iterator[str]:
    tasks = [task.name for task in dataset.spec.tasks]
    for index, (row, place) in enumerate(zip(dataset.episodes, dataset.places, strict=True)):
        if row["index"] != index or place["episode_index"] != index or row["length"] != place["length"]:
            yield f"{dataset.root}: the two episode tables disagree about episode {index}; {AGAIN}"
        if row["task"] not in tasks:
            yield f"{dataset.root}: episode {index} has the task {row['task']!r}, the spec has {', '.join(tasks)}"
        if row["split"] not in SPLITS:
            yield f"{dataset.root}: episode {index} is in the split {row['split']!r}, not {' or '.join(SPLITS)}"


def _check_rows(dataset: VideoDataset) -> Iterator[str]:
    """Rows must count episodes and frames without gaps: this is where a reader's idea of time comes from."""
    lengths = [row["length"] for row in dataset.episodes]
    expected = {
        "episode_index": np.repeat(np.arange(len(lengths)), lengths),
        "frame_index": np.concatenate([np.arange(length) for length in lengths]),
        "index": np.arange(sum(lengths)),
    }
    paths = list(dict.fromkeys(dataset.data_path(index) for index in range(len(lengths))))
    try:
        table = pa.concat_tables([pq.read_table(path, columns=list(expected)) for path in paths])
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{paths[0].parent} can't be read ({error}); {AGAIN}") from error
    for name, values in expected.items():
        if not np.array_equal(table[name].to_numpy(), values):
            yield f"{dataset.root}: the column {name} doesn't count the episode table's frames; {AGAIN}"


def _check_values(dataset: VideoDataset) -> Iterator[str]:
    ends = np.cumsum([row["length"] for row in dataset.episodes])
    for name, values in read_all_columns(dataset).items():
        bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
        if len(bad):
            episode = int(np.searchsorted(ends, bad[0], side="right"))
            frame = int(bad[0] - (ends[episode] - dataset.episodes[episode]["length"]))
            yield f"{dataset.root}: {name} isn't finite at frame {frame} of episode {episode}; {AGAIN}"
        joints = dataset.spec.robot.num_joints
        if name in ("state", "action") and values.shape[1:] != (joints,):
            yield f"{dataset.root}: {name} has the shape {values.shape[1:]}, the spec says {joints} joints"


def _check_videos(dataset: VideoDataset) -> Iterator[str]:
    for camera in dataset.spec.cameras:
        frames: dict[Path, int] = {}
        for index, row in enumerate(dataset.episodes):
            path, first = dataset.video_place(index, camera)
            if first != frames.get(path, 0):
                yield f"{dataset.root}: episode {index} doesn't start where the one before ends in {path.name}"
            frames[path] = first + row["length"]
        for path, expected in frames.items():
            count = sum(1 for _ in decode_frames(path, dataset.spec.size))
            if count != expected:
                yield f"{path} has {count} frames, its episodes {expected}; {AGAIN}"
