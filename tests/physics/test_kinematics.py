"""Inverse kinematics: exact enough, one posture a place, within limits."""

from __future__ import annotations

import numpy as np

from robosim.physics.driver import TOOL_LOWER, TOOL_UPPER, ToolDriver
from robosim.physics.engine import mujoco
from robosim.physics.kinematics import POINTING_DOWN, rotation_vector
from robosim.physics.robots import PANDA


def test_reaches_the_whole_workspace(kinematics, rng):
    for target in rng.uniform([0.34, -0.25, 0.03], [0.66, 0.25, 0.28], (40, 3)):
        joints = kinematics.solve(target)
        assert np.linalg.norm(kinematics.tool(joints) - target) < 2e-3
        site = kinematics._data.site_xmat[kinematics._scene.tool_site].reshape(3, 3)
        assert np.abs(site - POINTING_DOWN).max() < 0.01


def test_the_posture_does_not_depend_on_the_way_there(kinematics, rng):
    driver = ToolDriver(kinematics, kinematics.solve(np.array([0.5, 0.0, 0.15])))
    for target in rng.uniform([0.36, -0.2, 0.04], [0.64, 0.2, 0.25], (6, 3)):
        for _ in range(12):
            command = driver.towards(target, 0.04)
        assert np.abs(command[:-1] - kinematics.solve(driver.point)).max() < 5e-3


def test_out_of_reach_stays_within_limits(kinematics):
    joints = kinematics.solve(np.array([2.0, 0.0, 0.5]))
    assert np.isfinite(joints).all()
    assert (joints >= PANDA.spec.lower[:-1]).all() and (joints <= PANDA.spec.upper[:-1]).all()


def test_driver_keeps_its_speed_and_its_box(kinematics):
    driver = ToolDriver(kinematics, kinematics.solve(np.array([0.5, 0.0, 0.1])))
    for _ in range(12):
        before = driver.point
        command = driver.towards(np.array([0.5, 0.0, -1.0]), 0.03)
        assert np.linalg.norm(driver.point - before) <= 0.03 + 1e-9
        assert (driver.point >= TOOL_LOWER - 1e-9).all() and (driver.point <= TOOL_UPPER + 1e-9).all()
    assert command.shape == (8,) and command[-1] == 0.0


def test_rotation_vector_inverts_mujocos_rotation(rng):
    for _ in range(20):
        axis = rng.normal(size=3)
        axis, angle = axis / np.linalg.norm(axis), rng.uniform(0.01, 3.1)
        quaternion, matrix = np.zeros(4), np.zeros(9)
        mujoco.mju_axisAngle2Quat(quaternion, axis, angle)
        mujoco.mju_quat2Mat(matrix, quaternion)
        assert np.allclose(rotation_vector(matrix.reshape(3, 3)), axis * angle, atol=1e-9)
    assert np.allclose(rotation_vector(np.eye(3)), 0.0)
