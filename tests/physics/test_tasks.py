"""Starts, goals, success and experts of reach and soft_push; and what every task must be."""

from __future__ import annotations

import numpy as np
import pytest

from robosim.errors import ConfigError
from robosim.physics.arms.catalogue import ROBOTS
from robosim.physics.engine import mujoco
from robosim.physics.recording import FRAMES_AFTER_SUCCESS, Recorder, draw_start
from robosim.physics.rendering.renderer import Renderer
from robosim.physics.simulation import Simulation
from robosim.physics.tasks import TASKS, get_task, make_spec, register_task
from robosim.physics.variation import Factors, Variation
from robosim.spec import SUCCESS_FRAMES

PAIRS = [(task, robot) for task in TASKS for robot in ROBOTS if TASKS[task].supports(ROBOTS[robot])]


@pytest.fixture(scope="module")
def recorders() -> dict[str, Recorder]:
    return {robot: Recorder(robot, size=None) for robot in ROBOTS}


def starts(recorder: Recorder, task: str, count: int):
    """(Simulation, Reading, Task) of fresh episodes."""
    for seed in range(count):
        setting = recorder.setting(task, seed)
        simulation = Simulation(setting.scene)
        simulation.reset(draw_start(setting.task, setting.scene, recorder.kinematics, seed))
        yield simulation, simulation.read(), setting.task


def test_reach_starts_away_from_a_free_goal(tracker):
    for _, reading, task in starts(tracker, "reach", 40):
        assert 0.09 <= np.linalg.norm(reading.tool - task.goal(reading)) <= 0.26


def test_soft_push_starts_six_to_fourteen_centimetres_away(tracker):
    lengths = [task.distance(reading) for _, reading, task in starts(tracker, "soft_push", 40)]
    assert min(lengths) >= 0.058 and max(lengths) <= 0.142
    assert max(lengths) - min(lengths) > 0.05


@pytest.mark.parametrize(("task", "robot"), PAIRS)
def test_every_start_is_at_rest_untouched_and_unlike_the_others(recorders, task, robot):
    recorder, objects, goals = recorders[robot], [], []
    u = recorder.robot.workspace.scale
    for simulation, reading, bound in starts(recorder, task, 6):
        objects.append(bound.object(reading))
        goals.append(bound.goal(reading))
        assert bound.distance(reading) > bound.success_distance * u, "an episode must not start solved"
        hold = recorder.robot.command(
            reading.agent_pos[: recorder.robot.num_arm_joints], reading.agent_pos[-1]
        )
        for _ in range(3):
            simulation.step(hold)
        assert np.linalg.norm(bound.object(simulation.read()) - objects[-1]) < 0.006 * u
        assert simulation.warnings == 0
    assert np.ptp(goals, axis=0)[:2].max() > 0.05 * u
    assert np.ptp(objects, axis=0)[:2].max() > 0.05 * u


@pytest.mark.parametrize(("task", "robot"), PAIRS)
def test_the_same_seed_gives_the_same_bits(recorders, task, robot):
    setting = recorders[robot].setting(task, seed=0)
    first, second = (recorders[robot].simulate(setting, "explore", seed=3) for _ in range(2))
    assert np.array_equal(first.visible, second.visible) and np.array_equal(first.action, second.action)
    goals = first.environment_state[:, 6:9]
    assert (goals == goals[0]).all(), "the learned simulator reads the goal once, at the start"
    frames = [Renderer(setting.scene, 32).render(track.visible[::20])["front"] for track in (first, second)]
    assert np.array_equal(*frames) and not np.array_equal(frames[0][0], frames[0][-1])


@pytest.mark.parametrize(("task", "robot"), PAIRS)
def test_factors_reach_the_model(recorders, task, robot):
    """Size, mass, friction and colour are each seen in the compiled scene of every task that has a thing."""
    recorder = recorders[robot]
    plain = recorder.setting(task, seed=0).scene.model
    has_thing = TASKS[task].subject == "object"
    changed = {
        "size": ("geom_size", "flex_vert0", "body_pos"),
        "mass": ("body_mass",),
        "friction": ("geom_friction", "flex_friction"),
        "colour": ("geom_rgba", "flex_rgba"),
        "light": ("light_diffuse",),
        "camera": ("cam_pos",),
        "texture": ("tex_data",),
    }
    for factor, arrays in changed.items():
        if not has_thing and factor in ("mass", "friction", "colour"):
            continue
        varied = Recorder(
            robot, size=None, variation=Variation(**{factor: 1.3 if factor != "colour" else 0.3})
        )
        model = varied.setting(task, seed=0).scene.model
        pairs = [(getattr(plain, name), getattr(model, name)) for name in arrays]
        assert any(a.shape != b.shape or not np.allclose(a, b) for a, b in pairs), factor


