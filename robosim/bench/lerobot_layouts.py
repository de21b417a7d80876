"""The made-up recording as LeRobotDatasets: v3 by LeRobot's own writer, v2.0 and v2.1 as it wrote them until 2025.

What `write_lerobot_v2` writes was put through LeRobot 0.6.1's own converter from v2.1 to v3.0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from robosim.bench.layouts import RecordedEpisode

CHUNK = 1000
"""Episodes a folder, as LeRobot had it."""


def write_lerobot_v3(root: Path, episodes: Sequence[RecordedEpisode], fps: float) -> Path:
    """Write a LeRobotDataset v3, H.264 4:2:0, with LeRobot's own writer."""
    from lerobot.configs.video import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    names = [f"joint_{number}" for number in range(episodes[0].state.shape[1])]
    numbers = {"dtype": "float32", "shape": (len(names),), "names": names}
    features: dict[str, Any] = {"observation.state": numbers, "action": numbers}
    for camera, frames in episodes[0].frames.items():
        about = {"dtype": "video", "shape": frames.shape[1:], "names": ["height", "width", "channels"]}
        features[f"observation.images.{camera}"] = about
    dataset = LeRobotDataset.create(
        "robosim/made-up",
        round(fps),
        features,
        root=root,
        rgb_encoder=RGBEncoderConfig(vcodec="h264", pix_fmt="yuv420p", preset="veryfast"),
        video_backend="pyav",
    )
    for episode in episodes:
        for number in range(episode.length):
            pictures = {
                f"observation.images.{name}": frames[number] for name, frames in episode.frames.items()
            }
            values = {"observation.state": episode.state[number], "action": episode.action[number]}
            dataset.add_frame({**pictures, **values, "task": episode.instruction})
        dataset.save_episode(parallel_encoding=False)
    dataset.finalize()
    return root


def encode(frames: np.ndarray, path: Path, fps: float, codec: str = "libx264", **options: str) -> None:
    """B-frames and few key frames, so that a reader that counts packets gets it wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w") as container:
        given = {"g": "12", "bf": "2", "crf": "8", **options}
        stream = cast(av.VideoStream, container.add_stream(codec, rate, options=given))
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_lerobot_v2(
    root: Path,
    episodes: Sequence[RecordedEpisode],
    fps: float,
    version: str = "v2.1",
    images: bool = False,
    names: Sequence[str] = (),
    extra: Mapping[str, Sequence[np.ndarray]] | None = None,
    chunk: int = CHUNK,
    held_out: int = 0,
) -> Path:
    """Write a dataset as LeRobot did until 2025; `images`: PNG files in the tables in place of videos.

    `names` are the joints', `extra` further columns by name with one array [T, D] an episode, `chunk` the episodes a
    folder; the last `held_out` episodes are the split "test".
    """
    (root / "meta").mkdir(parents=True)
    tasks = list(dict.fromkeys(episode.instruction for episode in episodes))
    first = 0
    for index, episode in enumerate(episodes):
        place, name = f"chunk-{index // chunk:03d}", f"episode_{index:06d}"
        columns = _columns(episode, index, first, tasks.index(episode.instruction), fps)
        columns |= {key: values[index] for key, values in (extra or {}).items()}
        pictures = {f"observation.images.{camera}": frames for camera, frames in episode.frames.items()}
        if not images:
            for key, frames in pictures.items():
                encode(frames, root / f"videos/{place}/{key}/{name}.mp4", fps)
        _write_table(root / f"data/{place}/{name}.parquet", columns, pictures if images else {})
        _append(
            root,
            "episodes",
            {"episode_index": index, "tasks": [episode.instruction], "length": episode.length},
        )
        if version != "v2.0":
            stats = {key: _statistics(values) for key, values in columns.items()}
            stats |= {key: _statistics(frames / 255, picture=True) for key, frames in pictures.items()}
            _append(root, "episodes_stats", {"episode_index": index, "stats": stats})
        first += episode.length
    for number, task in enumerate(tasks):
        _append(root, "tasks", {"task_index": number, "task": task})
    features = _features(episodes[0], images, names, extra or {})
    info = _info(episodes, version, fps, images, chunk, held_out, features)
    (root / "meta/info.json").write_text(json.dumps(info, indent=4))
    return root


def _columns(
    episode: RecordedEpisode, index: int, first: int, task: int, fps: float
) -> dict[str, np.ndarray]:
    numbers = np.arange(episode.length)
    return {
        "observation.state": episode.state,
        "action": episode.action,
        "timestamp": (numbers / fps).astype(np.float32),
        "frame_index": numbers,
        "episode_index": np.full(episode.length, index),
        "index": first + numbers,
        "task_index": np.full(episode.length, task),
    }


def _features(
    episode: RecordedEpisode, images: bool, names: Sequence[str], extra: Mapping[str, Sequence[np.ndarray]]
) -> dict[str, Any]:
    features: dict[str, Any] = {
        f"observation.images.{camera}": {
            "dtype": "image" if images else "video",
            "shape": list(frames.shape[1:]),
            "names": ["height", "width", "channels"],
        }
        for camera, frames in episode.frames.items()
    }
    widths = {key: values[0].shape[1] for key, values in extra.items()}
    widths |= {"observation.state": episode.state.shape[1], "action": episode.action.shape[1]}
    for key, width in widths.items():
        motors = list(names) or [f"joint_{number}" for number in range(width)]
        features[key] = {"dtype": "float32", "shape": [width], "names": {"motors": motors}}
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    for key in ("frame_index", "episode_index", "index", "task_index"):
        features[key] = {"dtype": "int64", "shape": [1], "names": None}
    return features


def _info(
    episodes: Sequence[RecordedEpisode],
    version: str,
    fps: float,
    images: bool,
    chunk: int,
    held_out: int,
    features: dict[str, Any],
) -> dict[str, Any]:
    train = len(episodes) - held_out
    test = {"test": f"{train}:{len(episodes)}"} if held_out else {}
    video_path = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    return {
        "codebase_version": version,
        "robot_type": "so100",
        "total_episodes": len(episodes),
        "total_frames": sum(episode.length for episode in episodes),
        "total_tasks": len({episode.instruction for episode in episodes}),
        "total_videos": 0 if images else len(episodes) * len(episodes[0].frames),
        "total_chunks": -(-len(episodes) // chunk),
        "chunks_size": chunk,
        "fps": fps,
        "splits": {"train": f"0:{train}", **test},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": None if images else video_path,
        "features": features,
    }


def _write_table(path: Path, columns: dict[str, np.ndarray], pictures: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        name: pa.array(list(values)) if values.ndim > 1 else pa.array(values)
        for name, values in columns.items()
    }
    for key, frames in pictures.items():
        arrays[key] = pa.array([{"bytes": _png(pixels), "path": None} for pixels in frames])
    pq.write_table(pa.table(arrays), path)


def _png(pixels: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def _statistics(values: np.ndarray, picture: bool = False) -> dict[str, list]:
    axes = (0, 1, 2) if picture else 0
    found = {name: getattr(values, name)(axis=axes) for name in ("min", "max", "mean", "std")}
    shape = (3, 1, 1) if picture else (-1,)
    return {name: np.reshape(value, shape).tolist() for name, value in found.items()} | {
        "count": [len(values)]
    }


def _append(root: Path, name: str, row: dict[str, Any]) -> None:
    with (root / f"meta/{name}.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
