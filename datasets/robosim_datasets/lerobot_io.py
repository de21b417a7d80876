"""Reading the datasets that `DatasetWriter` writes, without LeRobot: a collection starts no heavy import."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robosim.checkpoint import json_hash
from robosim.errors import DatasetError
from robosim.spec import EnvSpec
from robosim_datasets import lerobot_format as layout
from robosim_datasets.dataset_writer import DatasetWriter
from robosim_datasets.episode import Episode
from robosim_datasets.video_dataset import (
    AGAIN,
    VideoDataset,
    column_array,
    file_fault,
    read_errors,
    read_places,
)
from robosim_datasets.video_file import decode_frames, video_rate

__all__ = [
    "AGAIN",
    "DatasetWriter",
    "VideoDataset",
    "dataset_hash",
    "load_episode",
    "open_dataset",
    "read_episode",
    "read_episode_table",
    "read_provenance",
    "read_spec",
]

DOCUMENT_KEYS = {"format", "spec", "provenance", "episodes", "hashes", "files"}
"""What `meta/robosim.json` holds, beside its own checksum."""


def open_dataset(root: Path, size: int | None = None, fps: int | None = None) -> VideoDataset:
    """Open a dataset after the cheap checks: tables as written, files there and of the size that was written, one frame
    size and rate throughout. What reads rows or video checks their bytes.

    `size` (pixels) and `fps` are what the caller needs. Raises `DatasetError` with one sentence.
    """
    root = Path(root)
    document = _read_document(root)
    info = read_dataset_json(root / layout.INFO_JSON)
    for name, record in document["files"].items():
        if fault := file_fault(root / name, record, thorough=name.startswith("meta/")):
            raise DatasetError(f"{root / name} {fault}; {AGAIN}")
    dataset = _dataset(root, document)
    _check_counts(dataset, info)
    _check_rate_and_size(dataset, info, size, fps)
    return dataset


def open_tables(root: Path) -> VideoDataset:
    """Open a dataset some files of which may be damaged: its tables can be read, which is all that is checked."""
    return _dataset(Path(root), _read_document(Path(root)))


def _dataset(root: Path, document: dict[str, Any]) -> VideoDataset:
    return VideoDataset(
        root=root,
        spec=EnvSpec.from_json(document["spec"]),
        episodes=document["episodes"],
        places=read_places(root),
        files=document["files"],
        provenance=document.get("provenance", {}),
        hashes=document.get("hashes", []),
    )


def read_spec(root: Path) -> EnvSpec:
    """The contract that the dataset's episodes were made under."""
    return EnvSpec.from_json(_read_document(Path(root))["spec"])


def read_provenance(root: Path) -> dict[str, Any]:
    """What made the dataset: source, renderer, configuration; empty where it doesn't say."""
    return _read_document(Path(root)).get("provenance", {})


def read_episode_table(root: Path) -> list[dict[str, Any]]:
    """One row an episode: index, task, instruction, behaviour, split, seed, length, success, factors, measures."""
    return _read_document(Path(root))["episodes"]


def dataset_hash(root: Path) -> str:
    """Hash of everything in the dataset: spec, provenance, episode table and the hashes of all files."""
    return json_hash(_read_document(Path(root)))


def read_episode(root: Path, index: int) -> Episode:
    """Read one episode back. Frames have been through the video encoder; the rest is exact."""
    return load_episode(open_dataset(root), index)


def load_episode(dataset: VideoDataset, index: int) -> Episode:
    """`read_episode` without checking the whole dataset again: for reading many.

    Raises `DatasetError` where the episode's rows or video aren't those that were written; others can still be read.
    """
    if not 0 <= index < len(dataset.episodes):
        raise DatasetError(f"{dataset.root} has no episode {index}; it has 0 … {len(dataset.episodes) - 1}")
    row = dataset.episodes[index]
    table = dataset.read_rows(index)
    columns = _without_labels(row["length"]) | _arrays(
        dataset, dataset.data_path(index), table, [row["length"]]
    )
    frames = {}
    for camera in dataset.spec.cameras:
        dataset.check_video(index, camera)
        path, first = dataset.video_place(index, camera)
        decoded = list(itertools.islice(decode_frames(path, dataset.spec.size, first), row["length"]))
        if len(decoded) != row["length"]:
            raise DatasetError(
                f"{path} ends after {len(decoded)} of the {row['length']} frames of episode {index}; {AGAIN}"
            )
        frames[camera] = np.stack(decoded)
    return Episode(
        frames=frames,
        task=row["task"],
        instruction=row["instruction"],
        behaviour=row["behaviour"],
        split=row["split"],
        seed=row["seed"],
        factors=row.get("factors", {}),
        measures=row.get("measures", {}),
        source=row.get("source", {}),
        **columns,
    )