@pytest.mark.parametrize("task", ["reach", "soft_push"])
def test_experts_solve_unseen_starts(tracker, task):
    for seed in range(900, 905):
        track = tracker.simulate(tracker.setting(task, seed), "expert", seed)
        spec = get_task(task).spec(tracker.robot)
        assert track.success[-1], f"seed {seed}"
        assert track.warnings == 0
        first = int(np.argmax(track.success))
        distance = spec.distance(
            track.environment_state[:, :3], track.environment_state[:, 3:6], track.environment_state[:, 6:]
        )
        assert (distance[first - SUCCESS_FRAMES + 1 : first + 1] <= spec.success_distance + 1e-6).all()
        assert len(track.success) == first + 1 + FRAMES_AFTER_SUCCESS
        assert np.linalg.norm(np.diff(track.environment_state[:, :3], axis=0), axis=1).max() < 0.055


@pytest.mark.parametrize(("task", "robot"), PAIRS)
def test_wild_commands_leave_every_task_sound(recorders, task, robot):
    """Small version of the check that `pytest -m slow` makes."""
    shake(recorders[robot], task, steps=25)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "robot"), PAIRS)
def test_500_wild_steps_leave_every_task_sound(recorders, task, robot):
    shake(recorders[robot], task, steps=500)


def shake(recorder: Recorder, task: str, steps: int) -> None:
    """Random joint targets, redrawn every half second, over the whole of the joints' ranges.

    No thing's lowest point goes through the table. Fingertips driven into it at full speed may dip in for a moment: at
    1.4 m/s they move 6 mm a substep.
    """
    setting = recorder.setting(task, seed=1)
    simulation = setting.simulation()
    simulation.reset(draw_start(setting.task, setting.scene, recorder.kinematics, 1))
    spec, rng = recorder.robot.spec, np.random.default_rng(1)
    deepest, dip = -0.006 * recorder.robot.workspace.scale, -0.006
    command = simulation.read().agent_pos
    for step in range(steps):
        if step % 5 == 0:
            command = rng.uniform(spec.lower, spec.upper)
        simulation.step(command)
        reading = simulation.read()
        assert np.isfinite(simulation.visible).all(), step
        assert simulation.warnings == 0, step
        lows = [vertices[:, 2].min() for vertices in reading.soft.values()]
        lows += [lowest_point(setting.scene.model, name, pose) for name, pose in reading.rigid.items()]
        assert min(lows, default=0.0) > deepest and reading.tool[2] > dip, step


def lowest_point(model, name: str, pose: np.ndarray) -> float:
    """Height of the lowest point of a rigid thing's box or cylinder."""
    geom = int(model.body(name).geomadr[0])
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, pose[3:])
    along = np.abs(matrix.reshape(3, 3)[2])
    size = model.geom_size[geom]
    if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_CYLINDER:
        return float(pose[2] - size[0] * np.hypot(*along[:2]) - size[1] * along[2])
    assert model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_BOX
    return float(pose[2] - along @ size)


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(ConfigError, match=r"did you mean .cloth_fold.*reach, cube_pick"):
        get_task("fold")
    with pytest.raises(ConfigError, match="did you mean 'panda'"):
        make_spec(robot="pando")
    with pytest.raises(ConfigError, match="'reach' exists already"):
        register_task(get_task("reach"))


def test_factors_follow_from_the_seed_and_are_independent_of_each_other():
    wide = Variation(size=(0.8, 1.2), mass=(0.5, 2.0), camera=(0.0, 0.1))
    assert wide.sample(3) == wide.sample(3) != wide.sample(4)
    pinned = Variation(size=0.9, mass=(0.5, 2.0), camera=(0.0, 0.1)).sample(3)
    assert pinned.size == 0.9 and pinned.mass == wide.sample(3).mass
    assert Variation().sample(5) == Factors()
    with pytest.raises(ConfigError, match=r"variation\.size"):
        Variation(size=(1.2, 0.8))
