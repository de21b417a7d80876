"""Inverse kinematics: exact enough, one posture a place, within limits, on both arms."""

from __future__ import annotations

import numpy as np
import pytest

from robosim.physics.arms.catalogue import PANDA, SO101
from robosim.physics.arms.robots import Robot
from robosim.physics.driver import Move, ToolDriver
from robosim.physics.engine import mujoco
from robosim.physics.kinematics import InverseKinematics, rotation_vector
from robosim.physics.scene import rotation_about_z

ARMS = [pytest.param(PANDA, id="panda"), pytest.param(SO101, id="so101")]


@pytest.fixture(scope="module")
def solvers() -> dict[str, InverseKinematics]:
    return {robot.spec.name: InverseKinematics(robot) for robot in (PANDA, SO101)}


def held(solver: InverseKinematics, joints: np.ndarray) -> np.ndarray:
    """How the tool is held at `joints`, [3,3]."""
    solver.tool(joints)
    return solver._data.site_xmat[solver._scene.tool_site].reshape(3, 3).copy()


@pytest.mark.parametrize("robot", ARMS)
@pytest.mark.parametrize("yaw", [0.0, 0.8, -0.8])
def test_reaches_where_things_lie_with_the_tool_held_upright(robot: Robot, yaw: float, solvers, rng):
    solver, space = solvers[robot.spec.name], robot.workspace
    wanted = rotation_about_z(yaw) @ held(solver, np.array(robot.rest))
    for point in rng.uniform([-0.12, -0.20, 0.012], [0.12, 0.20, 0.14], (15, 3)):
        target = space.at(*point)
        joints = solver.solve(target, yaw)
        assert np.linalg.norm(solver.tool(joints) - target) < 2e-3
        assert np.abs(held(solver, joints) - wanted).max() < 0.02


@pytest.mark.parametrize(("robot", "share"), [(PANDA, 1.0), (SO101, 0.96)], ids=["panda", "so101"])
def test_reaches_the_whole_workspace(robot: Robot, share: float, solvers, rng):
    solver = solvers[robot.spec.name]
    targets = rng.uniform(*robot.workspace.box, (60, 3))
    near = [np.linalg.norm(solver.tool(solver.solve(target)) - target) < 2e-3 for target in targets]
    assert np.mean(near) >= share


def test_an_arm_that_cannot_hold_the_direction_tilts_and_stays_in_place(solvers):
    solver, high = solvers["so101"], SO101.workspace.at(0.0, 0.0, 0.28)
    joints = solver.solve(high)
    tilt = np.arccos(np.clip(-held(solver, joints)[2, 0], -1, 1))
    assert np.linalg.norm(solver.tool(joints) - high) < 2e-3
    assert 0.1 < tilt < 0.5


@pytest.mark.parametrize("robot", ARMS)
def test_the_posture_does_not_depend_on_the_way_there(robot: Robot, solvers, rng):
    solver, space = solvers[robot.spec.name], robot.workspace
    driver = ToolDriver(robot, solver, solver.solve(space.at(0, 0, 0.12)))
    for point in rng.uniform([-0.12, -0.2, 0.04], [0.12, 0.2, 0.14], (6, 3)):
        for _ in range(14):
            command = driver.towards(Move(space.at(*point), 0.04 * space.scale))
        assert np.abs(command[:-1] - solver.solve(driver.hand.point)).max() < 5e-3


@pytest.mark.parametrize("robot", ARMS)
def test_out_of_reach_stays_within_limits(robot: Robot, solvers):
    joints = solvers[robot.spec.name].solve(np.array([2.0, 0.0, 0.5]))
    assert np.isfinite(joints).all()
    assert (joints >= robot.spec.lower[:-1]).all() and (joints <= robot.spec.upper[:-1]).all()


@pytest.mark.parametrize("robot", ARMS)
def test_driver_keeps_its_speed_and_its_box(robot: Robot, solvers):
    solver, space = solvers[robot.spec.name], robot.workspace
    driver = ToolDriver(robot, solver, solver.solve(space.at(0, 0, 0.1)))
    lower, upper = space.box
    for _ in range(12):
        before = driver.hand.point
        command = driver.towards(Move(space.at(0, 0, -1.0), 0.03))
        assert np.linalg.norm(driver.hand.point - before) <= 0.03 + 1e-9
        assert (driver.hand.point >= lower - 1e-9).all() and (driver.hand.point <= upper + 1e-9).all()
    assert command.shape == (robot.spec.num_joints,) and command[-1] == 0.0


def test_rotation_vector_inverts_mujocos_rotation(rng):
    for _ in range(20):
        axis = rng.normal(size=3)
        axis, angle = axis / np.linalg.norm(axis), rng.uniform(0.01, 3.1)
        quaternion, matrix = np.zeros(4), np.zeros(9)
        mujoco.mju_axisAngle2Quat(quaternion, axis, angle)
        mujoco.mju_quat2Mat(matrix, quaternion)
        assert np.allclose(rotation_vector(matrix.reshape(3, 3)), axis * angle, atol=1e-9)
    assert np.allclose(rotation_vector(np.eye(3)), 0.0)
