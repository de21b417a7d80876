"""What `LearnedEnv` does beyond the shared contract: contexts, joints, latent actions, refusals."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from robosim.spec import EnvSpec, RobotSpec, TaskSpec
from robosim.world_model.learned_env import FIRST_CORRECTION, LAST_CORRECTION, corrected
from robosim.world_model.protocols import ProbeReading
from tests.contracts.toy_learned import ToyAdapter, ToyProbe, make_toy_env

ROBOT = RobotSpec("arm", tuple("abcdef"), ("rad",) * 6, (-1.0,) * 6, (1.0,) * 6)
SPEC = EnvSpec(ROBOT, (TaskSpec("reach", "Touch it.", 12, 0.01, "tool"),), size=32)


def frames(rows: int, context: int = 1, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (rows, context, 32, 32, 3), dtype=np.uint8)


def test_starts_from_the_given_frame_and_joints():
    env = make_toy_env(SPEC, 2)
    joints = np.full((2, 6), 0.3, np.float32)
    given = frames(2)
    observation, _ = env.reset(seed=0, options={"frames": given, "agent_pos": joints})
    assert np.array_equal(observation["agent_pos"], joints)
    shown = env.world.decode_tokens(env.world.encode_frames(torch.from_numpy(given[:, -1]))).numpy()
    assert np.array_equal(observation["pixels"]["front"], shown)


def test_without_joints_the_probe_gives_them():
    env = make_toy_env(SPEC, 2)
    observation, _ = env.reset(seed=0, options={"frames": frames(2)})
    assert np.allclose(observation["agent_pos"], ToyProbe(6).joints)


def test_the_last_command_before_the_start_can_be_given():
    given = {"frames": frames(2), "agent_pos": np.zeros((2, 6), np.float32)}
    env = make_toy_env(SPEC, 2)
    env.reset(seed=0, options=given)
    assert np.array_equal(env._command, given["agent_pos"])
    told = np.full((2, 6), 0.2, np.float32)
    env.reset(seed=0, options=given | {"previous_command": told})
    assert np.array_equal(env._command, told)


def test_context_frames_change_what_follows():
    env = make_toy_env(SPEC, 1)
    long, other = frames(1, 3), frames(1, 3)
    other[:, :2] = frames(1, 2, seed=9)
    kept = []
    for given in (long, other):
        env.reset(seed=0, options={"frames": given})
        kept.append(env._state.cache.keys.clone())
    assert not torch.allclose(kept[0], kept[1])


def test_start_frames_follow_from_the_seed():
    env = make_toy_env(SPEC, 2)
    first, again = env.reset(seed=5)[0], env.reset(seed=5)[0]
    assert np.array_equal(first["pixels"]["front"], again["pixels"]["front"])
    several = {env.reset(seed=[s, 0])[0]["pixels"]["front"][0].tobytes() for s in range(12)}
    assert len(several) > 2


def test_command_and_latent_modes_take_the_same_path():
    command_env = make_toy_env(SPEC, 2)
    latent_env = make_toy_env(SPEC, 2, action_mode="latent")
    start = {"frames": frames(2), "agent_pos": np.zeros((2, 6), np.float32)}
    by_command, _ = command_env.reset(seed=0, options=start)
    latent_env.reset(seed=0, options=start)
    latent = np.full((2, 5), 0.5, np.float32)
    joints = torch.from_numpy(by_command["agent_pos"])
    command = ToyAdapter().latent_to_command(torch.from_numpy(latent), joints, joints).numpy()
    a, b = command_env.step(command)[0], latent_env.step(latent)[0]
    assert np.array_equal(a["pixels"]["front"], b["pixels"]["front"])
    assert np.allclose(a["agent_pos"], b["agent_pos"])
    assert latent_env.action_space.shape == (2, 5)


def test_joints_move_towards_a_reading_the_more_the_longer_ago_the_start_was():
    joints, seen, place = torch.zeros(5, 3), torch.ones(5, 3), torch.zeros(5, 3)
    moved = corrected(joints, ProbeReading(seen, place, place, place), np.array([0, 1, 10, 20, 1000]))
    assert not moved[0].any(), "at the start the joints are known"
    assert (moved.diff(dim=0) > 0).all()
    assert FIRST_CORRECTION < moved[1, 0] < 2 * FIRST_CORRECTION
    assert torch.allclose(moved[-1], torch.full((3,), LAST_CORRECTION))


def test_a_row_that_starts_again_is_corrected_as_at_its_start():
    """By its own count of frames, not by that of the others."""
    given = {"frames": frames(2), "agent_pos": np.zeros((2, 6), np.float32)}
    still, env, fresh = np.zeros((2, 6), np.float32), make_toy_env(SPEC, 2), make_toy_env(SPEC, 2)
    env.reset(seed=0, options=given)
    for _ in range(8):
        env.step(still)
    env.reset(seed=0, options=given | {"reset_mask": np.array([True, False])})
    fresh.reset(seed=0, options=given)
    after, first = (simulator.step(still)[0]["agent_pos"] for simulator in (env, fresh))
    assert first[0].any() and np.array_equal(after[0], first[0])
    assert not np.array_equal(after[1], first[1])


def test_at_a_start_even_a_reading_that_is_none_leaves_known_joints():
    joints, place = torch.ones(2, 3), torch.zeros(2, 3)
    unread = ProbeReading(torch.full((2, 3), torch.nan), place, place, place)
    assert torch.equal(corrected(joints, unread, np.array([0, 0])), joints)


def test_joints_move_towards_a_reading_as_far_as_it_is_believed():
    joints, seen, place = torch.zeros(1, 3), torch.ones(1, 3), torch.zeros(1, 3)
    wholly = corrected(joints, ProbeReading(seen, place, place, place), np.array([7]))
    reading = ProbeReading(seen, place, place, place, trust=torch.tensor([0.0, 0.5, 1.0]))
    assert torch.allclose(corrected(joints, reading, np.array([7])), wholly * torch.tensor([0.0, 0.5, 1.0]))


def test_without_a_judge_nothing_succeeds_and_the_horizon_truncates():
    env = make_toy_env(SPEC, 2)
    env = type(env)(
        env.world, SPEC, "reach", ToyAdapter(), ToyProbe(6), None, 2, start_frames=env.start_frames
    )
    _, info = env.reset(seed=0)
    for step in range(12):
        assert np.isinf(info["task_distance"]).all() and not env._truncated.any(), step
        _, reward, terminated, truncated, info = env.step(np.zeros((2, 6)))
        assert np.array_equal(reward, [0, 0]) and not terminated.any()
    assert truncated.all()


def test_the_goal_is_read_once_at_the_reset():
    env = make_toy_env(SPEC, 1)
    _, info = env.reset(seed=0)
    for _ in range(3):
        _, _, _, _, after = env.step(np.full((1, 6), 0.4, np.float32))
    assert np.array_equal(info["goal"], after["goal"])
    assert not np.array_equal(info["tool"], after["tool"])


@pytest.mark.parametrize(
    "wrong", [frames(2)[:, 0], frames(3), frames(2).astype(np.float32), frames(2)[:, :, :16]]
)
def test_frames_of_a_wrong_kind_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=r"options\['frames'\] must be uint8 \[2, C, 32, 32, 3\]"):
        make_toy_env(SPEC, 2).reset(options={"frames": wrong})


def test_the_spec_must_fit_the_world():
    env = make_toy_env(SPEC, 1)
    big = EnvSpec(ROBOT, SPEC.tasks, size=64)
    with pytest.raises(ValueError, match="64 px, the world model makes 32 px"):
        type(env)(env.world, big, "reach", ToyAdapter(), ToyProbe(6), env.judge)


def test_the_learned_simulator_needs_no_mujoco():
    code = "import sys, robosim.world_model, robosim.adapter; sys.exit('mujoco' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
