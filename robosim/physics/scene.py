"""The one scene of both tasks, compiled: a table, a soft body, a marker, an arm; and where its parts lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from robosim.physics.engine import mujoco
from robosim.physics.robots import MODELS, Robot

ARM_PREFIX = "arm/"

SOFT_HALF_HEIGHT = 0.034
"""Height of the resting soft body's centre above the table, metres."""

SOFT_HALF_WIDTH = 0.044
"""Half the resting soft body's width along x and y, metres."""


@dataclass(frozen=True)
class Scene:
    """A compiled model and the addresses that the simulator reads and writes.

    `model` is a `mujoco.MjModel`. `arm_qpos`, `arm_dof` [A]: the arm's revolute joints; `finger_qpos` [2];
    `soft_qpos` [K, 3]: the soft body's control points, as displacements from where the file puts them;
    `actuators` [J], gripper last.
    """

    robot: Robot
    model: Any
    tool_site: int
    arm_qpos: np.ndarray
    arm_dof: np.ndarray
    finger_qpos: np.ndarray
    soft_qpos: np.ndarray
    actuators: np.ndarray
    cameras: tuple[str, ...]


def build_scene(robot: Robot) -> Scene:
    """Compile the scene with `robot` standing at the origin, facing +x."""
    spec = mujoco.MjSpec.from_file(str(MODELS / "soft_table.xml"))
    arm = mujoco.MjSpec.from_file(str(robot.model_file))
    spec.attach(arm, site=spec.site("robot"), prefix=ARM_PREFIX)
    model = spec.compile()
    arm_joints = [model.joint(f"{ARM_PREFIX}{name}") for name in robot.spec.joint_names[:-1]]
    fingers = [model.joint(f"{ARM_PREFIX}finger_{side}") for side in ("left", "right")]
    arm_qpos = np.array([joint.qposadr[0] for joint in arm_joints])
    finger_qpos = np.array([joint.qposadr[0] for joint in fingers])
    return Scene(
        robot=robot,
        model=model,
        tool_site=model.site(f"{ARM_PREFIX}tool").id,
        arm_qpos=arm_qpos,
        arm_dof=np.array([joint.dofadr[0] for joint in arm_joints]),
        finger_qpos=finger_qpos,
        soft_qpos=np.setdiff1d(np.arange(model.nq), np.concatenate([arm_qpos, finger_qpos])).reshape(-1, 3),
        actuators=np.array([model.actuator(f"{ARM_PREFIX}{name}").id for name in robot.spec.joint_names]),
        cameras=tuple(model.camera(i).name for i in range(model.ncam)),
    )
