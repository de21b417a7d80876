"""One made-up recording, written in every layout that robosim imports: for tests and for `robosim bench import`."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import av
import h5py
import numpy as np
from PIL import Image
from robosim_datasets.sources.tfrecord import encode_example, write_records

INSTRUCTIONS = ("push the block to the left", "lift the block")
JOINTS = 7


@dataclass(frozen=True)
class RecordedEpisode:
    """T frames of an arm that moves over a block."""

    frames: dict[str, np.ndarray]
    """camera -> uint8 [T, H, W, 3]"""
    state: np.ndarray
    """float32 [T, 7]"""
    action: np.ndarray
    """float32 [T, 7]"""
    instruction: str

    @property
    def length(self) -> int:
        """Number of frames T."""
        return len(self.state)


@dataclass(frozen=True)
class Recording:
    """Episodes of one robot."""

    episodes: tuple[RecordedEpisode, ...]
    fps: float

    @property
    def frames(self) -> int:
        """Frames of all episodes together."""
        return sum(episode.length for episode in self.episodes)


def make_recording(
    episodes: int = 3,
    length: int = 12,
    size: tuple[int, int] = (48, 64),
    seed: int = 0,
    cameras: Sequence[str] = ("front", "wrist"),
    fps: float = 10,
) -> Recording:
    """A recording that is the same for the same arguments. Episode k has `length + k` frames of `size` (H, W)."""
    made = []
    for number in range(episodes):
        rng = np.random.default_rng((seed, number))
        count = length + number
        state = np.cumsum(rng.normal(0, 0.1, (count, JOINTS)), axis=0).astype(np.float32)
        action = np.diff(state, axis=0, append=state[-1:]).astype(np.float32)
        frames = {name: _frames(state, size, mirrored=index % 2 == 1) for index, name in enumerate(cameras)}
        made.append(RecordedEpisode(frames, state, action, INSTRUCTIONS[number % len(INSTRUCTIONS)]))
    return Recording(tuple(made), fps)


def _frames(state: np.ndarray, size: tuple[int, int], mirrored: bool) -> np.ndarray:
    """A red block at rest and an arm of two links at the angles state[:, :2], seen by a camera."""
    height, width = size
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    frames = np.empty((len(state), height, width, 3), np.uint8)
    for frame, angles in zip(frames, state, strict=True):
        frame[..., 0] = 60 + 40 * rows / height
        frame[..., 1] = 90 + 40 * columns / width
        frame[..., 2] = 120
        frame[height * 3 // 4 :, width // 2 : width * 5 // 8] = (210, 50, 40)
        row, column, angle = height - 1.0, width / 3, -np.pi / 3
        for turn in angles[:2]:
            angle += float(turn)
            for step in np.linspace(0, 0.35 * height, 12):
                y, x = row + np.sin(angle) * step, column + np.cos(angle) * step
                frame[np.hypot(rows - y, columns - x) < height / 16] = (235, 220, 90)
            row, column = row + np.sin(angle) * 0.35 * height, column + np.cos(angle) * 0.35 * height
    return frames[:, :, ::-1].copy() if mirrored else frames


def write_rlds(
    folder: Path,
    recording: Recording,
    name: str = "made_up",
    shards: int = 1,
    split: str = "train",
    picture: Literal["png", "jpeg"] = "png",
    described: bool = True,
) -> list[Path]:
    """Write Open-X RLDS: TFRecord files, with `features.json` and `dataset_info.json` if `described`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}-{split}.tfrecord-{i:05d}-of-{shards:05d}" for i in range(shards)]
    parts = [recording.episodes[i::shards] for i in range(shards)]
    for path, part in zip(paths, parts, strict=True):
        write_records(path, (encode_example(rlds_example(episode, picture)) for episode in part))
    if described:
        (folder / "features.json").write_text(json.dumps(_features_json(recording.episodes[0], picture)))
        lengths = [str(len(part)) for part in parts]
        info = {"name": name, "version": "1.0.0", "splits": [{"name": split, "shardLengths": lengths}]}
        (folder / "dataset_info.json").write_text(json.dumps(info))
    return paths


def rlds_example(episode: RecordedEpisode, picture: Literal["png", "jpeg"] = "png") -> dict[str, Any]:
    """An episode's features as they stand in a record."""
    count = np.arange(episode.length)
    pictures = {
        f"steps/observation/{camera}": [_encoded(frame, picture) for frame in frames]
        for camera, frames in episode.frames.items()
    }
    return pictures | {
        "steps/action": episode.action,
        "steps/observation/state": episode.state,
        "steps/language_instruction": [episode.instruction.encode()] * episode.length,
        "steps/is_first": count == 0,
        "steps/is_last": count == episode.length - 1,
        "steps/is_terminal": count == episode.length - 1,
        "steps/reward": (count == episode.length - 1).astype(np.float32),
        "steps/discount": np.ones(episode.length, np.float32),
        "episode_metadata/file_path": [b"made/up"],
    }


