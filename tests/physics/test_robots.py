"""The two arms that come with robosim: published numbers, servos that hold, grippers that grip."""

from __future__ import annotations

import numpy as np
import pytest

from robosim.errors import ConfigError
from robosim.physics.arms.catalogue import PANDA, SO101, get_robot
from robosim.physics.arms.robots import Robot
from robosim.physics.driver import Move, ToolDriver
from robosim.physics.engine import mujoco
from robosim.physics.kinematics import InverseKinematics
from robosim.physics.recording import Recorder
from robosim.physics.scene import THING_CONTACT, Layout, Props, Scene, build_scene
from robosim.physics.simulation import Simulation

ARMS = [pytest.param(PANDA, id="panda"), pytest.param(SO101, id="so101")]


@pytest.fixture(scope="module")
def scenes() -> dict[str, Scene]:
    return {robot.spec.name: build_scene(robot, Props("")) for robot in (PANDA, SO101)}


@pytest.fixture(scope="module")
def solvers() -> dict[str, InverseKinematics]:
    return {robot.spec.name: InverseKinematics(robot) for robot in (PANDA, SO101)}


def standing(robot: Robot, scene: Scene, opening: float = 0.0) -> Simulation:
    simulation = Simulation(scene)
    simulation.reset(Layout(scene, np.array(robot.rest), opening))
    return simulation


@pytest.mark.parametrize("robot", ARMS)
def test_limits_and_torques_agree_with_the_model(robot: Robot, scenes):
    model = scenes[robot.spec.name].model
    for name, low, high in zip(robot.spec.joint_names[:-1], robot.spec.lower, robot.spec.upper, strict=False):
        assert model.joint(f"arm/{name}").range == pytest.approx([low, high])
    torques = {"panda": [87] * 4 + [12] * 3, "so101": [2.94] * 5}[robot.spec.name]
    assert model.actuator_forcerange[scenes[robot.spec.name].actuators[:-1], 1] == pytest.approx(torques)


def test_so101_at_zero_is_the_published_chain(scenes):
    """The frame between the fingers, as the maker's own MJCF (so101_new_calib) has it at zero: 0.3914, 0, 0.2265."""
    scene = scenes["so101"]
    data = mujoco.MjData(scene.model)
    mujoco.mj_kinematics(scene.model, data)
    hand = data.body("arm/gripper")
    between = hand.xpos + hand.xmat.reshape(3, 3) @ [0.0981274, -0.0079, 0.0]
    assert between == pytest.approx([0.3914, 0.0, 0.2265], abs=5e-4)


@pytest.mark.parametrize("robot", ARMS)
def test_rest_points_down_with_fingers_along_x(robot: Robot, scenes):
    scene = scenes[robot.spec.name]
    simulation = standing(robot, scene)
    frame = simulation._data.site_xmat[scene.tool_site].reshape(3, 3)
    assert np.abs(frame[:, 1]) == pytest.approx([1, 0, 0], abs=0.02)
    along = frame[:, 2] if robot is PANDA else frame[:, 0]
    assert along == pytest.approx([0, 0, -1], abs=0.02)


@pytest.mark.parametrize("robot", ARMS)
def test_servos_hold_commanded_postures(robot: Robot, scenes, solvers, rng):
    simulation = standing(robot, scenes[robot.spec.name])
    for _ in range(5):
        joints = solvers[robot.spec.name].solve(rng.uniform(*robot.workspace.box))
        for _ in range(18):
            simulation.step(robot.command(joints, 0.0))
        assert np.abs(simulation.read().agent_pos[:-1] - joints).max() < 0.01
    assert simulation.warnings == 0


@pytest.mark.parametrize("robot", ARMS)
def test_an_opening_leaves_the_width_it_is_named_for(robot: Robot, scenes):
    scene, gripper = scenes[robot.spec.name], robot.gripper
    assert gripper is not None
    simulation = standing(robot, scene, opening=1.0)
    model, data, found = scene.model, simulation._data, np.zeros(1, np.int32)
    for width in (0.03, 0.02, 0.012):
        for _ in range(10):
            simulation.step(robot.command(np.array(robot.rest), gripper.opening(width)))
        tip, across = data.site_xpos[scene.tool_site], data.site_xmat[scene.tool_site].reshape(3, 3)[:, 1]
        free = sum(mujoco.mj_ray(model, data, tip, way * across, None, 1, -1, found) for way in (-1.0, 1.0))
        assert free == pytest.approx(width, abs=0.0025)


