"""What the columns of a LeRobotDataset are: which are cameras, state, command and reward, and the names in them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from robosim.errors import DatasetError
from robosim.spec import ActionKind

STATE_KEYS = ("observation.state", "state")
ACTION_KEYS = ("action", "actions")
"""LeRobot's own name first, then those that other writers of its format use."""

OUTCOME_KEYS = ("next.reward", "next.success", "next.done")
INDEX_KEYS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
NUMBERS = ("float", "int", "uint", "bool")

GENERIC_NAME = re.compile(r"[a-z]*[_.]?\d+")
"""Names that only count, such as motor_3: LeRobot's converters put them on anything."""

TOOL_WORDS = {
    "x",
    "y",
    "z",
    "rx",
    "ry",
    "rz",
    "qx",
    "qy",
    "qz",
    "qw",
    "ee",
    "eef",
    "tcp",
    "delta",
    "vel",
    "velocity",
}
TOOL_NAMES = {"roll", "pitch", "yaw"}
"""Parts of names, and whole names, of numbers that aren't joint positions. (wrist_roll is a joint.)"""


@dataclass(frozen=True)
class Vector:
    """A column of numbers."""

    key: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Camera:
    """A column of pictures."""

    key: str
    height: int
    width: int
    video: bool
    """In video files; else each picture is a PNG or JPEG file within the table."""


@dataclass(frozen=True)
class Features:
    """The columns that robosim uses, and notes on the others."""

    cameras: dict[str, Camera]
    state: Vector
    action: Vector
    outcomes: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def video_keys(self) -> tuple[str, ...]:
        return tuple(camera.key for camera in self.cameras.values() if camera.video)


def read_features(described: Any, where: str) -> Features:
    """From `features` of `meta/info.json`. Raises `DatasetError` naming `where` when they aren't LeRobot's."""
    try:
        shapes = {key: tuple(int(size) for size in feature["shape"]) for key, feature in described.items()}
        kinds = {key: str(feature["dtype"]) for key, feature in described.items()}
        depth = [
            key
            for key, kind in kinds.items()
            if kind in ("image", "video") and _is_depth(key, described[key])
        ]
        pictures = [key for key, kind in kinds.items() if kind in ("image", "video") and key not in depth]
        sizes = {key: _size(shapes[key], described[key].get("names")) for key in pictures}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"{where} is damaged: its features aren't as LeRobot describes them ({error!r}); restore it"
        ) from error
    cameras = {
        name: Camera(key, *sizes[key], video=kinds[key] == "video")
        for key, name in zip(pictures, _camera_names(pictures), strict=True)
    }
    numbers = [key for key, kind in kinds.items() if kind.startswith(NUMBERS) and math.prod(shapes[key])]
    state, action = (
        _vector(next((key for key in keys if key in numbers), ""), what, described, shapes)
        for keys, what in ((STATE_KEYS, "state"), (ACTION_KEYS, "action"))
    )
    outcomes = tuple(key for key in OUTCOME_KEYS if key in numbers and math.prod(shapes[key]) == 1)
    used = {*pictures, *depth, *INDEX_KEYS, *outcomes, state.key, action.key}
    left = [f"{key} ({kinds[key]}, {math.prod(shapes[key])})" for key in described if key not in used]
    return Features(cameras, state, action, outcomes, tuple(_notes(state, action, depth, left)))


def _notes(state: Vector, action: Vector, depth: list[str], left: list[str]) -> Iterator[str]:
    if state.key not in ("", STATE_KEYS[0]):
        yield f"{state.key} is taken as the state"
    if action.key not in ("", ACTION_KEYS[0]):
        yield f"{action.key} is taken as the command"
    if depth:
        yield f"depth cameras are left out: {', '.join(depth)}"
    if left:
        yield f"columns that are left out: {', '.join(left)}"


def guess_action_kind(state: Vector, action: Vector) -> ActionKind:
    """Joint targets, where commands have the names of the states and these are names of joints; else unknown."""
    if not action.names:
        return "none"
    joints = action.names == state.names and not any(_is_no_joint(name) for name in action.names)
    return "joint_position" if joints else "other"


def _is_no_joint(name: str) -> bool:
    name = name.lower()
    words = set(re.split(r"[^a-z0-9]+", name))
    return bool(GENERIC_NAME.fullmatch(name)) or name in TOOL_NAMES or bool(words & TOOL_WORDS)


def _vector(key: str, what: str, described: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> Vector:
    if not key:
        return Vector("", ())
    length = math.prod(shapes[key])
    names = tuple(_flat(described[key].get("names")))
    if len(names) != length or len(set(names)) != length:
        names = tuple(f"{what}_{i}" for i in range(length))
    return Vector(key, names)


def _flat(names: Any) -> Iterator[str]:
    """The names in a list or in lists by group, however deep."""
    if isinstance(names, dict):
        names = list(names.values())
    if isinstance(names, list):
        for part in names:
            yield from _flat(part)
    elif isinstance(names, str):
        yield names


def _is_depth(key: str, feature: dict[str, Any]) -> bool:
    marks = {**(feature.get("video_info") or {}), **(feature.get("info") or {})}
    return (
        bool(marks.get("is_depth_map") or marks.get("video.is_depth_map"))
        or "depth" in key.split(".")[-1].lower()
    )


def _size(shape: tuple[int, ...], names: Any) -> tuple[int, int]:
    """(height, width) of a picture's shape, whichever axis holds the channels."""
    if len(shape) == 2:
        return shape[0], shape[1]
    if len(shape) != 3:
        raise ValueError(f"a picture of shape {list(shape)}")
    axes = [name[:1].lower() for name in _flat(names)]
    if sorted(axes) == ["c", "h", "w"]:
        return shape[axes.index("h")], shape[axes.index("w")]
    return (shape[1], shape[2]) if shape[2] not in (1, 3, 4) else (shape[0], shape[1])


def _camera_names(keys: list[str]) -> list[str]:
    """The last part of each key, or the whole key where two would get the same name."""
    short = [re.sub(r"^observation\.images\.|^.*\.(?=[^.]+$)", "", key, count=1) for key in keys]
    names = [name if short.count(name) == 1 else key for name, key in zip(short, keys, strict=True)]
    return [re.sub(r"[^\w-]", "_", name) for name in names]
