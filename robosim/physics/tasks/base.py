"""What a task is: where episodes start, where the goal lies, and who knows how to solve it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from robosim.physics.kinematics import InverseKinematics
from robosim.physics.scene import SOFT_HALF_HEIGHT, SOFT_HALF_WIDTH
from robosim.physics.simulation import Layout, Reading
from robosim.spec import TaskSpec

SOFT_LOWER, SOFT_UPPER = np.array([0.40, -0.16]), np.array([0.60, 0.16])
MARKER_LOWER, MARKER_UPPER = np.array([0.38, -0.20]), np.array([0.62, 0.20])
TOOL_START_LOWER, TOOL_START_UPPER = np.array([0.36, -0.20, 0.08]), np.array([0.62, 0.20, 0.28])
"""Boxes (metres, world) in which an episode may start."""


class ToolPolicy(Protocol):
    """Someone who moves the tool."""

    def __call__(self, reading: Reading, point: np.ndarray) -> tuple[np.ndarray, float]:
        """Given what is true now and the commanded tool point [3]: the next target [3] and the speed towards it
        (metres a control period)."""
        ...


class Task(Protocol):
    """One task of the scene."""

    spec: TaskSpec

    def goal(self, marker: np.ndarray) -> np.ndarray:
        """The goal point [3] for a marker at `marker` [3], metres."""
        ...

    def sample(self, rng: np.random.Generator, kinematics: InverseKinematics) -> Layout:
        """Draw a start."""
        ...

    def expert(self, rng: np.random.Generator) -> ToolPolicy:
        """A scripted policy that sees the true state."""
        ...


def draw_until[T](draw: Callable[[], T], accept: Callable[[T], bool]) -> T:
    """Rejection sampling."""
    while not accept(value := draw()):
        pass
    return value


def clear_of(tool: np.ndarray, soft: np.ndarray) -> bool:
    """Whether fingers whose tip is at `tool` [3] don't touch a soft body that rests at `soft` [2]."""
    margin = 0.03
    above = float(tool[2]) > 2 * SOFT_HALF_HEIGHT + margin
    return above or float(np.linalg.norm(tool[:2] - soft)) > np.sqrt(2) * SOFT_HALF_WIDTH + margin
