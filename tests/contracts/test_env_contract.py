"""The contract that both simulators keep, so that a policy never knows which one it is in."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from robosim.spec import CONTROL_HZ, SUCCESS_FRAMES


def assert_equal(left, right) -> None:
    """Bit-identical observations or infos."""
    assert left.keys() == right.keys()
    for key, value in left.items():
        if isinstance(value, dict):
            assert_equal(value, right[key])
        else:
            assert np.array_equal(value, right[key]), key


def rows_of(tree, rows):
    return {key: rows_of(v, rows) if isinstance(v, dict) else v[rows] for key, v in tree.items()}


def hold(observation) -> np.ndarray:
    """The command that stays where the arm is."""
    return observation["agent_pos"].copy()


def test_spaces(make_env):
    env = make_env(num_envs=2)
    spec = env.env_spec
    joints = spec.robot.num_joints
    assert isinstance(env, gymnasium.vector.VectorEnv)
    assert set(env.single_observation_space.spaces) == {"pixels", "agent_pos"}
    for camera in spec.cameras:
        space = env.single_observation_space["pixels"][camera]
        assert space.shape == (spec.size, spec.size, 3) and space.dtype == np.uint8
    assert env.single_observation_space["agent_pos"] == gymnasium.spaces.Box(
        -np.inf, np.inf, (joints,), np.float32
    )
    assert env.single_action_space == gymnasium.spaces.Box(
        np.float32(spec.robot.lower), np.float32(spec.robot.upper), dtype=np.float32
    )
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    observation, *_ = env.step(hold(observation))
    assert env.observation_space.contains(observation)


def test_what_a_step_returns(make_env):
    env = make_env(num_envs=2)
    observation, at_reset = env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(hold(observation))
    assert reward.shape == (2,) and reward.dtype == np.float32
    assert terminated.shape == truncated.shape == (2,)
    assert terminated.dtype == truncated.dtype == bool
    for one in (at_reset, info):
        assert set(one) >= {"is_success", "task_distance", "tool", "object", "goal"}
        assert one["is_success"].dtype == bool and one["is_success"].shape == (2,)
        assert one["task_distance"].dtype == np.float32 and one["task_distance"].shape == (2,)
        assert all(one[name].shape == (2, 3) for name in ("tool", "object", "goal"))


def test_what_lerobot_asks_for(make_env):
    env = make_env(num_envs=2)
    env.reset(seed=[5, 6], options={"lerobot_new_rollout": True})
    task = env.env_spec.task("reach")
    assert env.call("task") == ("reach", "reach")
    assert env.call("task_description") == (task.instruction,) * 2
    assert env.get_attr("_max_episode_steps") == (task.horizon,) * 2
    assert env.metadata["render_fps"] == CONTROL_HZ
    assert env.metadata["autoreset_mode"] == AutoresetMode.DISABLED
    for frames in (env.render(), env.call("render")):
        assert isinstance(frames, tuple) and len(frames) == 2
        assert frames[0].dtype == np.uint8 and frames[0].shape == (env.env_spec.size, env.env_spec.size, 3)


def test_the_same_seed_gives_the_same_bits(make_env):
    results = []
    for _ in range(2):
        env = make_env(num_envs=2)
        observation, _ = env.reset(seed=[3, 9])
        command = hold(observation)
        for _ in range(3):
            command[:, 0] += 0.05
            observation, reward, _, _, info = env.step(command)
        results.append((observation, reward, info))
    assert_equal(results[0][0], results[1][0])
    assert np.array_equal(results[0][1], results[1][1])
    assert_equal(results[0][2], results[1][2])


def test_a_row_does_not_depend_on_the_batch(make_env):
    batch, alone = make_env(num_envs=3), make_env(num_envs=1)
    many, _ = batch.reset(seed=[7, 8, 9])
    one, _ = alone.reset(seed=[8])
    command = hold(many)
    for step in range(4):
        # Single and batched kernels may round differently; noise of another seed would not stay this close.
        assert np.allclose(one["agent_pos"][0], many["agent_pos"][1], atol=1e-3), step
        for camera, frames in one["pixels"].items():
            difference = np.abs(frames[0].astype(int) - many["pixels"][camera][1])
            assert (difference > 8).mean() < 0.01, step
        command[:, 0] += 0.05
        many, *_ = batch.step(command)
        one, *_ = alone.step(command[1:2])


def test_an_impulse_shows_in_the_next_frame_and_no_earlier(make_env):
    """action_t acts between frames t and t + 1: a shift by one frame in either direction fails."""
    env = make_env()
    observation, _ = env.reset(seed=4)
    still = hold(observation)
    impulse = still.copy()
    impulse[0, 0] += 0.15
    angles = [observation["agent_pos"][0, 0]]
    for command in (still, still, impulse, impulse):
        observation, *_ = env.step(command)
        angles.append(observation["agent_pos"][0, 0])
    moved = np.abs(np.diff(angles))
    assert moved[2] > 0.03
    assert moved[:2].max() < 0.5 * moved[2]


def test_reward_is_the_decrease_of_the_distance(make_env):
    env = make_env(num_envs=2, success_distance=0.0)
    observation, info = env.reset(seed=1)
    command = hold(observation)
    for _ in range(3):
        command[:, 0] += 0.08
        before = info["task_distance"]
        _, reward, _, _, info = env.step(command)
        assert np.allclose(reward, before - info["task_distance"], atol=1e-5)
    assert np.abs(reward).max() > 1e-4


def test_success_needs_consecutive_frames_and_then_terminates(make_env):
    env = make_env(num_envs=2, success_distance=10.0)
    observation, info = env.reset(seed=1)
    assert not info["is_success"].any()
    for step in range(1, SUCCESS_FRAMES + 1):
        before = info["task_distance"]
        observation, reward, terminated, truncated, info = env.step(hold(observation))
        assert (terminated == (step == SUCCESS_FRAMES)).all()
        assert np.array_equal(info["is_success"], terminated)
    assert np.allclose(reward, before - info["task_distance"] + 1.0, atol=1e-5)
    assert not truncated.any()


def test_a_finished_row_is_frozen(make_env):
    env = make_env(num_envs=2, horizon=2)
    observation, _ = env.reset(seed=1)
    command = hold(observation)
    for _ in range(2):
        last, _, terminated, truncated, info = env.step(command)
    assert truncated.all() and not terminated.any()
    moved = command.copy()
    moved[:, 0] += 0.2
    for _ in range(2):
        frozen, reward, terminated, truncated, after = env.step(moved)
        assert_equal(frozen, last)
        assert_equal(after, info)
        assert not reward.any() and truncated.all() and not terminated.any()


def test_a_successful_row_keeps_its_success(make_env):
    env = make_env(success_distance=10.0)
    observation, _ = env.reset(seed=1)
    for _ in range(SUCCESS_FRAMES + 2):
        _, reward, terminated, truncated, info = env.step(hold(observation))
    assert terminated.all() and info["is_success"].all() and not truncated.any() and not reward.any()


def test_single_rows_can_be_restarted(make_env):
    env = make_env(num_envs=3, horizon=2)
    observation, first = env.reset(seed=[1, 2, 3])
    command = hold(observation)
    for _ in range(2):
        last, *_ = env.step(command)
    mask = np.array([False, True, False])
    observation, info = env.reset(seed=[1, 2, 3], options={"reset_mask": mask})
    assert_equal(rows_of(observation, ~mask), rows_of(last, ~mask))
    assert_equal(rows_of(info, mask), rows_of(first, mask))
    observation, _, _, truncated, _ = env.step(command)
    assert truncated.tolist() == [True, False, True]
    assert_equal(rows_of(observation, ~mask), rows_of(last, ~mask))
    _, _, _, truncated, _ = env.step(command)
    assert truncated.all()


def test_seeds_are_an_int_a_list_or_nothing(make_env):
    env = make_env(num_envs=2)
    listed, _ = env.reset(seed=[4, 5])
    counted, _ = env.reset(seed=4)
    assert_equal(listed, counted)
    env.reset()
    env.reset(seed=[4, None])
    with pytest.raises(ValueError, match="seed"):
        env.reset(seed=[1, 2, 3])


def test_unknown_options_are_ignored_with_one_warning(make_env):
    env = make_env()
    with pytest.warns(UserWarning, match="surprise"):
        env.reset(seed=0, options={"surprise": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env.reset(seed=0, options={"surprise": 1, "lerobot_new_rollout": True})


def test_results_are_not_overwritten_by_later_steps(make_env):
    env = make_env()
    observation, info = env.reset(seed=2)
    kept, distance = observation["agent_pos"].copy(), info["task_distance"].copy()
    frames = {camera: image.copy() for camera, image in observation["pixels"].items()}
    command = hold(observation)
    command[:, 0] += 0.2
    env.step(command)
    assert np.array_equal(observation["agent_pos"], kept)
    assert np.array_equal(info["task_distance"], distance)
    assert all(np.array_equal(observation["pixels"][camera], image) for camera, image in frames.items())
