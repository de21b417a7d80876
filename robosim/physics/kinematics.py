"""Inverse kinematics: where the joints must be for the tool to be at a point, pointing down.

Damped least squares (Buss, "Introduction to Inverse Kinematics", 2004, eq. 11) with the redundant motion drawn to a
fixed rest posture (Liégeois 1977): dq = J⁺ e + (1 − J⁺ J) k (q_rest − q), J⁺ = Jᵀ (J Jᵀ + λ²)⁻¹. Because every
target is solved to the same posture, the joints are a function of the tool's position and a single camera can tell
them.
"""

from __future__ import annotations

import numpy as np

from robosim.physics.engine import mujoco
from robosim.physics.scene import Scene

DAMPING = 0.02
POSTURE_GAIN = 0.5
LARGEST_STEP = 0.5
"""Radians that one iteration may move a joint."""

POINTING_DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
"""Orientation of the tool in the world: its z axis down, its fingers opening along the world's x, so that the camera
in front sees the hand from its narrow side."""


class InverseKinematics:
    """Solves for one scene's arm; keeps scratch memory, so use one instance a thread."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._data = mujoco.MjData(scene.model)
        self._rest = np.array(scene.robot.rest)
        self._jacobian = np.zeros((6, scene.model.nv))
        count = scene.robot.num_arm_joints
        margin = 1e-3
        self._lower = np.array(scene.robot.spec.lower[:count]) + margin
        self._upper = np.array(scene.robot.spec.upper[:count]) - margin

    def solve(self, position: np.ndarray, start: np.ndarray | None = None, iterations: int = 8) -> np.ndarray:
        """Joints [A] (rad) that bring the tool to `position` [3] (metres, world), pointing down.

        `start` [A] warm-starts the search (default: the rest posture, with more iterations). The result respects
        the joint limits; a position out of reach gives the nearest posture found.
        """
        if start is None:
            joints, iterations = self._rest.copy(), 60
        else:
            joints = np.array(start, dtype=np.float64)
        for _ in range(iterations):
            step = self._step(joints, position)
            joints = np.clip(joints + step, self._lower, self._upper)
            if np.abs(step).max() < 1e-5:
                break
        return joints

    def tool(self, joints: np.ndarray) -> np.ndarray:
        """Tool position [3] (metres, world) at `joints` [A]."""
        self._forward(joints)
        return self._data.site_xpos[self._scene.tool_site].copy()

    def _forward(self, joints: np.ndarray) -> None:
        self._data.qpos[self._scene.arm_qpos] = joints
        mujoco.mj_kinematics(self._scene.model, self._data)
        mujoco.mj_comPos(self._scene.model, self._data)

    def _step(self, joints: np.ndarray, position: np.ndarray) -> np.ndarray:
        self._forward(joints)
        site, dofs = self._scene.tool_site, self._scene.arm_dof
        error = np.concatenate(
            [
                position - self._data.site_xpos[site],
                rotation_vector(POINTING_DOWN @ self._data.site_xmat[site].reshape(3, 3).T),
            ]
        )
        mujoco.mj_jacSite(self._scene.model, self._data, self._jacobian[:3], self._jacobian[3:], site)
        jacobian = self._jacobian[:, dofs]
        inverse = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + DAMPING**2 * np.eye(6))
        posture = POSTURE_GAIN * (self._rest - joints)
        step = inverse @ error + posture - inverse @ (jacobian @ posture)
        return step * min(1.0, LARGEST_STEP / max(np.abs(step).max(), 1e-12))


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """Axis times angle [3] (rad) of a rotation matrix [3, 3]."""
    axis = np.array(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    length = np.linalg.norm(axis)
    if length < 1e-12:
        return np.zeros(3)
    angle = np.arctan2(length, np.trace(rotation) - 1.0)
    return axis / length * angle
