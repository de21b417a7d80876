"""Frames, actions and outcomes at another rate still belong together."""

from __future__ import annotations

import numpy as np
import pytest
from robosim_datasets.importing.resample import choose_rows, fit_frame, resample_actions, resample_outcomes

NAMES = ("x", "y", "gripper")


@pytest.mark.parametrize(
    ("source", "fps", "step"), [(50.0, 10, 5), (30.0, 10, 3), (10.0, 10, 1), (20.0, 5, 4)]
)
def test_whole_ratios_take_every_nth_frame(source, fps, step):
    rows = choose_rows(101, source, fps)
    assert np.array_equal(rows, np.arange(0, 101, step))


def test_other_ratios_take_the_nearest_frame():
    rows = choose_rows(150, 29.97, 10)
    assert np.abs(rows / 29.97 - np.arange(len(rows)) / 10).max() <= 0.5 / 29.97 + 1e-9
    assert len(rows) == 50


def test_equal_rates_keep_every_frame_and_a_single_frame_is_kept():
    assert np.array_equal(choose_rows(7, 10.0, 10), np.arange(7))
    assert np.array_equal(choose_rows(1, 30.0, 10), [0])


def test_time_stamps_count_where_the_source_has_them():
    """A recorder that stalls for half a second: the frames after it are at their own times."""
    times = np.concatenate([np.arange(10) / 20, 0.95 + np.arange(1, 11) / 20]) + 1e9
    rows = choose_rows(20, 20.0, 10, times)
    assert np.all(np.diff(rows) > 0)
    assert np.array_equal(rows[:5], [0, 2, 4, 6, 8])
    assert np.abs((times[rows[-3:]] - times[0]) * 10 % 1 - 0.5).min() >= 0.4


def test_targets_count_as_they_were_last():
    """Between the chosen frames 0 and 3 the arm is led to the target of row 2, not of row 0."""
    action = np.arange(30, dtype=np.float32).reshape(10, 3)
    result = resample_actions(action, np.array([0, 3, 6, 9]), "joint_position", NAMES)
    assert np.array_equal(result, action[[2, 5, 8, 9]])


def test_motions_add_up_and_grippers_do_not():
    action = np.ones((10, 3), np.float32)
    action[:, 2] = np.arange(10)
    result = resample_actions(action, np.array([0, 3, 6, 9]), "ee_delta", NAMES)
    assert np.array_equal(result[:, 0], [3, 3, 3, 1])
    assert np.array_equal(result[:, 2], [2, 5, 8, 9])


@pytest.mark.parametrize("kind", ["joint_position", "ee_delta", "other"])
def test_every_frame_leaves_actions_as_they_are(kind):
    action = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    assert np.array_equal(resample_actions(action, np.arange(10), kind, NAMES), action)
    assert resample_actions(action[:, :0], np.arange(10), kind, ()).shape == (10, 0)


def test_rewards_add_up_and_the_last_outcome_is_not_lost():
    led_to = np.array([1, 2, 4, 8, 16, 32, 64], np.float32)
    assert np.array_equal(resample_outcomes(led_to, np.array([0, 3, 6])), [0, 7, 120])
    success = np.arange(7) == 6
    assert np.array_equal(resample_outcomes(success, np.array([0, 3, 6])), [False, False, True])
    assert resample_outcomes(led_to, np.array([0, 3, 6])).sum() == led_to.sum()


def test_frames_of_the_right_size_are_untouched():
    frame = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert fit_frame(frame, 32, "crop") is frame


def test_each_way_to_make_a_frame_square():
    """A wide frame: red left, green middle square, blue right."""
    frame = np.zeros((60, 120, 3), np.uint8)
    frame[:, :30, 0] = frame[:, 30:90, 1] = frame[:, 90:, 2] = 200
    crop, pad, stretch = (fit_frame(frame, 32, fit) for fit in ("crop", "pad", "stretch"))
    assert crop.shape == pad.shape == stretch.shape == (32, 32, 3)
    assert crop[..., 1].min() >= 198 and crop[..., [0, 2]].max() <= 2
    assert pad[:8].max() == 0 and pad[-8:].max() == 0
    assert pad[16, 2, 0] == 200 and pad[16, 16, 1] == 200 and pad[16, -2, 2] == 200
    assert stretch[0, 2, 0] == 200 and stretch[0, 16, 1] == 200 and stretch[-1, -2, 2] == 200


def test_small_frames_are_averaged_not_picked():
    """A fine checkerboard becomes grey; taking every nth pixel would make it black or white."""
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    small = fit_frame(np.repeat(board[..., None], 3, -1), 32, "crop")
    assert np.abs(small.astype(int) - 127).max() <= 12
