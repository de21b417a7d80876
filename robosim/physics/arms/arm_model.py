"""An arm's MJCF, made ready for the scene: the models that come with robosim as they are, others adapted.

A model from elsewhere brings more than the arm: a floor, lamps, things to grasp, key frames. Of it stay the bodies
that carry the arm's joints, and the cameras that were asked for; contacts get the scene's bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from robosim.physics.arms.robots import Adaptation, Robot, Servo
from robosim.physics.engine import mujoco

TOOL_SITE = "robosim_tool"
"""The site that is added where the tool is given as a point in a body."""

VISUAL = ("headlight", "map", "quality", "rgba", "scale")


def load_arm(robot: Robot) -> Any:
    """The arm's `MjSpec`. Raises `ValueError` for a file that MuJoCo can't read."""
    spec = mujoco.MjSpec.from_file(str(robot.model_file))
    if robot.adaptation is not None:
        fingers = robot.gripper.joints if robot.gripper else ()
        adapt(spec, robot.spec.joint_names[: robot.num_arm_joints], fingers, robot.adaptation)
    return spec


def servo_of(model: Any, joint: int) -> int | None:
    """The actuator that drives joint number `joint` of a compiled model to a commanded angle, None if none does."""
    drives = (model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT) & (model.actuator_trnid[:, 0] == joint)
    to_angle = (model.actuator_biasprm[:, 1] < 0) & (model.actuator_gear[:, 0] == 1)
    found = np.flatnonzero(drives & to_angle)
    return int(found[0]) if len(found) else None


def adapt(spec: Any, joints: tuple[str, ...], fingers: tuple[str, ...], adaptation: Adaptation) -> None:
    """Reduce the `MjSpec` to the arm with these joints, and fit it to the scene."""
    wanted = {of_model: name for name, of_model in adaptation.cameras}
    for camera in list(spec.cameras):
        if camera.name in wanted:
            camera.name = wanted[camera.name]
        else:
            spec.delete(camera)
    _forget_options(spec)
    for element in [*spec.lights, *spec.keys, *spec.sensors, *spec.pairs, *spec.worldbody.geoms]:
        spec.delete(element)
    for texture in list(spec.textures):
        if texture.type == mujoco.mjtTexture.mjTEXTURE_SKYBOX:
            spec.delete(texture)
    if adaptation.tool is not None:
        body, pos = adaptation.tool
        spec.body(body).add_site(name=TOOL_SITE, pos=pos, group=4)
    _drop(spec, [body for body in spec.worldbody.bodies if not _carries(body, joints + fingers)])
    for geom in spec.geoms:
        if geom.contype or geom.conaffinity:
            geom.contype, geom.conaffinity = 2, 12
    if adaptation.gravcomp:
        for body in spec.bodies[1:]:
            body.gravcomp = 1.0
    if adaptation.servo is not None:
        _add_servos(spec, joints, adaptation.servo)


def _forget_options(spec: Any) -> None:
    """Physics and visual settings are the scene's; MuJoCo warns at every attachment where a model has its own."""
    new = mujoco.MjSpec()
    for mine, fresh in (
        (spec.option, new.option),
        *((getattr(spec.visual, n), getattr(new.visual, n)) for n in VISUAL),
    ):
        for name in dir(fresh):
            if not name.startswith("_"):
                setattr(mine, name, getattr(fresh, name))
    for name in (
        "disableactuator",
        "disableflags",
        "enableflags",
        "option",
        *(f"visual_{n}" for n in VISUAL),
    ):
        setattr(spec.authored, name, 0)


def _carries(body: Any, joints: tuple[str, ...]) -> bool:
    return any(joint.name in joints for joint in body.find_all(mujoco.mjtObj.mjOBJ_JOINT))


def _drop(spec: Any, bodies: list[Any]) -> None:
    """Delete bodies, and before them what refers to them, by whatever kind of name."""
    names = set[str]()
    for body in bodies:
        kinds = (mujoco.mjtObj.mjOBJ_BODY, mujoco.mjtObj.mjOBJ_JOINT, mujoco.mjtObj.mjOBJ_SITE)
        names |= {body.name} | {part.name for kind in kinds for part in body.find_all(kind)}
    names.discard("")
    for actuator in list(spec.actuators):
        if actuator.target in names:
            spec.delete(actuator)
    for equality in list(spec.equalities):
        if {equality.name1, equality.name2} & names:
            spec.delete(equality)
    for exclude in list(spec.excludes):
        if {exclude.bodyname1, exclude.bodyname2} & names:
            spec.delete(exclude)
    for body in bodies:
        spec.delete(body)


def _add_servos(spec: Any, joints: tuple[str, ...], servo: Servo) -> None:
    """A position servo in place of what else drives a joint."""
    for joint in joints:
        drives = [a for a in spec.actuators if a.trntype == mujoco.mjtTrn.mjTRN_JOINT and a.target == joint]
        if any(actuator.biasprm[1] < 0 for actuator in drives):
            continue
        for actuator in drives:
            spec.delete(actuator)
        added = spec.add_actuator(name=f"servo_{joint}", trntype=mujoco.mjtTrn.mjTRN_JOINT, target=joint)
        if servo.kv is None:
            added.set_to_position(kp=servo.kp, dampratio=servo.dampratio)
        else:
            added.set_to_position(kp=servo.kp, kv=servo.kv)
        if servo.force is not None:
            added.forcelimited, added.forcerange = True, [-servo.force, servo.force]
