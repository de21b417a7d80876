"""A task's scene, compiled: the table, the task's things, an arm; and where in the state its parts lie.

Contact bits: 2 arm, 4 things, 8 the table's top, which is a plane: cheaper for a soft body than a box, and nothing
can fall off it. Things collide with arm and table, not with each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robosim.physics.arms.arm_model import load_arm, servo_of
from robosim.physics.arms.robots import Robot, Workspace
from robosim.physics.engine import mujoco
from robosim.physics.variation import NO_VARIATION, Factors

ARM_PREFIX = "arm/"

THING_CONTACT = 'contype="4" conaffinity="10"'
"""Contact bits of a thing, for the geom or flex of a task's MJCF."""


@dataclass(frozen=True)
class Props:
    """What a task adds to the table, as MJCF.

    `worldbody`: its things and markers: bodies with a free joint, flexcomps, and mocap bodies. `top`: elements beside
    the world body (`<equality>`, `<asset>`). `cone` and `impratio`: elliptic friction cones where a grasp by friction
    must hold. `sticky`: the flex that closed fingers hold by its vertices instead (a cloth), see `Simulation`.
    """

    worldbody: str
    top: str = ""
    cone: str = "pyramidal"
    impratio: float = 1.0
    sticky: str | None = None


@dataclass(frozen=True)
class Body:
    """A thing of the scene.

    A rigid one has a free joint at `qpos` [7] (position, quaternion wxyz) and `rest` [1,3], its place in the file; of
    a soft one `qpos` [K,3] are the displacements of its control points from `rest` [K,3], and `vertices` is the range
    of its vertices among the scene's.
    """

    qpos: np.ndarray
    rest: np.ndarray
    vertices: slice | None = None


@dataclass(frozen=True)
class Scene:
    """A compiled model and the addresses that the simulator reads and writes.

    `model` is a `mujoco.MjModel`. `arm_qpos`, `arm_dof` [A]: the arm's joints; `gripper_qpos` [G]; `actuators` [J],
    gripper last; `markers`: mocap index by name; `grasps`: [V] the equality that holds each vertex of the sticky flex.
    """

    robot: Robot
    model: Any
    tool_site: int
    arm_qpos: np.ndarray
    arm_dof: np.ndarray
    gripper_qpos: np.ndarray
    actuators: np.ndarray
    bodies: Mapping[str, Body]
    markers: Mapping[str, int]
    cameras: tuple[str, ...]
    sticky: str | None = None
    grasps: np.ndarray | None = None


