"""The rigid tasks on both arms: starts, factors, experts; and a task of one's own, from its file."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from robosim.errors import ConfigError
from robosim.physics.arms.catalogue import get_robot
from robosim.physics.engine import mujoco
from robosim.physics.recording import Recorder, draw_start
from robosim.physics.scene import build_scene
from robosim.physics.tasks import TASKS, get_task, load_task_file, make_spec
from robosim.physics.tasks.pose import square_turn, tilt_of, yaw_of
from robosim.physics.variation import Factors

ARMS = ("panda", "so101")
RIGID = ("cube_pick", "push_target")
THING = {"cube_pick": "cube", "push_target": "disc"}
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "my_task.py"


@pytest.fixture(scope="module")
def recorders() -> dict[str, Recorder]:
    return {arm: Recorder(arm, size=None) for arm in ARMS}


def test_a_task_file_that_fails_leaves_nothing_behind(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(EXAMPLE.read_text() + "\nraise RuntimeError('half done')\n")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"mine\.py can't be run:(.|\n)*half done"):
            load_task_file(file)
    assert "knock_over" not in TASKS


@pytest.fixture
def knock_over():
    """The documented example, loaded for one test."""
    known = set(TASKS)
    (name,) = load_task_file(EXAMPLE)
    yield name
    for added in set(TASKS) - known:
        del sys.modules[TASKS.pop(added).__module__]


@pytest.mark.parametrize("name", RIGID)
@pytest.mark.parametrize("arm", ARMS)
def test_starts_touch_nothing_and_lie_apart(recorders, arm, name):
    recorder = recorders[arm]
    setting = recorder.setting(name, 0)
    task, simulation = setting.task, setting.simulation()
    assert task.spec(recorder.robot) in make_spec(arm).tasks
    places = []
    for seed in range(30):
        layout = draw_start(task, setting.scene, recorder.kinematics, seed)
        put = layout.qpos[setting.scene.bodies[THING[name]].qpos]
        simulation.reset(layout)
        reading = simulation.read()
        # The first control period moved neither the thing nor the tool: nothing touched, and all was within reach.
        np.testing.assert_allclose(reading.rigid[THING[name]], put, atol=1e-3 * task.u)
        assert np.linalg.norm(reading.tool - recorder.kinematics.tool(layout.joints)) < 0.01 * task.u
        assert 0.085 * task.u < task.distance(reading) < 0.31 * task.u
        places.append(task.object(reading)[:2] / task.u)
    assert (np.ptp(places, axis=0) > [0.15, 0.25]).all()


@pytest.mark.parametrize("name", RIGID)
@pytest.mark.parametrize("arm", ARMS)
def test_experts_solve_unseen_starts(recorders, arm, name):
    for seed in range(900, 903):
        track = recorders[arm].simulate(recorders[arm].setting(name, seed), "expert", seed)
        assert track.success[-1], f"seed {seed}"
        assert track.warnings == 0
        assert track.measures["tilt_rad"] < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", RIGID)
@pytest.mark.parametrize("arm", ARMS)
def test_experts_solve_nearly_all_starts(recorders, arm, name):
    solved = [
        bool(recorders[arm].simulate(recorders[arm].setting(name, seed), "expert", seed).success[-1])
        for seed in range(10_000, 10_020)
    ]
    assert sum(solved) >= 19


@pytest.mark.parametrize("arm", ARMS)
def test_the_cube_is_lifted_put_on_the_stand_and_let_go(recorders, arm):
    recorder = recorders[arm]
    track = recorder.simulate(recorder.setting("cube_pick", 901), "expert", 901)
    u = recorder.robot.workspace.scale
    height = track.environment_state[:, 5] / u
    assert height.max() > height[-1] + 0.02
    assert track.measures["lift_m"] == pytest.approx(0.024 * u, abs=0.001 * u)
    held = track.state[:, -1].min()
    assert track.state[-1, -1] > held + 0.03


@pytest.mark.parametrize("arm", ARMS)
def test_a_state_saved_with_the_cube_in_the_air_continues_bit_for_bit(recorders, arm):
    recorder = recorders[arm]
    setting = recorder.setting("cube_pick", 901)
    track = recorder.simulate(setting, "expert", 901)
    simulation, lifted = setting.simulation(), int(track.environment_state[:, 5].argmax())
    simulation.reset(draw_start(setting.task, setting.scene, recorder.kinematics, 901))
    for command in track.action[:lifted]:
        simulation.step(command)
    assert simulation.read().rigid["cube"][2] > 0.04 * setting.task.u
    other = setting.simulation()
    other.set_state(simulation.get_state())
    for command in track.action[lifted:]:
        simulation.step(command)
        other.step(command)
        np.testing.assert_array_equal(other.get_state(), simulation.get_state())


@pytest.mark.parametrize("name", RIGID)
def test_a_thing_that_is_flung_comes_to_rest(name):
    """Without drag, a disc that the arm had tipped wobbled on its rim for ever, or rolled off the table."""
    robot = get_robot("so101")
    scene = build_scene(robot, get_task(name)(robot).props())
    model, data, rng = scene.model, mujoco.MjData(scene.model), np.random.default_rng(0)
    thing, first, u = scene.bodies[THING[name]], int(model.body(THING[name]).dofadr[0]), robot.workspace.scale
    for _ in range(5):
        mujoco.mj_resetData(model, data)
        data.qpos[scene.arm_qpos] = robot.rest
        data.ctrl[scene.actuators] = robot.to_actuator(robot.command(np.array(robot.rest), 0.0))
        turn = rng.normal(size=4)
        data.qpos[thing.qpos] = [*robot.workspace.at(0.1, 0.6, 0.08), *(turn / np.linalg.norm(turn))]
        data.qvel[first : first + 3] = rng.normal(0.0, 0.3 * u, 3)
        data.qvel[first + 3 : first + 6] = rng.normal(0.0, 15.0, 3)
        mujoco.mj_step(model, data, 1000)
        assert np.linalg.norm(data.qvel[first : first + 3]) < 0.01 * u
        assert np.linalg.norm(data.qvel[first + 3 : first + 6]) < 0.3


@pytest.mark.parametrize("name", RIGID)
def test_factors_change_the_thing(name):
    robot = get_robot("panda")
    plain, varied = (
        build_scene(robot, get_task(name)(robot, factors).props(), factors).model
        for factors in (Factors(), Factors(size=1.2, mass=2.0, friction=0.5, colour=0.3))
    )
    geom = int(plain.body(THING[name]).geomadr[0])
    assert varied.body(THING[name]).mass[0] == pytest.approx(2.0 * plain.body(THING[name]).mass[0])
    assert varied.geom_size[geom][0] == pytest.approx(1.2 * plain.geom_size[geom][0])
    assert varied.geom_friction[geom][0] == pytest.approx(0.5 * plain.geom_friction[geom][0])
    assert np.abs(varied.geom_rgba[geom] - plain.geom_rgba[geom]).max() > 0.3


def test_the_fixed_finger_is_where_the_gripper_says():
    robot = get_robot("so101")
    gripper, two_sided = robot.gripper, get_robot("panda").gripper
    assert gripper is not None and gripper.fixed is not None and two_sided is not None
    model = build_scene(robot, get_task("reach")(robot).props()).model
    finger, tool = model.geom("arm/fixed_finger"), model.site("arm/tool")
    inner_face = finger.pos[1] + finger.size[1]
    assert gripper.fixed == pytest.approx(tool.pos[1] - inner_face, abs=1e-4)
    assert gripper.middle(2 * gripper.fixed) == pytest.approx(0.0)
    assert two_sided.middle(0.05) == 0.0


def test_poses_tell_yaw_and_tilt():
    for yaw in (-3.0, -0.5, 0.0, 2.0):
        pose = np.array([0, 0, 0, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)])
        assert yaw_of(pose) == pytest.approx(yaw)
        assert tilt_of(pose) == pytest.approx(0.0, abs=1e-6)
    assert tilt_of(np.array([0, 0, 0, np.cos(0.4), np.sin(0.4), 0, 0])) == pytest.approx(0.8)
    assert square_turn(1.5) == pytest.approx(1.5 - np.pi / 2)
    assert square_turn(-0.7) == pytest.approx(-0.7)


@pytest.mark.parametrize("arm", ARMS)
def test_the_documented_example_is_a_whole_task(knock_over, recorders, arm):
    assert len(EXAMPLE.read_text().splitlines()) < 80
    assert load_task_file(EXAMPLE) == (knock_over,)  # a second time changes nothing
    for seed in range(3):
        track = recorders[arm].simulate(recorders[arm].setting(knock_over, seed), "expert", seed)
        assert track.success[-1]
        assert track.measures["tilt_rad"] == pytest.approx(np.pi / 2, abs=0.05)


def test_the_documented_example_is_seen(knock_over):
    recorder = Recorder(size=64)
    setting = recorder.setting(knock_over, 0)
    simulation = setting.simulation()
    simulation.reset(draw_start(setting.task, setting.scene, recorder.kinematics, 0))
    assert setting.renderer is not None
    pixels = setting.renderer.render(simulation.visible[None])["front"][0].astype(int)
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    assert ((blue > 2 * green) & (red > 1.5 * green)).sum() > 15


def test_task_files_that_are_none_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no task file at nowhere"):
        load_task_file("nowhere.py")
    empty = tmp_path / "empty.py"
    empty.write_text("")
    with pytest.raises(ConfigError, match="registers no task"):
        load_task_file(empty)
