"""Each fault of numbers and pictures is named with its episode and frames, and nothing sound is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from robosim_datasets.checks.source_checks import source_faults
from robosim_datasets.faults import Fault

from robosim.progress import progress


def changed(array: np.ndarray, place, value) -> np.ndarray:
    array = array.copy()
    array[place] = value
    return array


def test_sound_recording_has_no_fault(recording):
    assert recording.faults() == []


# Numbers


def test_damaged_episode_is_named_and_the_others_are_checked(recording):
    recording.damaged = {0}
    recording.edit(1, action=changed(recording.episodes[1].action, (3, 1), np.nan))
    assert recording.faults() == [
        "damaged: episode 0, episode: file 0 is cut off; restore it",
        "not finite: episode 1, action: grip at frame 3",
    ]


def test_what_was_seen_on_opening_hides_no_other_damage(recording):
    recording.damaged = {0, 1}
    recording.seen_on_opening = (
        Fault("splits", "meta", "the episode is in train and in val", 0),
        Fault("damaged", "file 1", "is cut off", 1),
    )
    assert recording.faults() == [
        "splits: episode 0, meta: the episode is in train and in val",
        "damaged: episode 1, file 1: is cut off",
        "damaged: episode 0, episode: file 0 is cut off; restore it",
    ]


def test_progress_ends_at_its_total_whatever_is_damaged(recording):
    recording.damaged = {1}
    with progress("check", total=3 * 2 * 20) as bar:
        source_faults(recording, bar)
    assert bar.done == bar.total


def test_bare_video_in_a_mixture_needs_no_labels(recording):
    empty = np.zeros((20, 0), np.float32)
    recording.edit(1, state=empty, action=empty, reward=None, success=None)
    assert any("shape: episode 1, state" in fault for fault in recording.faults())
    recording.edit(1, metadata={"labelled": False})
    assert recording.faults() == []
    frames = recording.pictures[0]["front"]
    frames[8:16] = frames[8]
    assert recording.faults() == [
        "frozen: episode 0, camera front: the same picture at frames 8–15, while the arm moves"
    ]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"state": np.zeros((20, 3), np.float32)}, "shape: episode 1, state: is (20, 3) and not (20, 2)"),
        ({"action": np.zeros((19, 2), np.float32)}, "shape: episode 1, action: is (19, 2) and not (20, 2)"),
        ({"action": np.zeros((20, 2))}, "dtype: episode 1, action: is float64 and not float32"),
        ({"success": np.zeros(20, np.int64)}, "dtype: episode 1, success: is int64 and not bool"),
        (
            {"reward": np.full(20, np.inf, np.float32)},
            "not finite: episode 1, reward: at frames 0, 1, 2, 3, 4 and 15 more",
        ),
        (
            {"environment_state": np.zeros((20, 8), np.float32)},
            "shape: episode 1, environment_state: is (20, 8)",
        ),
    ],
)
def test_wrong_arrays(recording, values, sentence):
    recording.edit(1, **values)
    assert any(sentence in fault for fault in recording.faults())


def test_uneven_time_steps_are_named(recording):
    times = recording.episodes[0].timestamps
    recording.edit(0, timestamps=np.where(np.arange(20) >= 7, times + 0.05, times))
    recording.edit(1, timestamps=times[::-1].copy())
    recording.edit(2, timestamps=times + 0.004 * (np.arange(20) % 2))  # within the tolerance
    faults = recording.faults()
    assert faults[0] == "time: episode 0, timestamps: a step of 0.15 s instead of 0.1 s before frame 7"
    assert "time: episode 1" in faults[1] and len(faults) == 2


def test_command_and_joint_beyond_their_limits_are_named(recording):
    recording.edit(0, action=changed(recording.episodes[0].action, (4, 0), 2.5))
    recording.edit(2, state=changed(recording.episodes[2].state, (slice(6, 8), 1), -0.5))
    faults = recording.faults()
    assert "limits: episode 0, action: turn is 2.5 at frame 4; its limits are -2 … 2" in faults
    assert "limits: episode 2, state: grip is -0.5 at frames 6, 7; its limits are 0 … 1" in faults


def test_limits_bind_only_what_they_are_limits_of(recording):
    """States that aren't the robot's joints, and data whose limits are merely its commands' extremes."""
    recording.edit(0, state=changed(recording.episodes[0].state, (4, 0), 2.5))
    assert len(recording.faults()) == 1
    recording.spec = replace(recording.spec, state_names=("turn", "grip"))
    assert recording.faults() == []


def test_single_frame_is_no_episode(recording):
    row = recording.episodes[0]
    one = {name: getattr(row, name)[:1] for name in ("state", "action", "reward", "success", "timestamps")}
    recording.edit(0, length=1, **one)
    assert "length: episode 0, episode: has 1 frames, at least 2 make a motion" in recording.faults()