class Layout:
    """Where an episode starts: every position of the scene, at first as the file has it, arm at `joints` [A]."""

    def __init__(self, scene: Scene, joints: np.ndarray, opening: float = 0.0) -> None:
        """`opening`: of the gripper, 0…1."""
        self.scene, self.opening = scene, opening
        self.joints = np.array(joints, dtype=np.float64)
        self.qpos = scene.model.qpos0.copy()
        self.qpos[scene.arm_qpos] = self.joints
        if (gripper := scene.robot.gripper) is not None:
            self.qpos[scene.gripper_qpos] = gripper.closed + opening * (gripper.open - gripper.closed)
        fixed = [scene.model.body(name).id for name in scene.markers]
        self.mocap = np.hstack([scene.model.body_pos[fixed], scene.model.body_quat[fixed]]).reshape(-1, 7)

    def put(self, name: str, at: np.ndarray, yaw: float = 0.0) -> None:
        """Put the thing `name` at (x, y) of `at` (metres), turned by `yaw` (rad) about the vertical."""
        body = self.scene.bodies[name]
        middle = (body.rest.min(axis=0) + body.rest.max(axis=0)) / 2
        place = np.array([at[0], at[1], middle[2]])
        if body.vertices is None:
            self.qpos[body.qpos] = [*place, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
        else:
            self.shape(name, (body.rest - middle) @ rotation_about_z(yaw).T + place)

    def shape(self, name: str, points: np.ndarray) -> None:
        """Put the control points of the soft thing `name` at `points` [K,3] (metres, world)."""
        body = self.scene.bodies[name]
        self.qpos[body.qpos] = points - body.rest

    def points(self, name: str) -> np.ndarray:
        """Where the control points [K,3] (metres, world) of the soft thing `name` are put."""
        body = self.scene.bodies[name]
        return body.rest + self.qpos[body.qpos]

    def mark(self, name: str, at: np.ndarray, yaw: float = 0.0) -> None:
        """Put the marker `name` at (x, y) of `at`, and at its height too if `at` has three numbers."""
        row = self.mocap[self.scene.markers[name]]
        row[: len(at)] = at
        row[3:] = [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]


def rotation_about_z(yaw: float) -> np.ndarray:
    """Rotation matrix [3,3] about the vertical by `yaw` (rad)."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def build_scene(robot: Robot, props: Props, factors: Factors = NO_VARIATION) -> Scene:
    """Compile the scene with `robot` standing at its base."""
    spec = mujoco.MjSpec.from_string(scene_mjcf(robot, props, factors))
    spec.attach(load_arm(robot), site=spec.site("robot"), prefix=ARM_PREFIX)
    for camera in spec.cameras:
        camera.name = camera.name.removeprefix(ARM_PREFIX)
    if props.sticky:
        _add_grasps(spec, robot, props.sticky)
    model = spec.compile()
    if factors.camera:
        _move_cameras(model, robot.workspace, factors)
    arm_joints = [model.joint(ARM_PREFIX + name) for name in robot.spec.joint_names[: robot.num_arm_joints]]
    fingers = [model.joint(ARM_PREFIX + name) for name in robot.gripper.joints] if robot.gripper else []
    tool_site = model.site(ARM_PREFIX + robot.tool_site).id
    return Scene(
        robot=robot,
        model=model,
        tool_site=tool_site,
        arm_qpos=np.array([joint.qposadr[0] for joint in arm_joints]),
        arm_dof=np.array([joint.dofadr[0] for joint in arm_joints]),
        gripper_qpos=np.array([joint.qposadr[0] for joint in fingers], dtype=np.int64),
        actuators=_actuators(model, robot),
        bodies=_rigid_bodies(model) | _soft_bodies(model),
        markers={model.body(b).name: int(i) for b, i in enumerate(model.body_mocapid) if i >= 0},
        cameras=tuple(model.camera(i).name for i in range(model.ncam)),
        sticky=props.sticky,
        grasps=_grasps(model, props.sticky, tool_site) if props.sticky else None,
    )


def scene_mjcf(robot: Robot, props: Props, factors: Factors = NO_VARIATION) -> str:
    """MJCF of the table with a task's props; sizes and cameras follow the arm's workspace."""
    space, u = robot.workspace, robot.workspace.scale
    low, high = space.at(-0.7, -0.6), space.at(0.3, 0.6)
    middle, half = (low + high) / 2, (high - low) / 2
    wood = 0.52 + np.array([-0.02, 0.02]) * (1.0 + factors.texture)
    tint = 0.06 * factors.texture
    dark, bright = (" ".join(f"{v:.3f}" for v in (w, w - tint / 3, w - tint)) for w in wood)
    front = space.at(0.48, 0.0, 0.76)
    lamp = 0.55 * factors.light
    cameras = "".join(f'<camera name="{name}" {attributes}/>' for name, attributes in robot.cameras)
    if "front" not in robot.own_cameras:
        cameras = (
            f'<camera name="front" pos="{_text(front)}" xyaxes="0 1 0 -.788 0 .616" fovy="40"/>' + cameras
        )
    return f"""
<mujoco model="table">
  <compiler angle="radian" autolimits="true"/>
  <option timestep=".004" integrator="discrete" solver="Newton" iterations="50" tolerance="1e-6"
          cone="{props.cone}" impratio="{props.impratio}"/>
  <size memory="16M"/>
  <visual>
    <headlight ambient=".38 .38 .38" diffuse=".35 .35 .35" specular=".1 .1 .1"/>
    <map znear=".005" zfar="10"/>
  </visual>
  <statistic extent="{u}" center="{_text(space.at(0, 0))}"/>
  <asset>
    <texture name="wood" type="2d" builtin="checker" rgb1="{dark}" rgb2="{bright}" width="64" height="64"/>
    <material name="table" texture="wood" texrepeat="3 3" specular="0" shininess="0"/>
    <texture type="skybox" builtin="gradient" rgb1=".62 .70 .78" rgb2=".42 .48 .55" width="64" height="64"/>
  </asset>
  <worldbody>
    <light type="directional" pos="{_text(space.at(0.1, -0.8, 2.0))}" dir="-.25 .35 -1"
           diffuse="{lamp} {lamp} {lamp}" castshadow="true"/>
    {cameras}
    <geom name="table" type="box" pos="{middle[0]} {middle[1]} {-0.02 * u}" size="{half[0]} {half[1]} {0.02 * u}"
          material="table" contype="0" conaffinity="0" group="0"/>
    <geom name="top" type="plane" size="1 1 .1" contype="8" conaffinity="6" friction=".6 .005 .0001"
          rgba="0 0 0 0" group="4"/>
    <site name="robot" pos="{_text(np.array(robot.base[:3]))}" euler="0 0 {robot.base[3]}" group="4"/>
    {props.worldbody}
  </worldbody>
  {props.top}
</mujoco>"""


def _move_cameras(model: Any, space: Workspace, factors: Factors) -> None:
    """Shift every camera that stands still, and turn it to the spot on the table that it looked at."""
    way = np.array([np.cos(factors.camera_azimuth), np.sin(factors.camera_azimuth), 0.5])
    for camera in np.flatnonzero(model.cam_bodyid == 0):
        rotation = np.empty(9)
        mujoco.mju_quat2Mat(rotation, model.cam_quat[camera])
        _, up, back = rotation.reshape(3, 3).T
        place = model.cam_pos[camera].copy()
        spot = place - back * (place[2] / back[2] if back[2] > 0.1 else space.scale)
        place += space.scale * factors.camera * way
        back = (place - spot) / np.linalg.norm(place - spot)
        right = np.cross(up, back)
        right /= np.linalg.norm(right)
        model.cam_pos[camera] = place
        mujoco.mju_mat2Quat(model.cam_quat[camera], np.stack([right, np.cross(back, right), back], 1).ravel())


def _actuators(model: Any, robot: Robot) -> np.ndarray:
    joints = [model.joint(ARM_PREFIX + name).id for name in robot.spec.joint_names[: robot.num_arm_joints]]
    servos = [servo_of(model, joint) for joint in joints]
    if robot.gripper:
        servos.append(model.actuator(ARM_PREFIX + robot.gripper.actuator).id)
    return np.array(servos)


def _rigid_bodies(model: Any) -> dict[str, Body]:
    bodies = {}
    for joint in np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE):
        body, address = int(model.jnt_bodyid[joint]), int(model.jnt_qposadr[joint])
        bodies[model.body(body).name] = Body(np.arange(address, address + 7), model.body_pos[[body]].copy())
    return bodies


def _soft_bodies(model: Any) -> dict[str, Body]:
    bodies = {}
    for flex in range(model.nflex):
        node, nodes = int(model.flex_nodeadr[flex]), int(model.flex_nodenum[flex])
        vertices = _vertices(model, flex)
        controls = model.flex_nodebodyid[node : node + nodes] if nodes else model.flex_vertbodyid[vertices]
        first = model.jnt_qposadr[model.body_jntadr[controls]]
        bodies[mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_FLEX, flex)] = Body(
            qpos=first[:, None] + np.arange(3),
            rest=model.body_pos[controls].copy(),
            vertices=vertices,
        )
    return bodies


def _add_grasps(spec: Any, robot: Robot, flex: str) -> None:
    """One inactive equality a vertex, that would hold it at the tool's tip."""
    hand = spec.site(ARM_PREFIX + robot.tool_site).parent.name
    for body in [body.name for body in spec.bodies if body.name.startswith(f"{flex}_")]:
        spec.add_equality(
            name=f"grasp_{body}",
            type=mujoco.mjtEq.mjEQ_CONNECT,
            objtype=mujoco.mjtObj.mjOBJ_BODY,
            name1=hand,
            name2=body,
            active=False,
            solref=[0.01, 1.0],
            solimp=[0.9, 0.95, 0.001, 0.5, 2.0],
        )


def _grasps(model: Any, flex: str, tool_site: int) -> np.ndarray:
    """The equality of each vertex, its anchors at the tool's tip and in the vertex."""
    bodies = model.flex_vertbodyid[_vertices(model, mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_FLEX, flex))]
    grasps = np.array([model.equality(f"grasp_{model.body(body).name}").id for body in bodies])
    model.eq_data[grasps, 0:3] = model.site_pos[tool_site]
    model.eq_data[grasps, 3:6] = 0.0
    return grasps


def _vertices(model: Any, flex: int) -> slice:
    first = int(model.flex_vertadr[flex])
    return slice(first, first + int(model.flex_vertnum[flex]))


def _text(values: np.ndarray) -> str:
    return " ".join(f"{value:.5g}" for value in values)
