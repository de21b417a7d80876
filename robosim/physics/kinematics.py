"""Inverse kinematics: where the joints must be for the tool to be at a point, held as in the arm's rest posture.

Damped least squares (Buss, "Introduction to Inverse Kinematics", 2004, eq. 11) in order of priority (Nakamura et al.
1987): the tool's position, then its direction with what motion that leaves, then a fixed rest posture. Where an arm
can't hold the direction, the tool tilts and stays in its place; and because every target is solved to the same
posture, the joints are a function of the tool's position and a single camera can tell them.
"""

from __future__ import annotations

import numpy as np

from robosim.physics.arms.robots import Robot
from robosim.physics.engine import mujoco
from robosim.physics.scene import Props, build_scene, rotation_about_z

DAMPING = 0.02
LEAST_MOTION = 0.01
"""Metres (or radians) a radian: a direction of motion that yields less counts as left over."""

POSTURE_GAIN = 0.8
CONVERGED = 1e-4
"""Radians below which a step is the last one: a tenth of a millimetre at the tool."""

LARGEST_STEP = 0.5
"""Radians that one iteration may move a joint."""


class InverseKinematics:
    """Solves for one arm, in a scene that holds nothing else; keeps scratch memory, so use one instance a thread."""

    def __init__(self, robot: Robot) -> None:
        self._scene = scene = build_scene(robot, Props(worldbody=""))
        self._data = mujoco.MjData(scene.model)
        self._rest = np.array(robot.rest)
        self._jacobian = np.zeros((6, scene.model.nv))
        count = robot.num_arm_joints
        margin = 1e-3
        self._lower = np.array(robot.spec.lower[:count]) + margin
        self._upper = np.array(robot.spec.upper[:count]) - margin
        self._forward(self._rest)
        self._held = self._data.site_xmat[scene.tool_site].reshape(3, 3).copy()

    def solve(
        self, position: np.ndarray, yaw: float = 0.0, start: np.ndarray | None = None, iterations: int = 4
    ) -> np.ndarray:
        """Joints [A] (rad) that bring the tool to `position` [3] (metres, world), turned by `yaw` (rad) about the
        vertical from how the rest posture holds it.

        `start` [A] warm-starts the search (default: the rest posture, with more iterations). The result respects
        the joint limits; a position out of reach gives the nearest posture found.
        """
        if start is None:
            joints, iterations = self._rest.copy(), 60
        else:
            joints = np.array(start, dtype=np.float64)
        held = rotation_about_z(yaw) @ self._held
        for _ in range(iterations):
            step = self._step(joints, position, held)
            joints = np.clip(joints + step, self._lower, self._upper)
            if np.abs(step).max() < CONVERGED:
                break
        return joints

    def tool(self, joints: np.ndarray) -> np.ndarray:
        """Tool position [3] (metres, world) at `joints` [A]."""
        self._forward(joints)
        return self._data.site_xpos[self._scene.tool_site].copy()

    @property
    def foot(self) -> np.ndarray:
        """Where the arm stands, [2] (metres, world): its first joint."""
        return self._data.xanchor[self._scene.model.dof_jntid[self._scene.arm_dof[0]]][:2].copy()

    def _forward(self, joints: np.ndarray) -> None:
        self._data.qpos[self._scene.arm_qpos] = joints
        mujoco.mj_kinematics(self._scene.model, self._data)
        mujoco.mj_comPos(self._scene.model, self._data)

    def _step(self, joints: np.ndarray, position: np.ndarray, held: np.ndarray) -> np.ndarray:
        self._forward(joints)
        site = self._scene.tool_site
        away = position - self._data.site_xpos[site]
        turned = rotation_vector(held @ self._data.site_xmat[site].reshape(3, 3).T)
        mujoco.mj_jacSite(self._scene.model, self._data, self._jacobian[:3], self._jacobian[3:], site)
        jacobian = self._jacobian[:, self._scene.arm_dof]
        posture = POSTURE_GAIN * (self._rest - joints)
        free = np.ones(len(joints), dtype=bool)
        while True:
            step = _by_priority(jacobian * free, (away, turned), posture * free)
            step *= min(1.0, LARGEST_STEP / max(np.abs(step).max(), 1e-12))
            # A joint at its limit that would go on stays there, and the others do its share.
            blocked = free & (((joints <= self._lower) & (step < 0)) | ((joints >= self._upper) & (step > 0)))
            if not blocked.any():
                return step
            free &= ~blocked


def _by_priority(jacobian: np.ndarray, errors: tuple[np.ndarray, ...], posture: np.ndarray) -> np.ndarray:
    """Joint step [A] that mends `errors` ([3] each, rows of `jacobian` in their order), the first one first."""
    step, left = np.zeros_like(posture), np.eye(len(posture))
    for error, rows in zip(errors, np.split(jacobian, len(errors)), strict=True):
        u, gain, motions = np.linalg.svd(rows @ left, full_matrices=False)
        step = step + motions.T @ (gain / (gain**2 + DAMPING**2) * (u.T @ (error - rows @ step)))
        used = motions[gain > LEAST_MOTION]
        left = left - used.T @ used
    return step + left @ posture


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
