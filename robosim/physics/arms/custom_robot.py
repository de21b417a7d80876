"""An arm of one's own: an MJCF file, and a YAML of the same stem beside it that says what is what (docs/arms.md)."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from robosim.checkpoint import content_name
from robosim.config import build, unknown
from robosim.errors import ConfigError
from robosim.physics.arms.arm_keys import HIGH, ArmKeys, CameraKeys, ToolKeys
from robosim.physics.arms.arm_model import TOOL_SITE, adapt, servo_of
from robosim.physics.arms.robots import Adaptation, Robot, Workspace
from robosim.physics.engine import mujoco
from robosim.physics.kinematics import InverseKinematics
from robosim.physics.scene import Layout, Props, build_scene
from robosim.physics.simulation import Simulation
from robosim.spec import CONTROL_HZ, RobotSpec

GRIPPER_VELOCITY = 2.5
"""Openings a second."""

SCALES = (1.0, 0.85, 0.7, 0.6, 0.5, 0.42, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1)
"""Metres a unit that are tried, largest first, where the YAML has no workspace."""

LOW, LOW_WITH_GRIPPER = 0.03, 0.012
"""Units above the table that the tool is kept at least; a gripper has to get down to thin things."""

PULLS = (0.0, 0.15, 0.3)
"""Its centre is under the tool at home, or this share of the way from there to the base."""

CLEARANCE = 0.42
"""Units that the workspace's centre is away from the base at least, lest the things lie under the arm itself (Panda:
0.5, SO-101: 0.49)."""

TASK_REGION = (-0.14, -0.20, 0.02), (0.14, 0.20, 0.28)
"""Units (forward, left, height) between which tasks start and end."""

HELD = 0.05
"""rad that a joint may stay away from its command."""

NEAR = 0.002
"""Metres from a point at which it counts as reached."""


def load_robot(path: Path) -> Robot:
    """The arm whose MJCF file is `path`. Raises `ConfigError` that says what is wrong in which file."""
    path = path.expanduser().absolute()
    keys_file = path.with_suffix(".yaml")
    for file, what in (
        (path, "the MJCF file of an arm"),
        (keys_file, "the YAML that says what is what in it"),
    ):
        if not file.is_file():
            raise ConfigError(
                f"{file} is missing: it should be {what} (docs/arms.md); if it was moved, name its new path with robot="
            )
    return _load(path, keys_file, path.stat().st_mtime_ns, keys_file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _load(path: Path, keys_file: Path, *_changed: int) -> Robot:
    try:
        keys = build(ArmKeys, yaml.safe_load(keys_file.read_text()), "")
        robot, kinematics = _place(_describe(path, keys), keys)
        _check_held(robot, kinematics)
        return robot
    except (ConfigError, yaml.YAMLError) as error:
        raise ConfigError(f"{keys_file}: {error}") from error


def _describe(path: Path, keys: ArmKeys) -> Robot:
    """The arm without its workspace, every name and number of the YAML held against the model."""
    model = _compile(path, keys)
    lower, upper = _limits(model, keys)
    name = keys.name or path.stem
    has_gripper = keys.gripper is not None
    return Robot(
        spec=RobotSpec(
            name=name,
            joint_names=keys.joints + ("gripper",) * has_gripper,
            joint_units=("rad",) * len(keys.joints) + ("fraction",) * has_gripper,
            lower=lower + (0.0,) * has_gripper,
            upper=upper + (1.0,) * has_gripper,
            model=str(path),
            content=content_name(path).split()[-1],
        ),
        model_file=path,
        velocity=keys.velocities + (GRIPPER_VELOCITY,) * has_gripper,
        rest=keys.home,
        workspace=Workspace(centre=(0.0, 0.0)),
        gripper=keys.gripper,
        tool_site=_tool_site(keys),
        cameras=tuple(
            (n, camera.mjcf()) for n, camera in keys.cameras.items() if isinstance(camera, CameraKeys)
        ),
        base=(*keys.base.pos, keys.base.yaw),
        adaptation=_adaptation(keys),
    )


def _tool_site(keys: ArmKeys) -> str:
    return keys.tool if isinstance(keys.tool, str) else TOOL_SITE


def _adaptation(keys: ArmKeys) -> Adaptation:
    of_model = tuple((name, camera) for name, camera in keys.cameras.items() if isinstance(camera, str))
    point = (keys.tool.body, keys.tool.pos) if isinstance(keys.tool, ToolKeys) else None
    return Adaptation(cameras=of_model, tool=point, servo=keys.servo, gravcomp=keys.gravcomp)


def _compile(path: Path, keys: ArmKeys) -> Any:
    """The model as the scene will have it. Raises `ConfigError` for names that aren't in the file."""
    try:
        spec = mujoco.MjSpec.from_file(str(path))
        _check_names(spec, keys)
        adapt(spec, keys.joints, keys.gripper.joints if keys.gripper else (), _adaptation(keys))
        _check_name(
            "site of the arm as tool", _tool_site(keys), [site.name for site in spec.sites if site.name]
        )
        return spec.compile()
    except ValueError as error:
        raise ConfigError(f"MuJoCo can't use {path.name}: {' '.join(str(error).split())}") from error


