"""What a policy may know of its world: joints, cameras, time and task.

Both simulators are built from one `EnvSpec`, which every dataset carries in `meta/robosim.json`. Nothing here
imports torch or MuJoCo, so that the learned simulator can be built where MuJoCo is missing.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from robosim.errors import DatasetError

ActionKind = Literal["joint_position", "ee_delta", "other", "none"]
"""What a command means: absolute joint targets (rad, gripper 0 … 1); motions of the tool in one period (the gripper
absolute); something that the source doesn't say; or that there are no commands, only video."""

LABELS = ("state", "action", "environment_state", "reward", "success")
"""The columns that a dataset may have beside its video."""

CONTROL_HZ = 10
"""Control periods a second, everywhere in robosim."""

SUCCESS_FRAMES = 3
"""Consecutive frames for which the task distance must stay under the threshold to count as success."""


@dataclass(frozen=True)
class RobotSpec:
    """The joints that a command addresses; a gripper, if there is one, is last. None where there is only video.

    `lower`/`upper` are in the unit of each joint: `rad` for revolute joints, `fraction` (0 closed … 1 open) for
    a gripper; in imported data `unknown`, with the smallest and the largest command in it as limits.
    """

    name: str
    joint_names: tuple[str, ...]
    joint_units: tuple[str, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    model: str = ""
    """Path of the MJCF file of an arm of one's own; empty for those that robosim knows by name."""
    content: str = ""
    """Hash of that file and those that it names."""

    def __post_init__(self) -> None:
        sizes = {len(self.joint_names), len(self.joint_units), len(self.lower), len(self.upper)}
        if len(sizes) != 1:
            raise ValueError(f"robot {self.name!r}: joint names, units and limits differ in length: {sizes}")

    @property
    def num_joints(self) -> int:
        return len(self.joint_names)


@dataclass(frozen=True)
class TaskSpec:
    """One task: its sentence, how long it lasts, and which distance decides it.

    The task distance is ‖subject − goal‖ over `axes` (0, 1, 2 for x, y, z), where the subject is the tool's tip
    or the object's centre. Success: distance ≤ `success_distance` metres for `SUCCESS_FRAMES` frames. Imported data
    know no positions: their subject is "none", and nothing counts as success.
    """

    name: str
    instruction: str
    horizon: int
    success_distance: float
    subject: Literal["tool", "object", "none"]
    axes: tuple[int, ...] = (0, 1, 2)

    def distance(self, tool: np.ndarray, obj: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """Task distance in metres; every argument is [..., 3], the result [...]. Infinite without a subject."""
        if self.subject == "none":
            return np.full(goal.shape[:-1], np.inf)
        subject = tool if self.subject == "tool" else obj
        axes = list(self.axes)
        return np.linalg.norm(subject[..., axes] - goal[..., axes], axis=-1)


@dataclass(frozen=True)
class EnvSpec:
    """The contract that `PhysicsEnv` and `LearnedEnv` share."""

    robot: RobotSpec
    tasks: tuple[TaskSpec, ...]
    cameras: tuple[str, ...] = ("front",)
    size: int = 64
    fps: int = CONTROL_HZ
    action_kind: ActionKind = "joint_position"
    labels: tuple[str, ...] = LABELS
    """Which of `LABELS` the episodes have; a source may lack any."""
    state_names: tuple[str, ...] | None = None
    """What each number of a state is; None where they are the robot's joints."""

    def __post_init__(self) -> None:
        """Raise `DatasetError` for a camera or task that could lead a file elsewhere: their names become paths."""
        for what, names in (("camera", self.cameras), ("task", [task.name for task in self.tasks])):
            for name in names:
                if not re.fullmatch(r"[\w.-]+", name) or not name.strip("."):
                    raise DatasetError(
                        f"the {what} name {name!r} can't be a file's name; it may have letters, digits and _ . - only, "
                        "and not dots alone: rename it where it comes from"
                    )

    @property
    def state_columns(self) -> tuple[str, ...]:
        """Names of the S numbers of a state; none where there are no states."""
        names = self.robot.joint_names if self.state_names is None else self.state_names
        return names if "state" in self.labels else ()

    @property
    def action_columns(self) -> tuple[str, ...]:
        """Names of the numbers of a command; none where there are no commands."""
        return self.robot.joint_names if "action" in self.labels else ()

    def task(self, name: str) -> TaskSpec:
        for task in self.tasks:
            if task.name == name:
                return task
        raise ValueError(f"unknown task {name!r}; this dataset has {', '.join(t.name for t in self.tasks)}")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> EnvSpec:
        """Read what `to_json` wrote. Raises `DatasetError` naming the key that is missing or unknown."""
        try:
            robot = RobotSpec(**{k: _tupled(v) for k, v in data["robot"].items()})
            tasks = tuple(TaskSpec(**{k: _tupled(v) for k, v in task.items()}) for task in data["tasks"])
            rest = {k: _tupled(v) for k, v in data.items() if k not in ("robot", "tasks")}
            return cls(robot=robot, tasks=tasks, **rest)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DatasetError(
                f"the env spec is damaged: {error}; collect or import the dataset again"
            ) from error


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class SuccessRule:
    """Success = the task distance stays within the threshold for `SUCCESS_FRAMES` consecutive frames.

    One instance watches N rows; both simulators and the scripted collection use it, so that "success" means the
    same everywhere.
    """

    def __init__(self, threshold: float, num_envs: int) -> None:
        self.threshold = threshold
        self._streak = np.zeros(num_envs, dtype=np.int64)

    def reset(self, mask: np.ndarray) -> None:
        """Forget the streaks of the rows where `mask` (bool [N]) holds."""
        self._streak[mask] = 0

    def update(self, distance: np.ndarray) -> np.ndarray:
        """Take the distances [N] after a step; return bool [N], true where success holds now."""
        self._streak = np.where(distance <= self.threshold, self._streak + 1, 0)
        return self._streak >= SUCCESS_FRAMES
