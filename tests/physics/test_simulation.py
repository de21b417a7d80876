"""One row of physics: repeatable bit for bit, robust, and on time."""

from __future__ import annotations

import numpy as np
import pytest

from robosim.physics.driver import ToolDriver
from robosim.physics.recording import start_generator
from robosim.physics.robots import PANDA
from robosim.physics.scene import SOFT_HALF_HEIGHT
from robosim.physics.simulation import Layout, Simulation
from robosim.physics.tasks import get_task
from robosim.spec import CONTROL_HZ


@pytest.fixture
def layout(kinematics) -> Layout:
    return get_task("soft_push").sample(start_generator(4), kinematics)


def push_commands(kinematics, layout: Layout, count: int) -> np.ndarray:
    """Commands that drive the tool low through the soft body: contact from the first steps."""
    driver = ToolDriver(kinematics, layout.joints)
    through = np.append(layout.soft, 0.04)
    return np.stack([driver.towards(through, 0.04) for _ in range(count)])


def test_the_same_commands_give_the_same_bits(scene, kinematics, layout):
    commands = push_commands(kinematics, layout, 15)
    first, second = Simulation(scene), Simulation(scene)
    for simulation in (first, second):
        simulation.reset(layout)
    for command in commands:
        first.step(command)
        second.step(command)
    assert np.array_equal(first.get_state(), second.get_state())
    assert np.linalg.norm(first.read().object[:2] - layout.soft) > 0.005, "the body was never touched"


def test_a_restored_state_continues_bit_for_bit(scene, kinematics, layout):
    commands = push_commands(kinematics, layout, 16)
    original, restored = Simulation(scene), Simulation(scene)
    original.reset(layout)
    for command in commands[:8]:
        original.step(command)
    restored.set_state(original.get_state())
    assert np.array_equal(restored.read().tool, original.read().tool)
    assert np.array_equal(restored.read().marker[:2], layout.marker)
    for command in commands[8:]:
        original.step(command)
        restored.step(command)
        assert np.array_equal(original.get_state(), restored.get_state())
        assert np.array_equal(original.soft_vertices, restored.soft_vertices)


def test_wild_commands_break_nothing(scene, layout, rng):
    simulation = Simulation(scene)
    simulation.reset(layout)
    lower, upper = np.array(PANDA.spec.lower), np.array(PANDA.spec.upper)
    for step in range(30):
        wild = rng.uniform(lower - 1.0, upper + 1.0)
        simulation.step(wild if step % 3 else simulation.read().agent_pos)
        assert np.isfinite(simulation.qpos).all()
    assert simulation.warnings == 0


def test_commands_are_held_to_published_velocities(scene, layout):
    simulation = Simulation(scene)
    simulation.reset(layout)
    before = simulation.read().agent_pos
    simulation.step(np.array(PANDA.spec.upper))
    moved = np.abs(simulation.read().agent_pos - before)
    assert (moved[:-1] <= np.array(PANDA.velocity[:-1]) / CONTROL_HZ + 0.01).all()
    assert moved[0] > 0.05


def test_an_impulse_acts_between_its_frame_and_the_next(scene, layout):
    simulation = Simulation(scene)
    simulation.reset(layout)
    hold = np.append(layout.joints, 0.0)
    impulse = hold.copy()
    impulse[0] += 0.1
    angles = [simulation.read().agent_pos[0]]
    for command in (hold, hold, impulse, impulse):
        simulation.step(command)
        angles.append(simulation.read().agent_pos[0])
    moved = np.abs(np.diff(angles))
    assert moved[:2].max() < 1e-4
    assert 0.05 < moved[2] < 0.1
    assert angles[-1] - angles[0] == pytest.approx(0.1, abs=0.01)


def test_gripper_opens_and_closes(scene, layout):
    simulation = Simulation(scene)
    simulation.reset(layout)
    assert simulation.read().agent_pos[-1] < 0.02
    for _ in range(8):
        simulation.step(np.append(layout.joints, 1.0))
    assert simulation.read().agent_pos[-1] > 0.9


def test_the_body_rests_where_it_is_put(scene, layout):
    simulation = Simulation(scene)
    simulation.reset(layout)
    resting = simulation.soft_vertices
    assert np.allclose(simulation.read().object[:2], layout.soft, atol=2e-3)
    assert simulation.read().object[2] == pytest.approx(SOFT_HALF_HEIGHT, abs=4e-3)
    for _ in range(5):
        simulation.step(np.append(layout.joints, 0.0))
    assert np.abs(simulation.soft_vertices - resting).max() < 2e-3


def test_the_body_deforms_when_pressed(scene, kinematics, layout):
    simulation = Simulation(scene)
    above = np.append(layout.soft, 0.11)
    pressing = Layout(kinematics.solve(above), layout.soft, layout.marker)
    simulation.reset(pressing)
    before = simulation.soft_vertices - simulation.read().object
    driver = ToolDriver(kinematics, pressing.joints)
    for _ in range(5):
        simulation.step(driver.towards(np.append(layout.soft, 0.045), 0.02))
    after = simulation.soft_vertices - simulation.read().object
    assert np.abs(after - before).max() > 0.01
    assert simulation.warnings == 0


def test_a_state_of_another_scene_is_refused(scene):
    with pytest.raises(ValueError, match="shape"):
        Simulation(scene).set_state(np.zeros(3))
