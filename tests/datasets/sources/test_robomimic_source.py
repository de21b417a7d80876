"""robomimic's and LIBERO's HDF5 files: names, splits, what an action means, and damage named by demonstration."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from robosim_datasets.sources.robomimic import looks_like_robomimic, open_robomimic

from robosim.bench.layouts import Recording, make_recording, write_robomimic
from robosim.errors import DatasetError


@pytest.fixture(scope="module")
def recording() -> Recording:
    return make_recording(3, 6, (20, 28), fps=20)


@pytest.fixture
def path(tmp_path: Path, recording: Recording) -> Path:
    return write_robomimic(tmp_path / "lift.hdf5", recording)


def test_a_recording_comes_back_exactly(path: Path, recording: Recording):
    source = open_robomimic(path)
    info = source.info
    assert (info.episodes, info.frames, info.fps) == (3, recording.frames, 20)
    assert (info.robot, info.action_kind, info.name) == ("panda", "ee_delta", "lift")
    assert info.splits == {"train": 2, "valid": 1}
    assert info.cameras == {"front": (20, 28), "wrist": (20, 28)}
    assert info.action_names == ("x", "y", "z", "ax", "ay", "az", "gripper")
    assert info.state_names[2:4] == ("robot0_eef_pos_2", "robot0_eef_quat_0")
    for number, recorded in enumerate(recording.episodes):
        read = source.read(number)
        np.testing.assert_array_equal(read.action, recorded.action)
        np.testing.assert_array_equal(read.state, np.hstack([recorded.state, recorded.state[:, :2]]))
        assert read.instruction == recorded.instruction
        assert read.split == ("train", "train", "valid")[number]
        assert read.reward is not None and read.reward.tolist() == [0.0] * (read.length - 1) + [1.0]
        for camera, frames in recorded.frames.items():
            np.testing.assert_array_equal(list(source.frames(number, camera, range(read.length))), frames)


def test_demonstrations_are_counted_as_numbers(path: Path):
    with h5py.File(path, "r+") as file:
        file.move("data/demo_0", "data/demo_10")
    source = open_robomimic(path)
    assert [source.read(i).metadata["demo"] for i in range(3)] == ["demo_1", "demo_2", "demo_10"]


def test_a_demonstration_in_two_splits_is_a_fault_and_is_not_trained_on(path: Path):
    with h5py.File(path, "r+") as file:
        del file["mask/valid"]
        file["mask/valid"] = [b"demo_1", b"demo_2"]
    source = open_robomimic(path)
    assert [(fault.kind, fault.episode) for fault in source.info.faults] == [("splits", 1)]
    assert source.read(1).split == "valid"


CONTROLLERS = {
    "absolute OSC": ({"type": "OSC_POSE", "control_delta": False}, "other"),
    "absolute joints": ({"type": "JOINT_POSITION", "control_delta": False}, "joint_position"),
    "joint differences": ({"type": "JOINT_POSITION"}, "other"),
    "robosuite 1.5": (
        {"type": "BASIC", "body_parts": {"right": {"type": "OSC_POSE", "input_type": "delta"}}},
        "ee_delta",
    ),
    "unsaid": (None, "other"),
}


@pytest.mark.parametrize("name", CONTROLLERS)
def test_what_an_action_means_is_what_the_controller_says(path: Path, name: str):
    controller, kind = CONTROLLERS[name]
    with h5py.File(path, "r+") as file:
        file["data"].attrs["env_args"] = json.dumps({"env_kwargs": {"controller_configs": controller}})
    info = open_robomimic(path).info
    assert info.action_kind == kind
    assert info.fps is None and any("set source_fps=" in note for note in info.notes)


def test_two_arms_have_names_that_tell_their_grippers(path: Path):
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            values = np.tile(demo["actions"][()], 2)
            del demo["actions"]
            demo["actions"] = values
    info = open_robomimic(path).info
    assert info.action_names[:2] == ("robot0_x", "robot0_y") and info.action_names[7] == "robot1_x"
    assert [i for i, name in enumerate(info.action_names) if "gripper" in name] == [6, 13]
    assert info.action_kind == "ee_delta"


@pytest.mark.parametrize("said", ["fast", [20], float("nan"), -20])
def test_a_rate_that_is_no_number_is_said_and_not_taken(path: Path, said: object):
    with h5py.File(path, "r+") as file:
        file["data"].attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": said}})
    info = open_robomimic(path).info
    assert info.fps is None and any("control_freq is" in n and "set source_fps=" in n for n in info.notes)


@pytest.mark.parametrize(
    "controllers", [{"body_parts": []}, {"body_parts": {"arms": [1]}}, [{"control_delta": []}]]
)
def test_controllers_of_another_kind_say_nothing(path: Path, controllers: object):
    with h5py.File(path, "r+") as file:
        file["data"].attrs["env_args"] = json.dumps({"env_kwargs": {"controller_configs": controllers}})
    assert open_robomimic(path).info.action_kind == "other"


def test_a_demonstration_in_another_file_is_not_opened(path: Path, tmp_path: Path, recording: Recording):
    other = write_robomimic(tmp_path / "elsewhere" / "other.hdf5", recording)
    with h5py.File(path, "r+") as file:
        del file["data/demo_1"]
        file["data/demo_1"] = h5py.ExternalLink(str(other), "data/demo_1")
    source = open_robomimic(path)
    with pytest.raises(DatasetError, match=r"episode 1 .*data/demo_1 is a link to another file"):
        source.read(1)
    np.testing.assert_array_equal(source.read(2).action, recording.episodes[2].action)


def test_libero(tmp_path: Path, recording: Recording):
    """Other names, one task a file, the sentence at the top, pictures upside down."""
    for task in ("open the drawer", "close the drawer"):
        path = write_robomimic(tmp_path / f"{task}_demo.hdf5", recording)
        with h5py.File(path, "r+") as file:
            file["data"].attrs["problem_info"] = json.dumps({"language_instruction": task})
            file["data"].attrs["macros_image_convention"] = "opengl"
            for demo in file["data"].values():
                del demo.attrs["ep_meta"], demo["obs/robot0_eef_pos"]
                demo.move("obs/front_image", "obs/agentview_rgb")
                demo["obs/ee_states"], demo["obs/gripper_states"] = (
                    demo["actions"][:, :6],
                    demo["actions"][:, :2],
                )
    source = open_robomimic(tmp_path)
    assert source.info.instructions == ("close the drawer", "open the drawer")
    assert set(source.info.cameras) == {"agentview", "wrist"}
    assert source.info.episodes == 6 and source.read(5).instruction == "open the drawer"
    assert len(source.info.state_names) == 8
    assert any("upside down" in note for note in source.info.notes)
    frames = recording.episodes[2].frames["front"]
    np.testing.assert_array_equal(list(source.frames(5, "agentview", range(8))), frames)


def _cut_actions(file: h5py.File) -> None:
    values = file["data/demo_1/actions"][:-1]
    del file["data/demo_1/actions"]
    file["data/demo_1/actions"] = values


def _lose_observations(file: h5py.File) -> None:
    del file["data/demo_1/obs"]


def _lose_frames(file: h5py.File) -> None:
    values = file["data/demo_1/obs/wrist_image"][:-2]
    del file["data/demo_1/obs/wrist_image"]
    file["data/demo_1/obs/wrist_image"] = values


def _lose_rows(file: h5py.File) -> None:
    values = file["data/demo_1/obs/robot0_eef_quat"][1:]
    del file["data/demo_1/obs/robot0_eef_quat"]
    file["data/demo_1/obs/robot0_eef_quat"] = values


FAULTS = {
    "actions cut": (_cut_actions, "has 7 rows for 6 actions"),
    "no observations": (_lose_observations, "dataset_states_to_obs.py"),
    "pictures missing": (_lose_frames, "obs/wrist_image has 5 pictures for 7 actions"),
    "state cut": (_lose_rows, "robot0_eef_quat has 6 rows for 7 actions"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damage_is_named_with_its_demonstration_and_others_stay(path: Path, recording: Recording, fault: str):
    damage, words = FAULTS[fault]
    with h5py.File(path, "r+") as file:
        damage(file)
    source = open_robomimic(path)
    assert source.info.episodes == 3
    with pytest.raises(DatasetError, match=rf"lift.hdf5: episode 1 \(data/demo_1\) .*{words}"):
        source.read(1)
    for number in (0, 2):
        np.testing.assert_array_equal(source.read(number).action, recording.episodes[number].action)


def test_a_truncated_file_among_others_is_named(tmp_path: Path, recording: Recording):
    for name in ("a", "b"):
        path = write_robomimic(tmp_path / f"{name}.hdf5", recording)
    path.write_bytes(path.read_bytes()[:-2000])
    source = open_robomimic(tmp_path)
    assert source.info.episodes == 3
    assert [(fault.kind, fault.where) for fault in source.info.faults] == [("damaged", "b.hdf5")]
    with pytest.raises(DatasetError, match=r"b.hdf5: none of its demonstrations"):
        open_robomimic(path)


def test_it_is_known_by_what_is_in_it(path: Path, tmp_path: Path):
    assert looks_like_robomimic(path) and looks_like_robomimic(tmp_path)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = 1
    assert not looks_like_robomimic(tmp_path / "other.h5")
