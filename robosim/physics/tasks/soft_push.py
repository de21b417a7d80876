"""Soft push: push the soft body until its centre lies over the marker."""

from __future__ import annotations

import numpy as np

from robosim.physics.kinematics import InverseKinematics
from robosim.physics.scene import SOFT_HALF_HEIGHT, SOFT_HALF_WIDTH
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

START_DISTANCE = (0.06, 0.14)
AWAY_FROM_CAMERA = -0.5
"""Least cosine between the push and the direction to the camera: in pushes towards the robot the arm would hide the
body throughout, and no camera policy could see what it does."""

PUSH_HEIGHT = 0.037
"""Tip height for pushing: low on the body, the hand still above it, metres."""

TRAVEL_HEIGHT = 0.13
STANDOFF = 1.25 * SOFT_HALF_WIDTH + 0.035
"""Distance of the tip behind the body's centre before it descends, metres."""


class SoftPush:
    spec = TaskSpec(
        name="soft_push",
        instruction="Push the soft red block onto the blue marker.",
        horizon=45,
        success_distance=0.04,
        subject="object",
        axes=(0, 1),
    )

    def goal(self, marker: np.ndarray) -> np.ndarray:
        return np.array([marker[0], marker[1], SOFT_HALF_HEIGHT])

    def sample(self, rng: np.random.Generator, kinematics: InverseKinematics) -> Layout:
        soft, marker = draw_until(
            lambda: (rng.uniform(SOFT_LOWER, SOFT_UPPER), rng.uniform(MARKER_LOWER, MARKER_UPPER)),
            lambda pair: _pushable(*pair),
        )
        tool = draw_until(
            lambda: rng.uniform(TOOL_START_LOWER, TOOL_START_UPPER), lambda tool: clear_of(tool, soft)
        )
        return Layout(joints=kinematics.solve(tool), soft=soft, marker=marker)

    def expert(self, rng: np.random.Generator) -> ToolPolicy:
        """Over the body to its far side, down, and along the line to the goal.

        Each period the line is drawn anew from the body to the goal, and the tip steers to the body's far side as
        it pushes, so that a body that slips sideways is brought back.
        """
        speed = float(rng.uniform(0.025, 0.04))
        push_speed = float(rng.uniform(0.013, 0.024))

        def policy(reading: Reading, point: np.ndarray) -> tuple[np.ndarray, float]:
            body, goal = reading.object[:2], self.goal(reading.marker)[:2]
            remaining = float(np.linalg.norm(goal - body))
            line = (goal - body) / max(remaining, 1e-6)
            offset = point[:2] - body
            along = float(offset @ line)
            aside = offset - along * line
            behind = body - STANDOFF * line
            if remaining < 0.012:
                return point, 0.0
            lined_up = along < -0.6 * SOFT_HALF_WIDTH and float(np.linalg.norm(aside)) < 0.03
            if lined_up and point[2] < PUSH_HEIGHT + 0.01:
                steer = point[:2] + push_speed * line - 0.5 * aside
                return np.append(steer, PUSH_HEIGHT), push_speed
            if float(np.linalg.norm(point[:2] - behind)) < 0.02:
                return np.append(behind, PUSH_HEIGHT), speed
            if point[2] < TRAVEL_HEIGHT - 0.02:
                return np.append(point[:2], TRAVEL_HEIGHT), speed
            return np.append(behind, TRAVEL_HEIGHT), speed

        return policy


def _pushable(soft: np.ndarray, marker: np.ndarray) -> bool:
    line = marker - soft
    distance = float(np.linalg.norm(line))
    return START_DISTANCE[0] <= distance <= START_DISTANCE[1] and line[0] >= AWAY_FROM_CAMERA * distance