def _check_names(spec: Any, keys: ArmKeys) -> None:
    joints = [joint.name for joint in spec.joints if joint.name]
    for name in keys.joints:
        _check_name("joint", name, joints)
    if isinstance(keys.tool, ToolKeys):
        _check_name("body in tool.body", keys.tool.body, [body.name for body in spec.bodies if body.name])
    elif not (sites := [site.name for site in spec.sites if site.name]):
        raise ConfigError(
            "the model has no sites; write tool: {body: NAME, pos: [x, y, z]} (a point in a body's frame)"
        )
    else:
        _check_name("site as tool", keys.tool, sites)
    for camera in keys.cameras.values():
        if isinstance(camera, str):
            _check_name("camera", camera, [c.name for c in spec.cameras if c.name])
    if keys.gripper is not None:
        for name in keys.gripper.joints:
            _check_name("joint in gripper.joints", name, joints)
        _check_name(
            "actuator in gripper.actuator", keys.gripper.actuator, [a.name for a in spec.actuators if a.name]
        )


def _check_name(kind: str, name: str, valid: list[str]) -> None:
    if name not in valid:
        raise ConfigError(unknown(kind, name, valid or ["none, the model names none"]))


def _limits(model: Any, keys: ArmKeys) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of the arm's joints (rad): what both joint and servo allow. Raises `ConfigError` for joints that can't be led."""
    bounds = []
    for name, home in zip(keys.joints, keys.home, strict=True):
        joint, servo = model.joint(name), servo_of(model, model.joint(name).id)
        if joint.type[0] != mujoco.mjtJoint.mjJNT_HINGE:
            raise ConfigError(f"joint {name!r} doesn't turn; the arm's joints should all be hinges")
        if not model.jnt_limited[joint.id]:
            raise ConfigError(f'joint {name!r} has no limits; give it range="LOW HIGH" in the model')
        if servo is None:
            raise ConfigError(
                f"joint {name!r} has no position servo; add to the YAML servo: {{kp: …}} (N·m/rad), "
                f'or to the model <position joint="{name}" kp="…"/>'
            )
        low, high = joint.range
        if model.actuator_ctrllimited[servo]:
            low, high = (
                max(low, model.actuator_ctrlrange[servo][0]),
                min(high, model.actuator_ctrlrange[servo][1]),
            )
        if not low <= home <= high:
            raise ConfigError(
                f"home of {name!r} is {home:g}, outside its limits {low:.4g} … {high:.4g} (rad)"
            )
        bounds.append((float(low), float(high)))
    lower, upper = zip(*bounds, strict=True)
    return lower, upper


def _place(robot: Robot, keys: ArmKeys) -> tuple[Robot, InverseKinematics]:
    """The arm with its workspace: the YAML's, or the largest one about home that the tool can be led through."""
    kinematics = InverseKinematics(robot)
    low = LOW_WITH_GRIPPER if keys.gripper else LOW
    if keys.workspace is not None:
        given = keys.workspace
        space = Workspace(given.centre, given.scale, low if given.low is None else given.low, given.high)
        if (share := _reached(kinematics, space)) < 0.5:
            raise ConfigError(
                f"the tool reaches {share:.0%} of the workspace's points; move workspace.centre or make "
                "workspace.scale smaller, or leave workspace out to have it found"
            )
        return replace(robot, workspace=space), kinematics
    tool = kinematics.tool(np.array(robot.rest))
    for scale in SCALES:
        for pull in PULLS:
            centre = (1 - pull) * tool[:2] + pull * kinematics.foot
            away = float(np.linalg.norm(centre - kinematics.foot))
            space = Workspace((round(float(centre[0]), 3), round(float(centre[1]), 3)), scale, low, HIGH)
            if away >= CLEARANCE * scale and _reached(kinematics, space) >= 0.95:
                return replace(robot, workspace=space), kinematics
    raise ConfigError(
        f"around home, where the tool is at {np.round(tool, 3).tolist()} (metres, world), it can't be led through a "
        f"region of even {SCALES[-1]:g} units; choose another home (the tool a hand's breadth above the table z = 0), "
        "another base, or give workspace"
    )


def _reached(kinematics: InverseKinematics, space: Workspace) -> float:
    """Share of the points between which tasks start and end that the tool comes to."""
    rng = np.random.default_rng(0)
    points = [space.at(*point) for point in rng.uniform(*TASK_REGION, (40, 3))]
    near = [np.linalg.norm(kinematics.tool(kinematics.solve(point)) - point) < NEAR for point in points]
    return float(np.mean(near))


def _check_held(robot: Robot, kinematics: InverseKinematics) -> None:
    """Raise `ConfigError` unless the arm stays where it is commanded: low over the workspace's centre, for a second."""
    scene = build_scene(robot, Props(worldbody=""))
    low = kinematics.solve(robot.workspace.at(0.0, 0.0, 0.05))
    simulation = Simulation(scene)
    simulation.reset(Layout(scene, low))
    for _ in range(CONTROL_HZ):
        simulation.step(robot.command(low, 0.0))
    off = np.abs(simulation.read().agent_pos[: len(low)] - low)
    if not off.max() < HELD:
        raise ConfigError(
            f"{robot.spec.joint_names[int(off.argmax())]!r} ends up {off.max():.2g} rad from where it is commanded "
            f"with the tool {0.05 * robot.workspace.scale:.3g} m above the table; if it sags, stiffen the servos "
            "(servo.kp, servo.force; or in the model) or set gravcomp: true; if the hand is lower than the tool and "
            "meets the table, set tool to the lowest tip"
        )
