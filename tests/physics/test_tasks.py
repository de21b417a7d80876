"""Starts, goals, success and experts of both tasks."""

from __future__ import annotations

import numpy as np
import pytest

from robosim.errors import ConfigError
from robosim.physics.recording import FRAMES_AFTER_SUCCESS, start_generator
from robosim.physics.simulation import Simulation
from robosim.physics.tasks import TASKS, get_task, make_spec
from robosim.spec import SUCCESS_FRAMES


@pytest.fixture(scope="module")
def starts(kinematics):
    return {
        name: [task.sample(start_generator(seed), kinematics) for seed in range(60)]
        for name, task in TASKS.items()
    }


def test_reach_starts_away_from_a_free_goal(starts, kinematics):
    task = get_task("reach")
    for layout in starts["reach"]:
        goal = task.goal(np.append(layout.marker, 0.0))
        assert 0.095 <= np.linalg.norm(kinematics.tool(layout.joints) - goal) <= 0.255
        assert np.linalg.norm(layout.soft - layout.marker) > 0.15


def test_soft_push_starts_six_to_fourteen_centimetres_away(starts):
    lengths = [np.linalg.norm(layout.soft - layout.marker) for layout in starts["soft_push"]]
    assert min(lengths) >= 0.06 and max(lengths) <= 0.14
    assert max(lengths) - min(lengths) > 0.05


def test_starts_spread_over_the_table(starts):
    for layouts in starts.values():
        for places in (np.stack([lay.soft for lay in layouts]), np.stack([lay.marker for lay in layouts])):
            assert (np.ptp(places, axis=0) > [0.15, 0.25]).all()


def test_nothing_is_touched_at_the_start(scene, starts):
    simulation = Simulation(scene)
    for layouts in starts.values():
        for layout in layouts[:15]:
            simulation.reset(layout)
            assert np.allclose(simulation.read().object[:2], layout.soft, atol=2e-3)


def test_distances(kinematics):
    spec = make_spec()
    tool, body, goal = np.array([0.5, 0.0, 0.1]), np.array([0.4, 0.1, 0.03]), np.array([0.5, 0.1, 0.05])
    assert spec.task("reach").distance(tool, body, goal) == pytest.approx(np.hypot(0.1, 0.05))
    assert spec.task("soft_push").distance(tool, body, goal) == pytest.approx(0.1)


@pytest.mark.parametrize("name", list(TASKS))
def test_experts_solve_unseen_starts(tracker, name):
    task = get_task(name)
    for seed in range(900, 905):
        track = tracker.simulate(task, "expert", seed)
        assert track.success[-1], f"seed {seed}"
        assert track.warnings == 0
        first = int(np.argmax(track.success))
        distance = task.spec.distance(
            track.environment_state[:, :3], track.environment_state[:, 3:6], track.environment_state[:, 6:]
        )
        assert (distance[first - SUCCESS_FRAMES + 1 : first + 1] <= task.spec.success_distance + 1e-6).all()
        assert len(track.success) == first + 1 + FRAMES_AFTER_SUCCESS
        assert np.linalg.norm(np.diff(track.environment_state[:, :3], axis=0), axis=1).max() < 0.055


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(ConfigError, match="reach, soft_push"):
        get_task("fold")
    with pytest.raises(ConfigError, match="panda"):
        make_spec(robot="pando")
