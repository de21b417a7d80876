"""What a task is: its things on the table, where episodes start, what counts as done, and who knows how to do it.

A new task is one file: subclass `Task`, and name it in `tasks/__init__.py` or hand it to `register_task`
(docs/tasks.md).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal, Protocol

import numpy as np

from robosim.physics.arms.robots import Robot
from robosim.physics.driver import Hand, Move
from robosim.physics.kinematics import InverseKinematics
from robosim.physics.scene import Layout, Props, Scene
from robosim.physics.simulation import Reading
from robosim.physics.variation import NO_VARIATION, Factors
from robosim.spec import TaskSpec


class ToolPolicy(Protocol):
    """Someone who moves the tool."""

    def __call__(self, reading: Reading, hand: Hand) -> Move:
        """What to do next, given what is true and what is commanded now."""
        ...


class Task(ABC):
    """One task on one arm, under the factors of one episode.

    Lengths are in units of the arm's workspace (metres for the Panda) wherever nothing else is said, so that a task
    fits arms of any size: multiply by `self.u`, or place with `self.at`.
    """

    name: ClassVar[str]
    instruction: ClassVar[str]
    """The task in a sentence, for policies that read."""
    horizon: ClassVar[int]
    """Control periods after which an episode is truncated."""
    success_distance: ClassVar[float]
    """Task distance (units) that counts as done."""
    subject: ClassVar[Literal["tool", "object"]] = "object"
    axes: ClassVar[tuple[int, ...]] = (0, 1, 2)
    """The task distance is ‖subject − goal‖ over these axes."""
    grasps: ClassVar[bool] = False
    """Whether the gripper is used; such a task needs an arm that has one."""

    def __init__(self, robot: Robot, factors: Factors = NO_VARIATION) -> None:
        self.robot, self.factors = robot, factors
        self.u = robot.workspace.scale
        self.at = robot.workspace.at

    @classmethod
    def supports(cls, robot: Robot) -> bool:
        """Whether this arm can do the task."""
        return robot.gripper is not None or not cls.grasps

    @classmethod
    def spec(cls, robot: Robot) -> TaskSpec:
        """The task as both simulators know it, in metres."""
        return TaskSpec(
            name=cls.name,
            instruction=cls.instruction,
            horizon=cls.horizon,
            success_distance=cls.success_distance * robot.workspace.scale,
            subject=cls.subject,
            axes=cls.axes,
        )

    @abstractmethod
    def props(self) -> Props:
        """The things on the table."""

    @abstractmethod
    def sample(self, rng: np.random.Generator, scene: Scene, kinematics: InverseKinematics) -> Layout:
        """Draw a start."""

    @abstractmethod
    def object(self, reading: Reading) -> np.ndarray:
        """The point [3] (metres, world) that stands for the thing; of a task without one, the goal."""

    @abstractmethod
    def goal(self, reading: Reading) -> np.ndarray:
        """Where the subject should be, [3] (metres, world)."""

    @abstractmethod
    def expert(self, rng: np.random.Generator) -> ToolPolicy:
        """A scripted policy that sees the true state."""

    def measures(self, reading: Reading) -> dict[str, float]:
        """Further figures of how well it is done, by name with the unit in it (`coverage`, `dent_m`)."""
        return {}

    def distance(self, reading: Reading) -> float:
        """The distance that decides the task, metres."""
        subject = reading.tool if self.subject == "tool" else self.object(reading)
        axes = list(self.axes)
        return float(np.linalg.norm((subject - self.goal(reading))[axes]))

    def above(self, place: np.ndarray, height: float) -> np.ndarray:
        """The point [3] (metres) that lies `height` units above the table, over (x, y) of `place`."""
        return np.array([place[0], place[1], height * self.u])

    def marker(self, radius: float = 0.055) -> str:
        """MJCF of a flat blue disc of `radius` units that marks a goal: the mocap body "marker"."""
        return (
            f'<body name="marker" mocap="true"><geom type="cylinder" size="{radius * self.u} {0.001 * self.u}" '
            'rgba=".05 .25 .95 1" contype="0" conaffinity="0" group="0"/></body>'
        )


def pushable(line: np.ndarray, lengths: tuple[float, float], least_cosine: float) -> bool:
    """Whether a thing may have to be pushed along `line` [2]: as long as `lengths` allow, and its cosine with the
    direction to the camera at least `least_cosine`. In pushes straight to the robot the arm hides the thing throughout,
    and no camera policy could see what it does."""
    length = float(np.linalg.norm(line))
    return lengths[0] <= length <= lengths[1] and float(line[0]) >= least_cosine * length


def draw_until[T](draw: Callable[[], T], accept: Callable[[T], bool]) -> T:
    """Rejection sampling."""
    while not accept(value := draw()):
        pass
    return value