def test_contract_of_another_size_and_rate(recording):
    recording.spec = replace(recording.spec, size=32, fps=5)
    assert "shape: camera side: shows 16×16 pixels, the spec says 32×32" in recording.faults()
    assert "time: fps: 10 frames/s, the spec says 5" in recording.faults()


# Pictures


def test_video_that_ends_early(recording):
    recording.pictures[1]["side"] = recording.pictures[1]["side"][:12]
    assert recording.faults() == ["damaged: episode 1, camera side: file 1 ends before frame 12"]


def test_frame_of_another_size(recording):
    frames = list(recording.pictures[1]["side"])
    frames[5] = frames[5][:8]
    recording.pictures[1]["side"] = frames
    assert recording.faults() == [
        "shape: episode 1, camera side: frame 5 is uint8 (8, 16, 3) and not uint8 (16, 16, 3)"
    ]


def test_black_video_is_named_once(recording):
    recording.pictures[0]["front"] = np.full_like(recording.pictures[0]["front"], 8)
    assert recording.faults() == ["black: episode 0, camera front: all 20 frames are black"]


def test_runs_of_black_frames_are_named(recording):
    recording.pictures[2]["side"][[3, 10, 11, 12]] = 0
    assert recording.faults() == ["black: episode 2, camera side: black at frames 3, 10–12"]


def test_dark_scene_with_a_small_light_is_not_black(recording):
    for number, frame in enumerate(recording.pictures[0]["front"]):
        frame[:] = 0
        frame[4, number % 16] = 250
    assert recording.faults() == []


def test_frozen_video_is_a_fault_even_of_a_resting_arm(recording):
    recording.edit(0, state=np.full((20, 2), 0.5, np.float32), action=np.full((20, 2), 0.5, np.float32))
    recording.pictures[0]["front"][:] = recording.pictures[0]["front"][0]
    assert recording.faults() == ["frozen: episode 0, camera front: all 20 frames are the same picture"]


def test_picture_that_stands_still_while_the_arm_moves(recording):
    frames = recording.pictures[1]["front"]
    frames[8:16] = frames[8] + np.arange(8, dtype=np.uint8)[:, None, None, None] % 2  # an encoder's ripple
    assert recording.faults() == [
        "frozen: episode 1, camera front: the same picture at frames 8–15, while the arm moves"
    ]


def test_picture_of_a_resting_arm_may_stand_still(recording):
    for values in (recording.episodes[1].state, recording.episodes[1].action):
        values[7:17] = values[8]
    for camera in ("front", "side"):
        recording.pictures[1][camera][8:16] = recording.pictures[1][camera][8]
    assert recording.faults() == []


def test_short_stand_still_is_none(recording):
    frames = recording.pictures[1]["front"]
    frames[8:12] = frames[8]
    assert recording.faults() == []


def test_repeated_video_is_named(recording):
    recording.pictures[1]["side"] = recording.pictures[0]["side"].copy()
    assert recording.faults() == ["repeated: episode 1, camera side: shows the same frames as episode 0"]


def test_other_cameras_same_frames_are_no_repetition(recording):
    recording.pictures[0]["side"] = recording.pictures[0]["front"].copy()
    assert recording.faults() == []


def test_same_video_or_same_numbers_in_two_splits(recording):
    recording.pictures[2]["front"] = recording.pictures[0]["front"].copy()
    split = "splits: episode 2, split: the recording is in val and in train (episode 0)"
    assert recording.faults() == [
        "repeated: episode 2, camera front: shows the same frames as episode 0",
        split,
    ]
    recording.pictures[2]["front"] = recording.pictures[2]["side"].copy()
    recording.edit(2, state=recording.episodes[0].state, action=recording.episodes[0].action)
    assert recording.faults() == [split]


def test_same_numbers_in_another_split_are_found_behind_a_repetition_in_the_same(recording):
    """Episode 1 shows what episode 0 does, of the same split; episode 2, held out, has the same numbers as both."""
    recording.pictures[1]["front"] = recording.pictures[0]["front"].copy()
    for index in (1, 2):
        recording.edit(index, state=recording.episodes[0].state, action=recording.episodes[0].action)
    recording.pictures[2]["front"] = recording.pictures[0]["front"].copy()
    assert recording.faults() == [
        "repeated: episode 1, camera front: shows the same frames as episode 0",
        "repeated: episode 2, camera front: shows the same frames as episode 0",
        "splits: episode 2, split: the recording is in val and in train (episode 0)",
    ]
    recording.edit(1, split="val")
    recording.edit(2, split="train")
    assert [fault for fault in recording.faults() if fault.startswith("splits")] == [
        "splits: episode 1, split: the recording is in val and in train (episode 0)",
        "splits: episode 2, split: the recording is in train and in val (episode 1)",
    ]
