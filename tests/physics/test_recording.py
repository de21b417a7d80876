"""Recorded episodes: their length, their alignment, their seeds."""

from __future__ import annotations

import numpy as np
import pytest

from robosim.physics.env import PhysicsEnv
from robosim.physics.recording import TOOL_NOISE
from robosim.physics.tasks import get_task, make_spec


@pytest.fixture(scope="module")
def episode(recorder):
    return recorder.record("reach", "expert", seed=7)


def test_an_episode_fits_its_spec(episode):
    episode.check(make_spec(size=32))
    assert episode.success[-1] and not episode.success[0]
    assert episode.instruction == get_task("reach").spec.instruction


def test_the_same_seed_records_the_same_bits(recorder, episode):
    again = recorder.record("reach", "expert", seed=7)
    other = recorder.record("reach", "expert", seed=8)
    for name in ("state", "action", "environment_state", "reward", "success"):
        assert np.array_equal(getattr(again, name), getattr(episode, name))
    assert np.array_equal(again.frames["front"], episode.frames["front"])
    assert not np.array_equal(other.frames["front"][0], episode.frames["front"][0])


def test_the_env_replays_an_episode_from_its_seed_and_actions(episode):
    """Row t of the recording is observation t and the action that leads to observation t + 1: a shift by one
    frame anywhere fails here."""
    env = PhysicsEnv(make_spec(size=32), task="reach")
    observation, _ = env.reset(seed=episode.seed)
    assert np.array_equal(observation["pixels"]["front"][0], episode.frames["front"][0])
    succeeded_at = int(np.argmax(episode.success))
    for t in range(succeeded_at):
        observation, reward, terminated, _, info = env.step(episode.action[t : t + 1])
        assert np.allclose(observation["agent_pos"][0], episode.state[t + 1], atol=1e-5)
        assert (
            np.abs(observation["pixels"]["front"][0].astype(int) - episode.frames["front"][t + 1]).max() <= 8
        )
        assert reward[0] == pytest.approx(episode.reward[t + 1], abs=1e-4)
        assert np.allclose(info["tool"][0], episode.environment_state[t + 1, :3], atol=1e-4)
    assert terminated[0] and info["is_success"][0]


def test_exploration_lasts_to_the_horizon_and_mostly_fails(tracker):
    tracks = [tracker.simulate(get_task("soft_push"), "explore", seed) for seed in range(8)]
    moved = [np.linalg.norm(np.ptp(track.environment_state[:, 3:5], axis=0)) for track in tracks]
    assert {len(track.success) for track in tracks} == {get_task("soft_push").spec.horizon + 1}
    assert sum(track.success[-1] for track in tracks) <= 3
    assert sum(distance > 0.03 for distance in moved) >= 4, "the body must often be pushed"
    assert sum(track.warnings for track in tracks) == 0


def test_commands_hold_the_null_space(tracker):
    """The redundancy must not be free: the joints follow from the tool's place, to what one camera can tell."""
    tracks = [tracker.simulate(get_task("reach"), "explore", seed) for seed in range(3)]
    for track in tracks:
        for state, place in zip(track.state[::8], track.environment_state[::8], strict=True):
            joints = tracker.kinematics.solve(place[:3].astype(float))
            assert np.abs(joints - state[:-1]).max() < 0.25
    assert TOOL_NOISE > 0