def read_all_columns(dataset: VideoDataset) -> dict[str, np.ndarray]:
    """The arrays of all episodes after one another, [num_frames, ...], from files that are as they were written."""
    parts = []
    for path, group in itertools.groupby(range(len(dataset.episodes)), key=dataset.data_path):
        dataset.check_file(path)
        lengths = [dataset.episodes[index]["length"] for index in group]
        parts.append(_arrays(dataset, path, _read_labels(dataset, path, len(lengths)), lengths))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _read_labels(dataset: VideoDataset, path: Path, row_groups: int) -> pa.Table:
    """What the first row groups of a data file say beside the counting."""
    columns = [*layout.label_features(dataset.spec), "frame_index"]
    with read_errors(path), pq.ParquetFile(path) as file:
        return file.read_row_groups(list(range(row_groups)), columns=columns)


def _arrays(dataset: VideoDataset, path: Path, table: pa.Table, lengths: list[int]) -> dict[str, np.ndarray]:
    """The rows of whole episodes, from `path`, by their names in `Episode`: those that the spec's `labels` name."""
    with read_errors(path):
        arrays = {name: column_array(table[name]) for name in layout.label_features(dataset.spec)}
    if table.num_rows != sum(lengths):
        raise DatasetError(
            f"{path} has {table.num_rows} rows where the episode table says {sum(lengths)}; {AGAIN}"
        )
    ends = np.cumsum(lengths)
    columns = {name: arrays[layout.NAMES[name]] for name in dataset.spec.labels}
    for name in columns:
        if name in ("reward", "success"):
            columns[name] = layout.outcomes(columns[name], ends - lengths)
        else:  # a vector of one number is stored as scalars
            columns[name] = columns[name].reshape(ends[-1], -1)
    return columns


def _without_labels(length: int) -> dict[str, np.ndarray]:
    """What an `Episode` of video alone has in place of labels."""
    vectors = {name: np.zeros((length, 0), np.float32) for name in ("state", "action", "environment_state")}
    return {**vectors, "reward": np.zeros(length, np.float32), "success": np.zeros(length, np.bool_)}


def read_dataset_json(path: Path) -> Any:
    """Read a JSON file of a dataset. Raises `DatasetError` when it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing; {AGAIN}") from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} is damaged ({error}); {AGAIN}") from error


def _read_document(root: Path) -> dict[str, Any]:
    """`meta/robosim.json`, checked for its version and keys."""
    if not root.is_dir():
        raise DatasetError(
            f"there is no dataset at {root}; `robosim collect out=RUN` makes one at RUN/dataset"
        )
    path = root / layout.ROBOSIM_JSON
    if not path.exists():
        raise DatasetError(
            f"{root} is no robosim dataset: {layout.ROBOSIM_JSON} is missing; collect or import one"
        )
    document = read_dataset_json(path)
    if not isinstance(document, dict) or document.get("format") != layout.FORMAT:
        raise DatasetError(
            f"{path} isn't of format {layout.FORMAT}, which this version of robosim reads; {AGAIN}"
        )
    # Datasets of the first versions have no checksum here.
    if (written := document.pop("sha256", None)) is not None and written != json_hash(document):
        raise DatasetError(f"{path} was changed since it was written; {AGAIN}")
    if unknown := document.keys() - DOCUMENT_KEYS:
        raise DatasetError(f"{path} is damaged (it has the unknown key {sorted(unknown)[0]}); {AGAIN}")
    missing = [key for key in ("spec", "episodes", "files") if key not in document]
    if missing or not document["episodes"]:
        raise DatasetError(f"{path} is damaged (no {', '.join(missing) or 'episodes'}); {AGAIN}")
    return document


def _check_counts(dataset: VideoDataset, info: dict[str, Any]) -> None:
    counts = {len(dataset.episodes), len(dataset.places), info.get("total_episodes")}
    if len(counts) != 1:
        raise DatasetError(
            f"{dataset.root / layout.INFO_JSON} and {layout.ROBOSIM_JSON} count different episodes {counts}; "
            f"{AGAIN}"
        )


def _check_rate_and_size(
    dataset: VideoDataset, info: dict[str, Any], size: int | None, fps: int | None
) -> None:
    spec, root = dataset.spec, dataset.root
    if size is not None and spec.size != size:
        raise DatasetError(
            f"{root} has frames of {spec.size} pixels, but {size} are needed; collect it with size={size}"
        )
    if fps is not None and spec.fps != fps:
        raise DatasetError(
            f"{root} runs at {spec.fps} frames/s, but {fps} are needed; collect or import it at that rate"
        )
    if info.get("fps") != spec.fps:
        raise DatasetError(f"{root} says {spec.fps} frames/s in its spec and {info.get('fps')} in info.json")
    for camera in spec.cameras:
        shape = info.get("features", {}).get(layout.video_key(camera), {}).get("shape")
        if shape != [spec.size, spec.size, 3]:
            raise DatasetError(
                f"{root} says {spec.size} pixels in its spec, but camera {camera} has the shape {shape}"
            )
        path, _ = dataset.video_place(0, camera)
        rate = video_rate(path)
        if abs(rate - spec.fps) > 1e-3:
            raise DatasetError(f"{path} runs at {rate:g} frames/s, but the dataset's spec says {spec.fps}")
