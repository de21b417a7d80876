"""The cloth that closing fingers hold and the clay that keeps its dent."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from robosim.physics.arms.catalogue import get_robot
from robosim.physics.driver import Move, ToolDriver
from robosim.physics.recording import Recorder, draw_start
from robosim.physics.scene import Layout, build_scene
from robosim.physics.simulation import Reading, Simulation
from robosim.physics.tasks import get_task
from robosim.physics.tasks.clay_squash import HEIGHT, UP, ClaySquash
from robosim.physics.tasks.cloth_fold import COUNT, MOVING, STAYING, ClothFold, covered_area

ROBOTS = ("panda", "so101")
TASKS = ("cloth_fold", "clay_squash")
PAIRS = [(task, robot) for task in TASKS for robot in ROBOTS if get_task(task).supports(get_robot(robot))]


@pytest.fixture(scope="module")
def recorders() -> dict[str, Recorder]:
    """Without pictures."""
    return {robot: Recorder(robot, size=None) for robot in ROBOTS}


class Bench:
    """A simulation in an expert's hands, or in anyone's."""

    def __init__(self, recorder: Recorder, task: str, seed: int = 3) -> None:
        setting = recorder.setting(task, seed)
        self.task, self.simulation = setting.task, setting.simulation()
        layout = draw_start(self.task, setting.scene, recorder.kinematics, seed)
        self.simulation.reset(layout)
        self.driver = ToolDriver(recorder.robot, recorder.kinematics, layout.joints, layout.opening)
        self.expert = self.task.expert(np.random.default_rng(seed))

    def play(self, periods: int) -> Reading:
        for _ in range(periods):
            self.do(self.expert(self.simulation.read(), self.driver.hand))
        return self.simulation.read()

    def do(self, move: Move, periods: int = 1) -> None:
        for _ in range(periods):
            self.simulation.step(self.driver.towards(move))


@pytest.mark.parametrize(("task", "robot"), PAIRS)
def test_the_expert_succeeds(recorders, robot, task):
    recorder = recorders[robot]
    track = recorder.simulate(recorder.setting(task, 900), "expert", 900)
    assert track.success[-1] and track.warnings == 0
    low, high = (
        (0.45, 0.7) if task == "cloth_fold" else (0.005 * recorder.robot.workspace.scale, 0.25 * HEIGHT)
    )
    assert low < next(iter(track.measures.values())) < high


@pytest.mark.slow
@pytest.mark.parametrize(("task", "robot"), PAIRS)
def test_experts_succeed_on_unseen_seeds(recorders, robot, task):
    recorder = recorders[robot]
    setting = recorder.setting(task, 0)
    successes = [recorder.simulate(setting, "expert", seed).success[-1] for seed in range(20000, 20020)]
    assert sum(successes) >= 18


def test_a_cloth_that_is_held_above_its_place_is_not_folded_yet(recorders):
    bench = Bench(recorders["panda"], "cloth_fold")
    held = []
    for _ in range(60):
        reading = bench.play(1)
        if np.linalg.norm(bench.task.object(reading) - reading.tool) < 0.005:
            held.append(bench.task.distance(reading))
    assert len(held) > 5 and min(held) > bench.task.success_distance
    assert bench.task.distance(reading) < bench.task.success_distance


def test_only_closing_fingers_take_the_cloth(recorders):
    lifted = {}
    for opening in (0.0, 1.0):
        bench = Bench(recorders["panda"], "cloth_fold")
        corner = bench.task.object(bench.simulation.read())
        bench.do(Move(corner + 0.1 * UP, 0.05, opening), 12)
        bench.do(Move(corner + 0.006 * UP, 0.03, opening), 6)
        bench.do(Move(corner + 0.006 * UP, 0.03, 0.0), 5)
        bench.do(Move(corner + 0.1 * UP, 0.03, 0.0), 5)
        lifted[opening] = bench.task.object(bench.simulation.read())[2]
        bench.do(Move(corner + 0.1 * UP, 0.03, 1.0), 8)
        assert bench.task.object(bench.simulation.read())[2] < 0.02, "open fingers let go"
    assert lifted[0.0] < 0.01 and lifted[1.0] > 0.08


@pytest.mark.parametrize("task", TASKS)
def test_states_are_restored_exactly_in_the_middle_of_it(recorders, task):
    """While the cloth is held in the air; while the clay is half pressed."""
    bench = Bench(recorders["panda"], task)
    for _ in range(40):
        reading = bench.play(1)
        if task == "cloth_fold" and bench.task.object(reading)[2] > 0.05:
            break
        if task == "clay_squash" and bench.task.measures(reading)["dent_m"] > 0.004:
            break
    else:
        pytest.fail("the expert never got there")
    simulation, other = bench.simulation, Simulation(bench.simulation.scene)
    other.set_state(simulation.get_state())
    commands = []
    for _ in range(8):
        move = bench.expert(simulation.read(), bench.driver.hand)
        commands.append(bench.driver.towards(move))
        simulation.step(commands[-1])
    for command in commands:
        other.step(command)
    assert (simulation.get_state() == other.get_state()).all()


def pressed(recorder: Recorder, task: ClaySquash) -> tuple[float, float]:
    """Dent (metres) under a tool that presses it about 2 cm deep, and a second after the tool has gone."""
    setting = recorder.setting("clay_squash", 0)
    simulation = Simulation(build_scene(recorder.robot, task.props()))
    layout = Layout(simulation.scene, recorder.kinematics.solve(task.at(0, 0, HEIGHT + 0.02)))
    layout.put("clay", task.at(0, 0))
    simulation.reset(layout)
    driver = ToolDriver(recorder.robot, recorder.kinematics, layout.joints)
    dents = []
    for height, periods in ((HEIGHT - 0.015, 8), (HEIGHT + 0.1, 15)):
        for _ in range(periods):
            simulation.step(driver.towards(Move(task.at(0, 0, height), 0.01 * task.u)))
        reading = simulation.read()
        dents.append(task.measures(reading)["dent_m"])
        touched = height < HEIGHT
        assert (task.object(reading)[2] > 0.99 * HEIGHT * setting.task.u) == (touched or dents[-1] < 0.001)
    return dents[0], dents[1]


def test_the_dent_stays_and_without_yielding_it_would_not(recorders):
    class Rubber(ClaySquash):
        def props(self):
            clay = super().props()
            return replace(clay, worldbody=re.sub(r'yield="[^"]*"', "", clay.worldbody))

    robot = get_robot("panda")
    under_the_tool, afterwards = pressed(recorders["panda"], ClaySquash(robot))
    assert under_the_tool > 0.012
    assert 0.001 < under_the_tool - afterwards < 0.004
    under_the_tool, afterwards = pressed(recorders["panda"], Rubber(robot))
    assert under_the_tool > 0.01 and afterwards < 0.001


@pytest.mark.parametrize(("task", "robot"), PAIRS)
@pytest.mark.parametrize("periods", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_random_moves_and_commands_do_no_harm(recorders, robot, task, periods):
    bench, rng = Bench(recorders[robot], task), np.random.default_rng(5)
    spec, u = bench.task.robot.spec, bench.task.u
    for period in range(periods):
        if period % 10 == 0:
            low, high = bench.task.robot.workspace.box
            thing = bench.task.object(bench.simulation.read())
            target = thing if rng.random() < 0.4 else rng.uniform(low, high)
            move = Move(target, 0.04 * u, float(rng.random() < 0.5), rng.uniform(-1.0, 1.0))
        if period % 60 < 45:
            bench.do(move)
        else:
            bench.simulation.step(rng.uniform(spec.lower, spec.upper))
        vertices = next(iter(bench.simulation.read().soft.values()))
        assert np.isfinite(bench.simulation.get_state()).all()
        assert vertices[:, 2].min() > -0.005 * u
    assert bench.simulation.warnings == 0


def test_covered_area_of_a_flat_and_of_a_folded_sheet():
    x, y = np.meshgrid(np.linspace(0, 0.2, COUNT), np.linspace(0, 0.2, COUNT), indexing="ij")
    flat = np.stack([x, y, np.zeros_like(x)], axis=-1).reshape(-1, 3)
    assert covered_area(flat) == pytest.approx(0.04, rel=0.06)
    folded = flat.copy()
    beyond = flat[:, 1] > flat[:, 0]
    folded[beyond, :2] = flat[beyond, 1::-1]
    assert np.allclose(folded[MOVING], folded[STAYING])
    assert covered_area(folded) == pytest.approx(0.02, rel=0.1)


def test_starts_show_a_left_corner_within_reach(recorders):
    recorder = recorders["so101"]
    setting = recorder.setting("cloth_fold", 0)
    low, high = recorder.robot.workspace.box
    for seed in range(20):
        layout = draw_start(setting.task, setting.scene, recorder.kinematics, seed)
        body = setting.scene.bodies["cloth"]
        corners = (layout.qpos[body.qpos] + body.rest)[[MOVING, STAYING, 0, COUNT**2 - 1]]
        assert corners[:, 1].argmin() == 0 and corners[:, 1].argmax() == 1
        assert (corners[:2, :2] > low[:2]).all() and (corners[:2, :2] < high[:2]).all()


def test_factors_change_the_things():
    robot = get_robot("panda")
    for task in (ClothFold, ClaySquash):
        plain = build_scene(robot, task(robot).props()).model
        factors = replace(task(robot).factors, size=1.2, mass=2.0, friction=0.5)
        varied = build_scene(robot, task(robot, factors).props(), factors).model
        assert varied.flex_friction[0, 0] == pytest.approx(0.5 * plain.flex_friction[0, 0])
        assert varied.flex_size[0, 0] == pytest.approx(1.2 * plain.flex_size[0, 0], rel=0.05)
        things = [
            sum(m.body(i).mass[0] for i in range(1, m.nbody) if not m.body(i).name.startswith("arm/"))
            for m in (plain, varied)
        ]
        assert things[1] == pytest.approx(2 * things[0], rel=0.03)
