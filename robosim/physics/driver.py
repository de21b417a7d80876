"""From where the tool should go to joint commands: the hand that experts and exploration share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robosim.physics.arms.robots import Robot
from robosim.physics.kinematics import InverseKinematics

TURN = 0.3
"""Radians that the tool turns in a control period, at most."""


@dataclass(frozen=True)
class Move:
    """Where the tool should go next.

    `target` [3] (metres, world); `speed` (metres a control period, at most); `opening` of the gripper (0…1); `yaw`
    (rad) about the vertical, from how the rest posture holds the tool.
    """

    target: np.ndarray
    speed: float
    opening: float = 0.0
    yaw: float = 0.0


@dataclass(frozen=True)
class Hand:
    """What is commanded now: the tool's `point` [3] (metres, world), `yaw` (rad) and `opening` (0…1)."""

    point: np.ndarray
    yaw: float
    opening: float


class ToolDriver:
    """Moves a commanded tool point through space and gives the joint command for it."""

    def __init__(
        self, robot: Robot, kinematics: InverseKinematics, joints: np.ndarray, opening: float = 0.0
    ) -> None:
        """`joints` [A], `opening`: how the arm stands now."""
        self._robot, self._kinematics = robot, kinematics
        self._joints = np.array(joints, dtype=np.float64)
        self.hand = Hand(kinematics.tool(self._joints), 0.0, opening)

    def towards(self, move: Move) -> np.ndarray:
        """Joint command [J] that goes on with `move` for one control period."""
        motion = move.target - self.hand.point
        motion *= min(1.0, move.speed / max(float(np.linalg.norm(motion)), 1e-9))
        point = np.clip(self.hand.point + motion, *self._robot.workspace.box)
        yaw = self.hand.yaw + float(np.clip(move.yaw - self.hand.yaw, -TURN, TURN))
        self._joints = self._kinematics.solve(point, yaw, self._joints)
        self.hand = Hand(point, yaw, move.opening)
        return self._robot.command(self._joints, move.opening)