@pytest.mark.parametrize("robot", ARMS)
def test_lifts_a_cube_by_friction(robot: Robot, solvers, rng):
    half, u = 0.02 * robot.workspace.scale, robot.workspace.scale
    cube = f"""<body name="cube" pos="0 0 {half}"><freejoint/><geom type="box" size="{half} {half} {half}"
        mass="{0.06 * u**2}" condim="4" friction="1 .02 .001" {THING_CONTACT}/></body>"""
    scene = build_scene(robot, Props(cube, cone="elliptic", impratio=10))
    solver, gripper = solvers[robot.spec.name], robot.gripper
    assert gripper is not None
    for yaw in (0.0, 0.5):
        place, start = (
            robot.workspace.at(*rng.uniform([-0.1, -0.16], [0.1, 0.16])),
            robot.workspace.at(0, 0, 0.2),
        )
        layout = Layout(scene, solver.solve(start), 1.0)
        layout.put("cube", place, yaw)
        simulation = Simulation(scene)
        simulation.reset(layout)
        driver = ToolDriver(robot, solver, layout.joints, 1.0)
        width = 3.5 * half
        back = gripper.middle(width) * np.array([np.cos(yaw), np.sin(yaw), 0.0])
        for height, opening, aside, periods in (
            (0.1, 1, back, 12),
            (0.02, 1, back, 8),
            (0.02, 0, 0 * back, 8),
            (0.2, 0, 0, 8),
        ):
            target = place - aside + [0, 0, height * u]
            for _ in range(periods):
                simulation.step(driver.towards(Move(target, 0.04 * u, opening * gripper.opening(width), yaw)))
        reading = simulation.read()
        assert reading.rigid["cube"][2] > 0.15 * u
        assert np.linalg.norm(reading.rigid["cube"][:3] - reading.tool) < 0.02 * u


@pytest.mark.parametrize("robot", ARMS)
def test_wild_commands_leave_the_arm_above_the_table(robot: Robot, scenes, rng):
    scene = scenes[robot.spec.name]
    simulation = standing(robot, scene)
    moving = np.flatnonzero(scene.model.geom_bodyid > 0)
    lower, upper = np.array(robot.spec.lower), np.array(robot.spec.upper)
    for period in range(80):
        if period % 8 == 0:
            command = rng.uniform(lower, upper)
        simulation.step(command)
        lowest = simulation._data.geom_xpos[moving, 2].min()
        assert lowest > -0.006
    assert np.isfinite(simulation.get_state()).all() and simulation.warnings == 0


@pytest.mark.parametrize("robot", ARMS)
def test_wrist_camera_sees_the_fingertips_and_the_table(robot: Robot, scenes):
    scene = scenes[robot.spec.name]
    assert scene.cameras == ("front", "wrist")
    data = standing(robot, scene)._data
    mujoco.mj_camlight(scene.model, data)
    camera = scene.model.camera("wrist").id
    frame = data.cam_xmat[camera].reshape(3, 3)
    to_tip = frame.T @ (data.site_xpos[scene.tool_site] - data.cam_xpos[camera])
    half = np.tan(np.radians(scene.model.cam_fovy[camera]) / 2)
    assert to_tip[2] < 0 and np.abs(to_tip[:2] / -to_tip[2]).max() < half
    assert frame[2, 2] > 0.3  # looks down


@pytest.mark.parametrize("robot", ARMS)
def test_arm_meets_table_and_things_but_never_itself(robot: Robot, scenes):
    model = scenes[robot.spec.name].model
    arm = model.geom_bodyid > 0
    assert set(zip(model.geom_contype[arm], model.geom_conaffinity[arm], strict=True)) == {
        (0, 0),
        (0, 8),
        (2, 12),
    }


def test_unknown_arm_names_the_known_ones():
    with pytest.raises(ConfigError, match="panda, so101, or the path of an MJCF"):
        get_robot("so100")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["reach", "soft_push"])
def test_so101_experts_succeed(task: str):
    recorder = Recorder("so101", size=None)
    tracks = [recorder.simulate(recorder.setting(task, seed), "expert", seed) for seed in range(2000, 2020)]
    assert sum(bool(track.success[-1]) for track in tracks) >= 19
