"""One row of physics: repeatable bit for bit, robust, and on time."""

from __future__ import annotations

import numpy as np
import pytest

from robosim.physics.arms.catalogue import PANDA
from robosim.physics.driver import Move, ToolDriver
from robosim.physics.recording import draw_start
from robosim.physics.scene import Layout
from robosim.physics.simulation import Simulation
from robosim.physics.tasks.soft_push import HALF_HEIGHT
from robosim.spec import CONTROL_HZ


@pytest.fixture
def layout(scene, soft_push, kinematics) -> Layout:
    return draw_start(soft_push, scene, kinematics, seed=4)


def centre(simulation: Simulation) -> np.ndarray:
    return simulation.read().soft["block"].mean(axis=0)


def resting_place(scene, layout: Layout) -> np.ndarray:
    simulation = Simulation(scene)
    simulation.reset(layout)
    return centre(simulation)


def push_commands(scene, kinematics, layout: Layout, count: int) -> np.ndarray:
    """Commands that drive the tool low through the soft body: contact from the first steps."""
    driver = ToolDriver(PANDA, kinematics, layout.joints)
    through = np.append(resting_place(scene, layout)[:2], 0.04)
    return np.stack([driver.towards(Move(through, 0.04)) for _ in range(count)])


def test_the_same_commands_give_the_same_bits(scene, kinematics, layout):
    commands = push_commands(scene, kinematics, layout, 15)
    first, second = Simulation(scene), Simulation(scene)
    for simulation in (first, second):
        simulation.reset(layout)
    for command in commands:
        first.step(command)
        second.step(command)
    assert np.array_equal(first.get_state(), second.get_state())
    assert np.linalg.norm(centre(first) - resting_place(scene, layout)) > 0.005, "the body was never touched"


def test_a_restored_state_continues_bit_for_bit(scene, kinematics, layout):
    commands = push_commands(scene, kinematics, layout, 16)
    original, restored = Simulation(scene), Simulation(scene)
    original.reset(layout)
    for command in commands[:8]:
        original.step(command)
    restored.set_state(original.get_state())
    assert np.array_equal(restored.read().tool, original.read().tool)
    assert np.array_equal(restored.read().markers["marker"], layout.mocap[0])
    for command in commands[8:]:
        original.step(command)
        restored.step(command)
        assert np.array_equal(original.get_state(), restored.get_state())
        assert np.array_equal(original.read().soft["block"], restored.read().soft["block"])


def test_wild_commands_break_nothing(scene, layout, rng):
    simulation = Simulation(scene)
    simulation.reset(layout)
    lower, upper = np.array(PANDA.spec.lower), np.array(PANDA.spec.upper)
    for step in range(30):
        wild = rng.uniform(lower - 1.0, upper + 1.0)
        simulation.step(wild if step % 3 else simulation.read().agent_pos)
        assert np.isfinite(simulation.visible).all()
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


def test_things_rest_where_they_are_put(scene, kinematics):
    layout = Layout(scene, np.array(PANDA.rest))
    layout.put("block", np.array([0.45, 0.1]), yaw=0.5)
    simulation = Simulation(scene)
    simulation.reset(layout)
    resting = simulation.read().soft["block"]
    assert np.allclose(resting.mean(axis=0)[:2], [0.45, 0.1], atol=2e-3)
    assert resting.mean(axis=0)[2] == pytest.approx(HALF_HEIGHT, abs=4e-3)
    edge = resting[resting[:, 2] < 0.01][:, :2] - [0.45, 0.1]
    corner = edge[np.linalg.norm(edge, axis=1).argmax()]
    assert np.arctan2(*corner[::-1]) % (np.pi / 2) == pytest.approx((np.pi / 4 + 0.5) % (np.pi / 2), abs=0.05)
    for _ in range(5):
        simulation.step(PANDA.command(layout.joints, 0.0))
    assert np.abs(simulation.read().soft["block"] - resting).max() < 2e-3


def test_the_body_deforms_when_pressed(scene, kinematics, layout):
    simulation = Simulation(scene)
    place = resting_place(scene, layout)
    pressing = Layout(scene, kinematics.solve(np.append(place[:2], 0.11)))
    pressing.qpos[scene.bodies["block"].qpos] = layout.qpos[scene.bodies["block"].qpos]
    simulation.reset(pressing)
    before = simulation.read().soft["block"] - centre(simulation)
    driver = ToolDriver(PANDA, kinematics, pressing.joints)
    for _ in range(5):
        simulation.step(driver.towards(Move(np.append(place[:2], 0.045), 0.02)))
    after = simulation.read().soft["block"] - centre(simulation)
    assert np.abs(after - before).max() > 0.01
    assert simulation.warnings == 0


def test_a_state_of_another_scene_is_refused(scene):
    with pytest.raises(ValueError, match="shape"):
        Simulation(scene).set_state(np.zeros(3))
