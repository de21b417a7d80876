"""Recorded episodes: their length, their alignment, their seeds."""

from __future__ import annotations

import numpy as np
import pytest

from robosim.errors import ConfigError
from robosim.physics.env import PhysicsEnv
from robosim.physics.recording import Recorder
from robosim.physics.tasks import get_task, make_spec


@pytest.fixture(scope="module")
def episode(recorder):
    return recorder.record("reach", "expert", seed=7)


def test_an_episode_fits_its_spec(episode):
    episode.check(make_spec(size=32))
    assert episode.success[-1] and not episode.success[0]
    assert episode.instruction == get_task("reach").instruction


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
    setting = tracker.setting("soft_push", seed=0)
    tracks = [tracker.simulate(setting, "explore", seed) for seed in range(8)]
    moved = [np.linalg.norm(np.ptp(track.environment_state[:, 3:5], axis=0)) for track in tracks]
    assert {len(track.success) for track in tracks} == {setting.task.horizon + 1}
    assert sum(track.success[-1] for track in tracks) <= 3
    assert sum(distance > 0.03 for distance in moved) >= 4, "the body must often be pushed"
    assert sum(track.warnings for track in tracks) == 0


def test_episodes_are_as_long_as_asked_and_begin_alike(tracker):
    longer, setting = Recorder(size=None, frames=60), tracker.setting("reach", 3)
    track, usual = longer.simulate(setting, "explore", 3), tracker.simulate(setting, "explore", 3)
    assert len(track.state) == 60 > len(usual.state)
    assert np.array_equal(track.state[: len(usual.state)], usual.state)
    assert len(longer.simulate(setting, "expert", 3).state) < 60, "an expert's episode ends with its success"


def test_commands_hold_the_null_space(tracker):
    """The redundancy must not be free: the joints follow from the tool's place, to what one camera can tell."""
    tracks = [tracker.simulate(tracker.setting("reach", seed=0), "explore", seed) for seed in range(3)]
    for track in tracks:
        for state, place in zip(track.state[::8], track.environment_state[::8], strict=True):
            joints = tracker.kinematics.solve(place[:3].astype(float))
            assert np.abs(joints - state[:-1]).max() < 0.25


def test_behaviours_fail_in_their_own_ways(tracker):
    setting = tracker.setting("reach", seed=0)
    tracks = {
        behaviour: [tracker.simulate(setting, behaviour, seed) for seed in range(6)]
        for behaviour in ("expert", "noisy", "stopped")
    }
    ends = {behaviour: [track.distance[-1] for track in played] for behaviour, played in tracks.items()}
    assert max(ends["expert"]) < setting.task.success_distance
    assert np.median(ends["stopped"]) > 2 * max(ends["expert"])
    # The noisy one comes near, and wanders there.
    wandering = np.mean([track.distance[20:].mean() for track in tracks["noisy"]])
    assert 1.5 * np.mean(ends["expert"]) < wandering < 2 * setting.task.success_distance
    with pytest.raises(ConfigError, match="expert, noisy, stopped, explore"):
        tracker.simulate(setting, "dance", 0)
