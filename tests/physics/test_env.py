"""What is peculiar to the physics environment; the shared contract is in tests/contracts."""

from __future__ import annotations

import importlib.metadata
import warnings
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import robosim.physics
from robosim.errors import ConfigError, UnsupportedError
from robosim.physics import engine
from robosim.physics.env import PhysicsEnv, make_spec
from robosim.physics.recording import Recorder
from robosim.physics.variation import Variation


@pytest.fixture(scope="module")
def spec():
    return make_spec(size=16)


def test_gymnasiums_checker_accepts_the_single_env(spec):
    env = gymnasium.make(robosim.physics.ENV_ID, env_spec=spec, task="soft_push")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Absolute joint targets aren't symmetric, and measured joints have no sharp bounds.
        warnings.filterwarnings("ignore", message=".*(symmetric and normalized|infinity).*")
        check_env(env.unwrapped)
    assert env.unwrapped.render().shape == (16, 16, 3)


def test_make_vec_gives_the_vector_env(spec):
    env = gymnasium.make_vec(
        robosim.physics.ENV_ID, num_envs=2, vectorization_mode="vector_entry_point", spec=spec
    )
    assert env.unwrapped.num_envs == 2


def test_a_state_starts_another_row_exactly_there(spec):
    env, other = (PhysicsEnv(spec, task="soft_push", num_envs=2) for _ in range(2))
    observation, _ = env.reset(seed=[3, 4])
    command = observation["agent_pos"].copy()
    command[:, 0] += 0.15
    for _ in range(2):
        env.step(command)
    other.reset(seed=[11, 12], options={"state": [None, env.get_state(0)]})
    assert not np.array_equal(other.get_state(0)["physics"], env.get_state(0)["physics"])
    for _ in range(3):
        left, right = env.step(command)[0], other.step(command[[0, 0]])[0]
        assert np.array_equal(env.get_state(0)["physics"], other.get_state(1)["physics"])
        assert np.array_equal(left["pixels"]["front"][0], right["pixels"]["front"][1])


def test_varied_rows_look_like_recorded_episodes_and_are_saved_with_their_factors(spec):
    """Every row has a scene of its own; a state brings its factors along to another row."""
    varied = Variation(size=(0.8, 1.2), camera=(0.0, 0.1), colour=(-0.2, 0.2))
    env = PhysicsEnv(spec, task="soft_push", num_envs=3, variation=varied)
    first, _ = env.reset(seed=[4, 5, 6])
    recorder = Recorder(size=16, variation=varied)
    for row, seed in enumerate((4, 5, 6)):
        episode = recorder.record("soft_push", "explore", seed)
        assert np.array_equal(first["pixels"]["front"][row], episode.frames["front"][0])
        assert episode.factors == varied.sample(seed).to_json()
    command = first["agent_pos"].copy()
    command[:, 0] += 0.1
    env.step(command)
    states = [env.get_state(row) for row in range(3)]
    wanted = [env.step(command)[0]["pixels"]["front"].copy() for _ in range(2)]
    mask = np.array([True, False, True])
    env.reset(options={"state": [states[2], None, states[0]], "reset_mask": mask})
    for frames in wanted:
        shown = env.step(command[[2, 1, 0]])[0]["pixels"]["front"]
        assert np.array_equal(shown[[0, 2]], frames[[2, 0]])


def test_a_state_of_another_task_is_refused(spec):
    """cube_pick's and push_target's states have the same length."""
    picking, pushing = (PhysicsEnv(task=task, render_pixels=False) for task in ("cube_pick", "push_target"))
    picking.reset(seed=0)
    with pytest.raises(ValueError, match="panda and cube_pick doesn't fit panda and push_target"):
        pushing.reset(options={"state": [picking.get_state(0)]})


def test_seeds_choose_starts(spec):
    env = PhysicsEnv(spec, num_envs=3, seed=0)
    _, first = env.reset(seed=[1, 2, 1])
    assert np.array_equal(first["goal"][0], first["goal"][2])
    assert not np.array_equal(first["goal"][0], first["goal"][1])
    _, second = env.reset()
    assert len(np.unique(np.concatenate([first["goal"], second["goal"]]), axis=0)) == 4
    _, int_seed = env.reset(seed=1)
    assert np.array_equal(int_seed["goal"][:2], first["goal"][:2])


def test_an_unseeded_env_is_repeatable_from_its_own_seed(spec):
    goals = [PhysicsEnv(spec, num_envs=2, seed=5, render_pixels=False).reset()[1]["goal"] for _ in range(2)]
    assert np.array_equal(goals[0], goals[1])


def test_pixels_can_be_left_out(spec):
    env = PhysicsEnv(spec, render_pixels=False)
    observation, _ = env.reset(seed=0)
    assert not observation["pixels"]["front"].any() and env.observation_space.contains(observation)


def test_random_commands_raise_no_warning(spec):
    env = PhysicsEnv(spec, task="soft_push", num_envs=2, render_pixels=False)
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(15):
        observation, reward, *_ = env.step(env.action_space.sample())
        assert np.isfinite(observation["agent_pos"]).all() and np.isfinite(reward).all()
    assert all(row.warnings == 0 for row in env._rows)


def test_errors_name_what_is_wrong(spec, monkeypatch):
    with pytest.raises(ConfigError, match=r"reach.*soft_push"):
        PhysicsEnv(spec, task="fold")
    with pytest.raises(UnsupportedError, match="ee_delta"):
        PhysicsEnv(replace(spec, action_kind="ee_delta"))
    with pytest.raises(UnsupportedError, match="10 Hz"):
        PhysicsEnv(replace(spec, fps=30))
    env = PhysicsEnv(spec, num_envs=2, render_pixels=False)
    with pytest.raises(RuntimeError, match="reset first"):
        env.step(np.zeros((2, 8)))
    with pytest.raises(ValueError, match="3 seeds for 2 rows"):
        env.reset(seed=[1, 2, 3])
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"\(2, 8\)"):
        env.step(np.zeros((2, 7)))
    with pytest.raises(ValueError, match="row 1 aren't finite"):
        env.step(np.array([[0.0] * 8, [np.nan] * 8]))
    with pytest.raises(ValueError, match="reset_mask"):
        env.reset(options={"reset_mask": [1, 0]})


def test_an_old_mujoco_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(engine, "version", lambda name: "3.8.1")
    with pytest.raises(UnsupportedError, match=r"needs MuJoCo 4\.0 or newer.*3\.8\.1.*uv pip install"):
        engine.require_mujoco()
    assert importlib.metadata.version("mujoco").startswith("4.")
