"""Reading the datasets that `DatasetWriter` writes, without LeRobot: a collection starts no heavy import."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
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
from robosim_datasets.video_file import decode_frames, video_rate

__all__ = [
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

AGAIN = "restore it or collect the dataset again"


@dataclass(frozen=True)
class VideoDataset:
    """An opened dataset: its spec, one table row an episode, and where each episode's data lie."""

    root: Path
    spec: EnvSpec
    episodes: list[dict[str, Any]]
    """Rows with `index, task, instruction, behaviour, split, seed, length, success`."""
    places: list[dict[str, Any]]
    """LeRobot's rows: file numbers, frame ranges, seconds within the video files."""
    files: dict[str, dict[str, Any]]
    """Size and SHA-256 by path, as they were written."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """What made the dataset: source, renderer, configuration."""

    def data_path(self, index: int) -> Path:
        place = self.places[index]
        number = place["data/chunk_index"] * layout.CHUNK_FILES + place["data/file_index"]
        return self.root / layout.data_file(number)

    def video_place(self, index: int, camera: str) -> tuple[Path, int]:
        """The video file of an episode and the number of its first frame in that file."""
        place, key = self.places[index], f"videos/{layout.video_key(camera)}"
        number = place[f"{key}/chunk_index"] * layout.CHUNK_FILES + place[f"{key}/file_index"]
        first = round(place[f"{key}/from_timestamp"] * self.spec.fps)
        return self.root / layout.video_file(camera, number), first


def open_dataset(root: Path, size: int | None = None, fps: int | None = None) -> VideoDataset:
    """Open a dataset after the cheap checks: files there, sizes as written, one frame size and rate throughout.

    `size` (pixels) and `fps` are what the caller needs. Raises `DatasetError` with one sentence.
    """
    root = Path(root)
    document = _read_document(root)
    spec = EnvSpec.from_json(document["spec"])
    info = read_dataset_json(root / layout.INFO_JSON)
    for name, record in document["files"].items():
        path = root / name
        if not path.is_file():
            raise DatasetError(f"{path} is missing; {AGAIN}")
        if path.stat().st_size != record["bytes"]:
            raise DatasetError(
                f"{path} is truncated or was changed ({path.stat().st_size} bytes, written "
                f"{record['bytes']}); {AGAIN}"
            )
    dataset = VideoDataset(
        root, spec, document["episodes"], _read_places(root), document["files"], read_provenance(root)
    )
    _check_counts(dataset, info)
    _check_rate_and_size(dataset, info, size, fps)
    return dataset


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
    """`read_episode` without checking the whole dataset again: for reading many."""
    if not 0 <= index < len(dataset.episodes):
        raise DatasetError(f"{dataset.root} has no episode {index}; it has 0 … {len(dataset.episodes) - 1}")
    row = dataset.episodes[index]
    columns = _without_labels(row["length"]) | read_columns(dataset, index)
    frames = {}
    for camera in dataset.spec.cameras:
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


def read_columns(dataset: VideoDataset, index: int) -> dict[str, np.ndarray]:
    """An episode's arrays by their names in `Episode`: those that the spec's `labels` name."""
    path = dataset.data_path(index)
    first_here = index
    while first_here > 0 and dataset.data_path(first_here - 1) == path:
        first_here -= 1
    length = dataset.episodes[index]["length"]
    return _read_arrays(dataset, path, [index - first_here], [length])


def read_all_columns(dataset: VideoDataset) -> dict[str, np.ndarray]:
    """The arrays of all episodes after one another, [num_frames, ...], reading every file once."""
    parts = []
    for path, group in itertools.groupby(range(len(dataset.episodes)), key=dataset.data_path):
        lengths = [dataset.episodes[index]["length"] for index in group]
        parts.append(_read_arrays(dataset, path, list(range(len(lengths))), lengths))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _read_arrays(
    dataset: VideoDataset, path: Path, row_groups: list[int], lengths: list[int]
) -> dict[str, np.ndarray]:
    """The episodes that are `row_groups` of a data file, by their names in `Episode`."""
    names = list(layout.label_features(dataset.spec))
    try:
        table = pq.ParquetFile(path).read_row_groups(row_groups, columns=[*names, "frame_index"])
        arrays = {name: _to_numpy(table[name]) for name in names}
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DatasetError(f"{path} can't be read ({error}); {AGAIN}") from error
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
    missing = [key for key in ("spec", "episodes", "files") if key not in document]
    if missing or not document["episodes"]:
        raise DatasetError(f"{path} is damaged (no {', '.join(missing) or 'episodes'}); {AGAIN}")
    return document


def _read_places(root: Path) -> list[dict[str, Any]]:
    path = root / layout.EPISODES_PARQUET
    try:
        names = [name for name in pq.read_schema(path).names if not name.startswith("stats/")]
        return pq.read_table(path, columns=names).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} can't be read ({error}); {AGAIN}") from error


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


def _to_numpy(column: pa.ChunkedArray) -> np.ndarray:
    array = column.combine_chunks()
    if pa.types.is_fixed_size_list(array.type):
        return array.flatten().to_numpy(zero_copy_only=False).reshape(-1, array.type.list_size).copy()
    return array.to_numpy(zero_copy_only=False).copy()
