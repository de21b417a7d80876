from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

from robosim.evaluation.replay import (
    RecordedClips,
    drift_by_horizon,
    held_out_clips,
    moving_psnr_by_horizon,
    others_motions,
    repeat_last,
    replay,
)

STEPS = 8


@pytest.fixture
def store(env_spec):
    """Three val episodes of 21, 11 and 5 frames and a train one; every value tells its place."""
    rows = [(21, "val"), (30, "train"), (11, "val"), (5, "val")]
    starts = np.cumsum([0] + [length for length, _ in rows])
    episodes = [
        SimpleNamespace(start=int(start), length=length, split=split)
        for start, (length, split) in zip(starts, rows, strict=False)
    ]
    total = int(starts[-1])
    count = np.arange(total, dtype=np.float32)
    columns = {
        "state": count[:, None] + np.zeros((1, 3), np.float32),
        "action": count[:, None] + np.full((1, 3), 1000, np.float32),
        "environment_state": count[:, None] + np.zeros((1, 9), np.float32),
    }

    def frames(episode, start, stop, camera):
        assert camera == "front"
        first = episodes[episode].start
        values = np.arange(first + start, first + stop, dtype=np.uint8)
        return np.broadcast_to(values[:, None, None, None], (stop - start, 32, 32, 3))

    def select(split, task, labelled):
        return [i for i, row in enumerate(episodes) if row.split == split]

    return SimpleNamespace(
        spec=env_spec, episodes=episodes, column=columns.__getitem__, frames=frames, select=select
    )


def test_clips_are_held_out_whole_and_aligned(store):
    clips = held_out_clips(store, "reach", STEPS, limit=99)
    places = list(zip(clips.episode.tolist(), clips.start.tolist(), strict=True))
    assert places == [(0, 0), (0, 4), (0, 8), (0, 12), (2, 0)]
    for row, (episode, start) in enumerate(places):
        first = store.episodes[episode].start + start
        assert clips.frames[row, :, 0, 0, 0].tolist() == list(range(first, first + STEPS + 1))
        assert clips.state[row, :, 0].tolist() == list(range(first, first + STEPS + 1))
        assert clips.command[row, :, 0].tolist() == list(range(first + 1000, first + 1000 + STEPS))
        assert clips.positions.shape == (5, STEPS + 1, 9)
        assert clips.previous[row, 0] == (first + 999 if start else clips.state[row, 0, 0])


def test_a_limit_keeps_the_starts_of_episodes(store):
    clips = held_out_clips(store, "reach", STEPS, limit=3)
    assert len(clips) == 3
    assert {(0, 0), (2, 0)} <= set(zip(clips.episode.tolist(), clips.start.tolist(), strict=True))


def test_no_clip_is_long_enough(store):
    assert len(held_out_clips(store, "reach", 50, limit=9)) == 0


def _clips(frames: np.ndarray, command: np.ndarray, state: np.ndarray) -> RecordedClips:
    count, steps = command.shape[:2]
    zeros = np.zeros(count, np.int64)
    positions = np.zeros((count, steps + 1, 9), np.float32)
    return RecordedClips(zeros, zeros, frames, command, state[:, 0], state, positions)


def _recorded(env, commands):
    """What a camera sees and the joints do when `commands` are sent to a simulator."""
    observation, _ = env.reset(seed=list(range(len(commands))))
    frames, states = [observation["pixels"]["front"]], [observation["agent_pos"]]
    for step in range(commands.shape[1]):
        observation = env.step(commands[:, step])[0]
        frames.append(observation["pixels"]["front"])
        states.append(observation["agent_pos"])
    return np.stack(frames, 1), np.stack(states, 1)


@pytest.fixture
def replayable(make_env):
    """A factory of dots that can be put where a clip starts and don't end within it."""

    def make(rows, slip=0.0):
        env = make_env(rows, slip)
        env.task_spec = env.task_spec.__class__("reach", "x", STEPS + 1, -1.0, "tool", (0, 1))
        space = gym.spaces.Box(0, 255, (32, 32, 3), np.uint8)
        env.single_observation_space = gym.spaces.Dict(pixels=gym.spaces.Dict(front=space))
        return env

    return make


@pytest.fixture
def recorded(replayable):
    generator = np.random.default_rng(0)
    commands = np.clip(np.cumsum(generator.uniform(-0.2, 0.2, (6, STEPS, 3)), 1), -1, 1).astype(np.float32)
    frames, state = _recorded(replayable(6), commands)
    return _clips(frames, commands, state)


def test_a_perfect_simulator_replays_exactly(replayable, recorded):
    shown = replay(replayable, recorded, recorded.command)
    np.testing.assert_array_equal(shown.frames, recorded.frames)
    np.testing.assert_allclose(shown.agent_pos, recorded.state)
    scores = moving_psnr_by_horizon(shown.frames, recorded.frames)
    assert list(scores) == ["1", "4", "8"] and all(score > 90 for score in scores.values())


def test_replay_notices_a_shift_by_one_frame_and_a_slip(replayable, recorded):
    exact = moving_psnr_by_horizon(replay(replayable, recorded, recorded.command).frames, recorded.frames)
    late = np.concatenate([recorded.previous[:, None], recorded.command[:, :-1]], axis=1)
    shifted = moving_psnr_by_horizon(replay(replayable, recorded, late).frames, recorded.frames)
    assert all(shifted[h] < exact[h] - 20 for h in exact)

    def slipping(rows):
        return replayable(rows, slip=0.05)

    drift = drift_by_horizon(replay(slipping, recorded, recorded.command).tool, recorded.state * [1, 1, 0])
    assert drift["1"] == pytest.approx(0.05, abs=1e-5)


def test_others_motions_start_here_and_move_there(recorded):
    commands = others_motions(recorded)
    assert not np.allclose(commands, recorded.command)
    first = commands[:, 0] - recorded.previous
    theirs = recorded.command[:, 0] - recorded.previous
    assert np.sort(first, axis=0) == pytest.approx(np.sort(theirs, axis=0), abs=1e-6)
    assert not np.isclose(first, theirs).all(axis=1).any(), "nobody keeps their own motion"


def test_a_replay_that_ends_early_is_refused(make_env, recorded, replayable):
    def short(rows):
        env = replayable(rows)
        env.task_spec = env.task_spec.__class__("reach", "x", 3, -1.0, "tool", (0, 1))
        return env

    with pytest.raises(ValueError, match="ended a row at step 3"):
        replay(short, recorded, recorded.command)


def test_repeat_last_scores_the_motion_itself():
    frames = np.zeros((1, 5, 8, 8, 3), np.uint8)
    frames[:, 1:, :4] = 51
    assert moving_psnr_by_horizon(repeat_last(frames), frames)["4"] == pytest.approx(
        -20 * np.log10(0.2), abs=1e-3
    )
