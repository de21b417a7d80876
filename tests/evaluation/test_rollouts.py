import numpy as np
import pytest

from robosim.errors import CheckpointError
from robosim.evaluation.policies import RANDOM_HOLD, CommandRange, RandomPolicy, command_range
from robosim.evaluation.rollouts import concatenate, load_rollouts, run_policy, save_rollouts

SEEDS = [3, 4, 5, 6, 7, 8]


def test_a_working_policy_succeeds_and_rows_are_padded(make_env, seek_policy):
    env = make_env(len(SEEDS))
    rollouts = run_policy(env, seek_policy, SEEDS, camera="front")
    horizon = env.task_spec.horizon
    assert rollouts.success.all() and (rollouts.length < horizon).all()
    assert env.steps_taken == rollouts.length.max() < horizon, "stops when every row is done"
    assert rollouts.frames.shape == (len(SEEDS), horizon + 1, 32, 32, 3)
    assert (rollouts.final_distance <= env.task_spec.success_distance).all()
    for row, length in enumerate(rollouts.length):
        assert (rollouts.distance[row, length:] == rollouts.distance[row, length]).all()
        assert (rollouts.reward[row, length:] == 0).all()
        decrease = rollouts.distance[row, 0] - rollouts.distance[row, -1]
        assert rollouts.reward[row].sum() == pytest.approx(decrease + 1, abs=1e-5)


def test_row_t_of_action_acts_between_frames_t_and_t_plus_1(make_env, seek_policy):
    rollouts = run_policy(make_env(len(SEEDS)), seek_policy, SEEDS)
    for row, length in enumerate(rollouts.length):
        np.testing.assert_allclose(rollouts.agent_pos[row, 1 : length + 1], rollouts.action[row, :length])


def test_the_same_seeds_give_the_same_episodes_in_any_batch(make_env, recorded_range):
    whole = run_policy(make_env(6), RandomPolicy(recorded_range, SEEDS), SEEDS, camera="front")
    halves = [
        run_policy(make_env(3), RandomPolicy(recorded_range, part), part, camera="front")
        for part in (SEEDS[:3], SEEDS[3:])
    ]
    joined = concatenate(halves)
    for name in ("seeds", "success", "length", "distance", "action", "frames"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(joined, name))


def test_seeds_must_fit_the_rows(make_env, seek_policy):
    with pytest.raises(ValueError, match="2 seeds for an environment of 3 rows"):
        run_policy(make_env(3), seek_policy, [1, 2])


def test_random_policy_moves_smoothly_within_what_was_recorded():
    step = np.float32([0.3, 0.1, 0.0])
    recorded = CommandRange(np.float32([-0.5, -2, 0]), np.float32([0.9, 2, 1]), step)
    policy = RandomPolicy(recorded, [0])
    policy.reset(1)
    observation = {"agent_pos": np.float32([[0.9, 0.0, 0.5]])}
    commands = np.concatenate([policy.act(observation, ["x"]) for _ in range(200)])
    steps = np.diff(commands, axis=0)
    assert (np.abs(steps) <= step + 1e-6).all()
    assert (commands >= recorded.lower).all() and (commands <= recorded.upper).all()
    assert (commands[:, 2] == 0.5).all(), "a joint that never moves in the data stays"
    assert np.ptp(commands[:, 0]) > 0.5, "it gets somewhere"
    np.testing.assert_allclose(steps[: RANDOM_HOLD - 1, 1], steps[0, 1], atol=1e-6)


def test_command_range_counts_no_increment_across_episodes():
    actions = np.float32([[0.0], [0.1], [0.2], [50.0], [50.1], [50.2]])
    starts = np.array([True, False, False, True, False, False])
    recorded = command_range(actions, starts)
    assert recorded.step == pytest.approx(0.1, abs=1e-4)
    assert 0 <= recorded.lower < 0.1 and 50.1 < recorded.upper <= 50.2


def test_rollouts_survive_the_disk_and_damage_is_named(make_env, seek_policy, tmp_path):
    rollouts = run_policy(make_env(6), seek_policy, SEEDS, camera="front")
    path = tmp_path / "reach_physics.npz"
    save_rollouts(path, rollouts, kept_frames=2)
    again = load_rollouts(path)
    np.testing.assert_array_equal(again.distance, rollouts.distance)
    np.testing.assert_array_equal(again.frames, rollouts.frames[:2])
    data = path.read_bytes()
    refused = 0
    for place in range(100, len(data), len(data) // 40):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        try:
            damaged = load_rollouts(path)
        except CheckpointError as error:
            assert "reach_physics.npz" in str(error)
            refused += 1
        else:  # the flip hit a byte that carries nothing, a time stamp of the archive
            np.testing.assert_array_equal(damaged.frames, again.frames)
            np.testing.assert_array_equal(damaged.distance, again.distance)
    assert refused > 20
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"reach_physics\.npz is damaged"):
        load_rollouts(path)
    with pytest.raises(CheckpointError, match="missing"):
        load_rollouts(tmp_path / "nothing.npz")
