"""Soft pick and rope place on both arms: starts, experts, measures, rough treatment, states saved in a grasp."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from robosim.physics.driver import Move, ToolDriver
from robosim.physics.recording import Recorder, draw_start, make_policy
from robosim.physics.setting import Setting
from robosim.physics.simulation import Simulation
from robosim.physics.tasks import get_task
from robosim.physics.tasks.rope_place import LENGTH, POINTS, RopePlace
from robosim.physics.tasks.soft_pick import COUNT, SIDE, SKIN, SoftPick
from robosim.physics.variation import Factors, Variation

ARMS = ("panda", "so101")
SOFT = ("soft_pick", "rope_place")
THING = {"soft_pick": "cube", "rope_place": "rope"}


@pytest.fixture(scope="module")
def recorders() -> dict[str, Recorder]:
    return {arm: Recorder(arm, size=None) for arm in ARMS}


def play(recorder: Recorder, setting: Setting, seed: int, periods: int):
    """The expert without noise: the simulation, and after every period the reading."""
    layout = draw_start(setting.task, setting.scene, recorder.kinematics, seed)
    simulation = setting.simulation()
    simulation.reset(layout)
    driver = ToolDriver(recorder.robot, recorder.kinematics, layout.joints, layout.opening)
    policy = make_policy(setting.task, "expert", np.random.default_rng(seed))
    for _ in range(periods):
        simulation.step(driver.towards(policy(simulation.read(), driver.hand)))
        yield simulation, simulation.read()


def in_the_air(recorder: Recorder, setting: Setting) -> Simulation:
    """A simulation in which the expert holds the thing and moves it. (Seed 2 draws a high carry on both arms.)"""
    task = setting.task
    for simulation, reading in play(recorder, setting, 2, 40):
        if task.object(reading)[2] > task.goal(reading)[2] + 0.03 * task.u:
            return simulation
    raise AssertionError("the expert lifted nothing")


@pytest.mark.parametrize("name", SOFT)
@pytest.mark.parametrize("arm", ARMS)
def test_starts_are_at_rest_spread_and_within_reach(recorders, arm, name):
    recorder = recorders[arm]
    setting = recorder.setting(name, 0)
    task, simulation, body = setting.task, setting.simulation(), setting.scene.bodies[THING[name]]
    places = []
    for seed in range(25):
        layout = draw_start(task, setting.scene, recorder.kinematics, seed)
        simulation.reset(layout)
        reading = simulation.read()
        laid = (layout.qpos[body.qpos] + body.rest).mean(axis=0)
        np.testing.assert_allclose(reading.soft[THING[name]].mean(axis=0), laid, atol=2e-3 * task.u)
        simulation.step(recorder.robot.command(layout.joints, layout.opening))
        moved = simulation.read().soft[THING[name]] - reading.soft[THING[name]]
        assert np.abs(moved).max() < 1e-3 * task.u
        assert np.linalg.norm(reading.tool - recorder.kinematics.tool(layout.joints)) < 0.01 * task.u
        assert 0.07 * task.u < task.distance(reading) < 0.28 * task.u
        places.append((task.object(reading) - task.at(0, 0))[:2] / task.u)
    assert (np.ptp(places, axis=0) > [0.15, 0.25]).all()


@pytest.mark.parametrize("name", SOFT)
@pytest.mark.parametrize("arm", ARMS)
def test_experts_solve_unseen_starts(recorders, arm, name):
    for seed in range(900, 903):
        track = recorders[arm].simulate(recorders[arm].setting(name, seed), "expert", seed)
        assert track.success[-1], f"seed {seed}"
        assert track.warnings == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", SOFT)
@pytest.mark.parametrize("arm", ARMS)
def test_experts_solve_nearly_all_starts(recorders, arm, name):
    solved = [
        bool(recorders[arm].simulate(recorders[arm].setting(name, seed), "expert", seed).success[-1])
        for seed in range(10_000, 10_020)
    ]
    assert sum(solved) >= 19


@pytest.mark.parametrize("arm", ARMS)
def test_the_cube_is_squeezed_lifted_and_let_go(recorders, arm):
    setting = recorders[arm].setting("soft_pick", 0)
    u, history = setting.task.u, []
    for _, reading in play(recorders[arm], setting, 0, 45):
        history.append(setting.task.measures(reading))
    squeeze, height = (np.array([m[key] for m in history]) for key in ("squeeze", "height_m"))
    assert squeeze[height > 0.05 * u].min() > 0.1  # held, it stays narrower
    assert height.max() > 0.07 * u
    assert squeeze[-1] < 0.05 and abs(height[-1]) < 2e-3 * u  # let go, it has its shape again
    assert setting.task.distance(reading) < 0.02 * u


@pytest.mark.parametrize("arm", ARMS)
def test_the_rope_comes_to_lie_on_the_stripe(recorders, arm):
    task = recorders[arm].setting("rope_place", 0).task
    for seed in range(2):
        setting = recorders[arm].setting("rope_place", seed)
        readings = [reading for _, reading in play(recorders[arm], setting, seed, 45)]
        before, after = task.measures(readings[0]), task.measures(readings[-1])
        assert after["shape_error_m"] < 0.025 * task.u < 0.7 * before["shape_error_m"]
        assert after["end_error_m"] < 0.02 * task.u
        rope = readings[-1].soft["rope"]
        length = np.linalg.norm(np.diff(rope, axis=0), axis=1).sum()
        assert length == pytest.approx(LENGTH * task.u, rel=0.03)  # drawn straight, not long


def test_measures_are_those_of_known_shapes(recorders):
    cube = recorders["panda"].setting("soft_pick", 0)
    simulation = cube.simulation()
    simulation.reset(draw_start(cube.task, cube.scene, recorders["panda"].kinematics, 0))
    reading = simulation.read()
    step = (SIDE - 2 * SKIN) / (COUNT - 1)
    grid = np.stack(np.meshgrid(*3 * [step * np.arange(COUNT)], indexing="ij"), axis=-1)
    squeezed = (grid * [0.8, 1.0, 1.0]).reshape(-1, 3) + np.array([0.0, 0.0, SKIN + 0.05])
    measures = cube.task.measures(replace(reading, soft={"cube": squeezed}))
    assert measures == pytest.approx({"squeeze": 0.2, "height_m": 0.05})

    task = recorders["panda"].setting("rope_place", 0).task
    marker = np.array([0.5, 0.2, 0.0, np.sqrt(0.5), 0.0, 0.0, -np.sqrt(0.5)])  # the stripe runs along -y
    beside = np.stack(
        [np.full(POINTS, 0.53), np.linspace(0.2, 0.2 - LENGTH, POINTS), np.full(POINTS, 0.01)], 1
    )
    measures = task.measures(replace(reading, soft={"rope": beside}, markers={"marker": marker}))
    assert measures == pytest.approx({"shape_error_m": 0.03, "end_error_m": 0.03})


@pytest.mark.parametrize("periods", [100, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SOFT)
@pytest.mark.parametrize("arm", ARMS)
def test_rough_treatment_breaks_nothing(recorders, arm, name, periods):
    """Grabs and pushes about the thing for half of the time, then arbitrary joint commands."""
    recorder = recorders[arm]
    setting = recorder.setting(name, 0)
    task, rng = setting.task, np.random.default_rng(1)
    layout = draw_start(task, setting.scene, recorder.kinematics, 1)
    simulation = setting.simulation()
    simulation.reset(layout)
    driver = ToolDriver(recorder.robot, recorder.kinematics, layout.joints, layout.opening)
    lowest, spec = np.inf, recorder.robot.spec
    target, opening, yaw = driver.hand.point, 1.0, 0.0
    for period in range(periods):
        if period % 8 == 0:
            beside = rng.normal(0.0, [0.03, 0.03, 0.03], 3) * task.u
            target, opening = task.object(simulation.read()) + beside, float(rng.choice([0.0, 1.0]))
            yaw = float(rng.uniform(-1.5, 1.5))
        wild = rng.uniform(spec.lower, spec.upper)
        led = driver.towards(Move(target, 0.05 * task.u, opening, yaw))
        simulation.step(led if period < periods // 2 else wild)
        vertices = simulation.read().soft[THING[name]]
        assert np.isfinite(vertices).all()
        lowest = min(lowest, float(vertices[:, 2].min()))
    assert lowest > -0.005 * task.u
    assert simulation.warnings == 0


@pytest.mark.parametrize("name", SOFT)
@pytest.mark.parametrize("arm", ARMS)
def test_a_state_saved_in_a_grasp_continues_bit_for_bit(recorders, arm, name):
    recorder = recorders[arm]
    setting = recorder.setting(name, 2)
    simulation = in_the_air(recorder, setting)
    state = simulation.get_state()
    command = simulation.read().agent_pos
    commands = command + np.random.default_rng(0).normal(0.0, 0.02, (5, len(command)))
    other = setting.simulation()
    other.set_state(state)
    for each in commands:
        simulation.step(each)
        other.step(each)
    np.testing.assert_array_equal(other.get_state(), simulation.get_state())
    np.testing.assert_array_equal(other.visible, simulation.visible)


@pytest.mark.parametrize("name", SOFT)
def test_factors_change_the_things(recorders, name):
    robot = recorders["panda"].robot
    plain = get_task(name)(robot).props().worldbody
    tinted = get_task(name)(robot, Factors(colour=0.4)).props()
    assert get_task(name)(robot).props().worldbody == plain
    assert tinted.worldbody + tinted.top != plain + get_task(name)(robot).props().top
    varied = Recorder(
        "panda", None, variation=Variation(size=(0.8, 1.2), mass=(0.7, 1.5), friction=(0.7, 1.3))
    )
    for seed in (905, 906):
        setting = varied.setting(name, seed)
        track = varied.simulate(setting, "expert", seed)
        assert track.success[-1], setting.task.factors


def test_size_scales_cube_and_rope(recorders):
    robot = recorders["panda"].robot
    assert SoftPick(robot, Factors(size=1.2)).side == pytest.approx(1.2 * SIDE)
    assert RopePlace(robot, Factors(size=1.2)).length == pytest.approx(1.2 * LENGTH)
    assert RopePlace(robot, Factors(size=3.0)).length == pytest.approx(1.25 * LENGTH)  # what the table holds
