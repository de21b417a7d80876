"""The layout of a LeRobotDataset v3 on disk, and of `meta/robosim.json` beside it.

LeRobot's own writer encodes through PNG files or a thread a camera, copies the whole video file once an episode,
and may drop frames when the encoder falls behind; at 64 px it manages some 400 frames/s. The format itself is
plain: MP4 files, parquet files and JSON. So the files are written directly, and LeRobot reads them as its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from robosim.spec import LABELS, EnvSpec
from robosim_datasets.episode import Episode, vector_columns
from robosim_datasets.video_file import CODEC_OPTIONS, PIXEL_FORMAT

CODEBASE_VERSION = "v3.0"
"""LeRobot's name for this layout."""

FORMAT = 1
"""Version of `meta/robosim.json`."""

ROBOSIM_JSON = "meta/robosim.json"
INFO_JSON = "meta/info.json"
STATS_JSON = "meta/stats.json"
TASKS_PARQUET = "meta/tasks.parquet"
EPISODES_PARQUET = "meta/episodes/chunk-000/file-000.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

CHUNK_FILES = 1000
DATA_FILE_MB = 100
VIDEO_FILE_MB = 200


def video_key(camera: str) -> str:
    return f"observation.images.{camera}"


def data_file(number: int) -> str:
    """Path of data file `number`, relative to the dataset."""
    chunk_index, file_index = divmod(number, CHUNK_FILES)
    return DATA_PATH.format(chunk_index=chunk_index, file_index=file_index)


def video_file(camera: str, number: int) -> str:
    """Path of a camera's video file `number`, relative to the dataset."""
    chunk_index, file_index = divmod(number, CHUNK_FILES)
    return VIDEO_PATH.format(video_key=video_key(camera), chunk_index=chunk_index, file_index=file_index)


NAMES = {
    "state": "observation.state",
    "action": "action",
    "environment_state": "observation.environment_state",
    "reward": "next.reward",
    "success": "next.success",
}
"""LeRobot's name of each column of an `Episode`."""


def label_features(spec: EnvSpec) -> dict[str, dict[str, Any]]:
    """The recorded columns that aren't video, in LeRobot's description."""
    features = {NAMES[name]: _feature("float32", list(names)) for name, names in vector_columns(spec).items()}
    features |= {NAMES["reward"]: _feature("float32"), NAMES["success"]: _feature("bool")}
    return {NAMES[name]: features[NAMES[name]] for name in LABELS if name in spec.labels}


def index_features() -> dict[str, dict[str, Any]]:
    """The columns that LeRobot adds to every dataset."""
    kinds = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64"}
    return {name: _feature(kind) for name, kind in {**kinds, "task_index": "int64"}.items()}


def info_json(
    spec: EnvSpec, episodes: int, frames: int, tasks: int, splits: dict[str, str]
) -> dict[str, Any]:
    """The content of `meta/info.json`."""
    video = {
        "dtype": "video",
        "shape": [spec.size, spec.size, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": spec.size,
            "video.width": spec.size,
            "video.codec": "h264",
            "video.pix_fmt": PIXEL_FORMAT,
            "video.fps": spec.fps,
            "video.channels": 3,
            "video.g": int(CODEC_OPTIONS["g"]),
            "video.crf": int(CODEC_OPTIONS["crf"]),
            "video.preset": CODEC_OPTIONS["preset"],
            "video.extra_options": {"bf": int(CODEC_OPTIONS["bf"])},
            "has_audio": False,
            "is_depth_map": False,
        },
    }
    return {
        "codebase_version": CODEBASE_VERSION,
        "robot_type": spec.robot.name,
        "fps": spec.fps,
        "features": {
            **{video_key(camera): video for camera in spec.cameras},
            **label_features(spec),
            **index_features(),
        },
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": CHUNK_FILES,
        "data_files_size_in_mb": DATA_FILE_MB,
        "video_files_size_in_mb": VIDEO_FILE_MB,
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "splits": splits,
    }


def split_ranges(splits: list[str]) -> dict[str, str]:
    """LeRobot's `splits`, "from:to" by episode; one "train" range when the splits are interleaved."""
    starts = [i for i, split in enumerate(splits) if i == 0 or split != splits[i - 1]]
    stops = [*starts[1:], len(splits)]
    names = [splits[start] for start in starts]
    if len(set(names)) != len(names):
        return {"train": f"0:{len(splits)}"}
    return {name: f"{a}:{b}" for name, a, b in zip(names, starts, stops, strict=True)}


def episode_columns(
    episode: Episode, spec: EnvSpec, index: int, first_frame: int, task_index: int
) -> dict[str, np.ndarray]:
    """One episode's rows as arrays by column name.

    LeRobot's `next.*` columns belong to the action of their row, so they are shifted by one against `Episode`: the
    outcome of arriving at frame t + 1 stands in row t. The last row repeats the success and has no reward.
    """
    length = episode.length
    frame_index = np.arange(length)
    values = {
        "state": episode.state,
        "action": episode.action,
        "environment_state": episode.environment_state,
        "reward": np.append(episode.reward[1:], np.float32(0)),
        "success": np.append(episode.success[1:], episode.success[-1]),
    }
    return {
        **{NAMES[name]: values[name] for name in LABELS if name in spec.labels},
        "timestamp": (frame_index / spec.fps).astype(np.float32),
        "frame_index": frame_index,
        "episode_index": np.full(length, index),
        "index": first_frame + frame_index,
        "task_index": np.full(length, task_index),
    }


def outcomes(next_values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Undo the shift of `episode_columns`: row t is the outcome of arriving at frame t, nothing at frame 0.

    `next_values` [T] holds whole episodes after one another, the first frames of which are `starts`.
    """
    values = np.roll(next_values, 1)
    values[starts] = 0
    return values


def data_table(columns: dict[str, np.ndarray]) -> pa.Table:
    """Arrays by name, [T] or [T, D], as an arrow table; fixed-size lists for vectors, scalars for D = 1."""
    arrays = {}
    for name, values in columns.items():
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        arrays[name] = (
            flat if values[0].size == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        )
    return pa.table(arrays)


def _feature(dtype: str, names: list[str] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [len(names) if names else 1], "names": names}