def _features_json(episode: RecordedEpisode, picture: str) -> dict[str, Any]:
    def tensor(dtype: str, *shape: int) -> dict[str, Any]:
        dimensions = {"dimensions": [str(size) for size in shape]} if shape else {}
        return {
            "pythonClassName": "Tensor",
            "tensor": {"shape": dimensions, "dtype": dtype, "encoding": "none"},
        }

    def image(frames: np.ndarray) -> dict[str, Any]:
        shape = {"dimensions": [str(size) for size in frames.shape[1:]]}
        return {
            "pythonClassName": "Image",
            "image": {"shape": shape, "dtype": "uint8", "encodingFormat": picture},
        }

    def branch(features: dict[str, Any]) -> dict[str, Any]:
        return {"pythonClassName": "FeaturesDict", "featuresDict": {"features": features}}

    text = {"pythonClassName": "Text", "text": {}}
    cameras = {camera: image(frames) for camera, frames in episode.frames.items()}
    flags = {name: tensor("bool") for name in ("is_first", "is_last", "is_terminal")}
    numbers = {
        "reward": tensor("float32"),
        "discount": tensor("float32"),
        "action": tensor("float32", JOINTS),
    }
    observation = branch({**cameras, "state": tensor("float32", JOINTS)})
    step = branch({**flags, **numbers, "observation": observation, "language_instruction": text})
    steps = {"pythonClassName": "Dataset", "sequence": {"feature": step, "length": "-1"}}
    return branch({"steps": steps, "episode_metadata": branch({"file_path": text})})


def _encoded(frame: np.ndarray, picture: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(
        buffer, picture, **({"quality": 95, "subsampling": 0} if picture == "jpeg" else {})
    )
    return buffer.getvalue()


def write_aloha(folder: Path, recording: Recording, compressed: bool = False) -> list[Path]:
    """Write ALOHA's files, one an episode; the numbers are doubled for two arms, so that there are 14."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, episode in enumerate(recording.episodes):
        paths.append(folder / f"episode_{number}.hdf5")
        with h5py.File(paths[-1], "w") as file:
            file.attrs["sim"] = False
            file.attrs["compress"] = compressed
            file.attrs["language_instruction"] = episode.instruction
            file["action"] = np.tile(episode.action, 2)
            file["observations/qpos"] = np.tile(episode.state, 2)
            file["observations/qvel"] = np.zeros((episode.length, 2 * JOINTS), np.float32)
            for camera, frames in episode.frames.items():
                rows = _padded([_encoded(frame, "jpeg") for frame in frames]) if compressed else frames
                file[f"observations/images/{camera}"] = rows
    return paths


def _padded(files: Sequence[bytes]) -> np.ndarray:
    longest = max(map(len, files))
    return np.stack([np.frombuffer(data.ljust(longest, b"\0"), np.uint8) for data in files])


def write_robomimic(path: Path, recording: Recording) -> Path:
    """Write one robomimic file; the last episode is its `valid`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    controller = {"type": "OSC_POSE", "control_delta": True}
    kwargs = {"robots": ["Panda"], "control_freq": recording.fps, "controller_configs": controller}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": kwargs})
        for number, episode in enumerate(recording.episodes):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = episode.length
            demo.attrs["ep_meta"] = json.dumps({"lang": episode.instruction})
            demo["actions"] = episode.action.astype(np.float64)
            demo["rewards"] = (np.arange(episode.length) == episode.length - 1).astype(np.float64)
            demo["obs/robot0_eef_pos"] = episode.state[:, :3]
            demo["obs/robot0_eef_quat"] = episode.state[:, 3:]
            demo["obs/robot0_gripper_qpos"] = episode.state[:, :2]
            for camera, frames in episode.frames.items():
                demo[f"obs/{camera}_image"] = frames
        names = [f"demo_{number}".encode() for number in range(len(recording.episodes))]
        file["mask/train"], file["mask/valid"] = names[:-1], names[-1:]
    return path


def write_videos(
    folder: Path, recording: Recording, suffix: str = ".mp4", camera: str = "front"
) -> list[Path]:
    """Write one video file an episode of one camera, with its instruction beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, episode in enumerate(recording.episodes):
        paths.append(folder / f"take_{number}{suffix}")
        paths[-1].with_suffix(".txt").write_text(episode.instruction + "\n")
        if suffix in (".gif", ".webp"):
            first, *rest = (Image.fromarray(frame) for frame in episode.frames[camera])
            lossless: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
            first.save(
                paths[-1],
                save_all=True,
                append_images=rest,
                duration=round(1000 / recording.fps),
                loop=0,
                **lossless,
            )
        else:
            _write_video(paths[-1], iter(episode.frames[camera]), recording.fps)
    return paths


def _write_video(path: Path, frames: Iterator[np.ndarray], fps: float) -> None:
    """Encode frames with what the container's ending asks for: VP9 in WebM, else H.264 without lost colour."""
    webm = path.suffix == ".webm"
    codec, options = ("libvpx-vp9", {"crf": "10", "b": "0"}) if webm else ("libx264", {"crf": "10"})
    with av.open(str(path), "w") as container:
        stream = cast(av.VideoStream, container.add_stream(codec, round(fps), options=options))
        stream.pix_fmt = "yuv444p"
        for frame in frames:
            stream.height, stream.width = frame.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
