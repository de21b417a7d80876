"""Reach: bring the tool's tip to a point just above the marker."""

from __future__ import annotations

import numpy as np

from robosim.physics.kinematics import InverseKinematics
from robosim.physics.simulation import Layout, Reading
from robosim.physics.tasks.base import (
    MARKER_LOWER,
    MARKER_UPPER,
    SOFT_LOWER,
    SOFT_UPPER,
    TOOL_START_LOWER,
    TOOL_START_UPPER,
    ToolPolicy,
    clear_of,
    draw_until,
)
from robosim.spec import TaskSpec

GOAL_HEIGHT = 0.05
START_DISTANCE = (0.10, 0.25)
MARKER_CLEARANCE = 0.16
"""Least distance between marker and soft body, so that the goal is free, metres."""


class Reach:
    spec = TaskSpec(
        name="reach",
        instruction="Move the tool to the blue marker.",
        horizon=30,
        success_distance=0.04,
        subject="tool",
    )

    def goal(self, marker: np.ndarray) -> np.ndarray:
        return np.array([marker[0], marker[1], GOAL_HEIGHT])

    def sample(self, rng: np.random.Generator, kinematics: InverseKinematics) -> Layout:
        marker = rng.uniform(MARKER_LOWER, MARKER_UPPER)
        goal = self.goal(marker)
        soft = draw_until(
            lambda: rng.uniform(SOFT_LOWER, SOFT_UPPER),
            lambda soft: float(np.linalg.norm(soft - marker)) > MARKER_CLEARANCE,
        )
        tool = draw_until(
            lambda: rng.uniform(TOOL_START_LOWER, TOOL_START_UPPER),
            lambda tool: (
                START_DISTANCE[0] <= float(np.linalg.norm(tool - goal)) <= START_DISTANCE[1]
                and clear_of(tool, soft)
            ),
        )
        return Layout(joints=kinematics.solve(tool), soft=soft, marker=marker)

    def expert(self, rng: np.random.Generator) -> ToolPolicy:
        """A straight line to the goal, slowing down over the last centimetres."""
        speed = float(rng.uniform(0.015, 0.03))

        def policy(reading: Reading, point: np.ndarray) -> tuple[np.ndarray, float]:
            goal = self.goal(reading.marker)
            return goal, min(speed, 0.5 * float(np.linalg.norm(goal - point)))

        return policy
