"""From where the tool should go to joint commands: the hand that experts and exploration share."""

from __future__ import annotations

import numpy as np

from robosim.physics.kinematics import InverseKinematics

TOOL_LOWER = np.array([0.30, -0.30, 0.03])
TOOL_UPPER = np.array([0.72, 0.30, 0.34])
"""Box (metres, world) that the tool is kept in."""


class ToolDriver:
    """Moves a commanded tool point through space and gives the joint command for it."""

    def __init__(self, kinematics: InverseKinematics, joints: np.ndarray) -> None:
        """`joints` [A]: where the arm stands now."""
        self._kinematics = kinematics
        self._joints = np.array(joints, dtype=np.float64)
        self.point = kinematics.tool(self._joints)

    def towards(self, target: np.ndarray, speed: float) -> np.ndarray:
        """Joint command [J], gripper closed, that moves the tool at most `speed` metres towards `target` [3]."""
        motion = target - self.point
        motion *= min(1.0, speed / max(float(np.linalg.norm(motion)), 1e-9))
        self.point = np.clip(self.point + motion, TOOL_LOWER, TOOL_UPPER)
        self._joints = self._kinematics.solve(self.point, self._joints)
        return np.append(self._joints, 0.0)
