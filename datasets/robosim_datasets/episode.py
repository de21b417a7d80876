"""One episode in memory: what a collector or an importer hands to the writer, and what a reader gets back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robosim.errors import DatasetError
from robosim.spec import EnvSpec

ENVIRONMENT_STATE = (
    "tool.x",
    "tool.y",
    "tool.z",
    "object.x",
    "object.y",
    "object.z",
    "goal.x",
    "goal.y",
    "goal.z",
)
"""Columns of `Episode.environment_state`, metres in the world frame."""

SPLITS = ("train", "val")


@dataclass
class Episode:
    """T frames of one attempt at one task, J numbers a command and S a state (joints: S = J).

    What the spec's `labels` lack has no columns, as in `state` float32 [T, 0], or is zero (`reward`, `success`); it
    isn't written.

    Row t is (observation t, action t). `action[t]` acts between frames t and t + 1, so that the last action is
    kept and unused. `reward[t]` and `success[t]` are the outcome of *arriving* at frame t; at frame 0 nothing has
    happened yet, so they are 0 and False there.
    """

    frames: dict[str, np.ndarray]
    """camera -> uint8 [T, H, W, 3]"""
    state: np.ndarray
    """float32 [T, S]: joint positions (rad), gripper opening (0 … 1), or what `state_names` says"""
    action: np.ndarray
    """float32 [T, J]: absolute joint targets in the same units, or what `action_kind` says"""
    environment_state: np.ndarray
    """float32 [T, 9]: tool, object centre and goal (metres, world); see `ENVIRONMENT_STATE`"""
    reward: np.ndarray
    """float32 [T]"""
    success: np.ndarray
    """bool [T]"""
    task: str
    instruction: str
    behaviour: str
    """How it was made, such as "expert" or "explore"."""
    split: str
    """"train" or "val"."""
    seed: int
    factors: dict[str, float] = field(default_factory=dict)
    """What was varied beside the start, by name."""
    measures: dict[str, float] = field(default_factory=dict)
    """How well the task was done in the end, by name with the unit in it."""
    source: dict[str, Any] = field(default_factory=dict)
    """Where an imported episode comes from, and what was said about it there; JSON."""

    @property
    def length(self) -> int:
        """Number of frames T."""
        return len(self.state)

    def check(self, spec: EnvSpec) -> None:
        """Raise `DatasetError` naming the first thing that doesn't fit `spec`."""
        for fault in self._faults(spec):
            raise DatasetError(
                f"episode of task {self.task!r}, seed {self.seed}: {fault}; it can't be written"
            )

    def _faults(self, spec: EnvSpec) -> Iterator[str]:
        length = self.length
        if length < 2:
            yield f"it has {length} frames, at least 2 are needed"
        if self.task not in [task.name for task in spec.tasks]:
            yield f"its task isn't among {', '.join(task.name for task in spec.tasks)}"
        if self.split not in SPLITS:
            yield f"its split is {self.split!r} and not one of {', '.join(SPLITS)}"
        if set(self.frames) != set(spec.cameras):
            yield f"it has the cameras {sorted(self.frames)} and not {sorted(spec.cameras)}"
        for camera, frames in self.frames.items():
            yield from _array_faults(
                f"frames of {camera}", frames, np.uint8, (length, spec.size, spec.size, 3)
            )
        for name, names in vector_columns(spec).items():
            yield from _array_faults(name, getattr(self, name), np.float32, (length, len(names)))
        yield from _array_faults("reward", self.reward, np.float32, (length,))
        yield from _array_faults("success", self.success, np.bool_, (length,))
        if self.reward[0] != 0 or self.success[0]:
            yield "its first frame has a reward or a success, but row t is the outcome of arriving at frame t"


def vector_columns(spec: EnvSpec) -> dict[str, tuple[str, ...]]:
    """The names of the numbers in each vector of an episode; none where the spec's `labels` lack it."""
    positions = ENVIRONMENT_STATE if "environment_state" in spec.labels else ()
    return {"state": spec.state_columns, "action": spec.action_columns, "environment_state": positions}


def _array_faults(name: str, array: np.ndarray, dtype: type, shape: tuple[int, ...]) -> Iterator[str]:
    if array.dtype != dtype or array.shape != shape:
        yield f"{name} is {array.dtype} {array.shape} and not {np.dtype(dtype)} {shape}"
    elif array.dtype == np.float32 and not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))[0])
        yield f"{name} isn't finite at frame {row}"
