"""ALOHA's HDF5 files: names, pictures compressed or not, and damage named by episode."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from robosim_datasets.sources.aloha import BOTH_ARMS, looks_like_aloha, open_aloha

from robosim.bench.layouts import Recording, make_recording, write_aloha
from robosim.errors import DatasetError


@pytest.fixture(scope="module")
def recording() -> Recording:
    return make_recording(3, 6, (20, 28))


@pytest.fixture
def files(tmp_path: Path, recording: Recording) -> list[Path]:
    return write_aloha(tmp_path / "it", recording)


def test_a_recording_comes_back_exactly(files: list[Path], recording: Recording):
    source = open_aloha(files[0].parent)
    info = source.info
    assert (info.episodes, info.frames, info.fps) == (3, recording.frames, 50)
    assert info.cameras == {"front": (20, 28), "wrist": (20, 28)}
    assert info.action_names == info.state_names == BOTH_ARMS
    assert info.action_kind == "joint_position"
    assert any("50 frames/s" in note for note in info.notes)
    assert any("left out: observations/qvel" in note for note in info.notes)
    for number, recorded in enumerate(recording.episodes):
        read = source.read(number)
        assert read.instruction == recorded.instruction
        np.testing.assert_array_equal(read.action, np.tile(recorded.action, 2))
        np.testing.assert_array_equal(read.state, np.tile(recorded.state, 2))
        for camera, frames in recorded.frames.items():
            np.testing.assert_array_equal(list(source.frames(number, camera, range(read.length))), frames)
    chosen = list(source.frames(1, "wrist", [1, 1, 5]))
    np.testing.assert_array_equal(chosen, recording.episodes[1].frames["wrist"][[1, 1, 5]])


@pytest.mark.parametrize("variable", [False, True])
def test_compressed_pictures(tmp_path: Path, recording: Recording, variable: bool):
    files = write_aloha(tmp_path, recording, compressed=True)
    if variable:  # rows of their own length in place of padded ones
        with h5py.File(files[2], "r+") as file:
            rows = file["observations/images/front"][()]
            del file["observations/images/front"]
            kind = h5py.vlen_dtype(np.uint8)
            column = file.create_dataset("observations/images/front", (len(rows),), dtype=kind)
            for number, row in enumerate(rows):
                column[number] = row[: np.flatnonzero(row)[-1] + 1]
    source = open_aloha(tmp_path)
    assert source.info.cameras["front"] == (20, 28)
    frames = np.stack(list(source.frames(2, "front", range(8)))).astype(float)
    assert np.abs(frames - recording.episodes[2].frames["front"]).mean() < 4
    assert any("red and blue" in note for note in source.info.notes)


def test_files_are_counted_as_numbers(tmp_path: Path, recording: Recording):
    for path, name in zip(write_aloha(tmp_path, recording), ("10", "2", "1"), strict=True):
        path.rename(tmp_path / f"episode_{name}.h5")
    source = open_aloha(tmp_path)
    assert [source.read(i).metadata["file"] for i in range(3)] == [f"episode_{n}.h5" for n in (1, 2, 10)]


def test_one_file_and_one_arm(tmp_path: Path, recording: Recording):
    path = write_aloha(tmp_path, recording)[1]
    with h5py.File(path, "r+") as file:
        for name in ("action", "observations/qpos"):
            values = file[name][:, :7]
            del file[name]
            file[name] = values
        file["base_action"] = np.ones((7, 2), np.float32)
        file.attrs["fps"] = 30
    source = open_aloha(path)
    assert source.info.action_names[:2] == ("waist", "shoulder")
    assert source.info.action_names[7:] == ("base_linear", "base_angular")
    assert (source.info.fps, source.info.episodes) == (30, 1)
    np.testing.assert_array_equal(source.read(0).action[:, 7:], np.ones((7, 2)))


@pytest.mark.parametrize("said", ["30 Hz", [30, 30], float("inf"), 0])
def test_a_rate_that_is_no_number_is_said_and_not_taken(files: list[Path], said: object):
    for path in files:
        with h5py.File(path, "r+") as file:
            file.attrs["fps"] = said
    info = open_aloha(files[0].parent).info
    assert info.fps == 50
    assert any("the files say" in note and "set source_fps=" in note for note in info.notes)


def _link_out(file: h5py.File, name: str, other: Path) -> None:
    file[name] = h5py.ExternalLink(other.name, name)


def _link_out_by_a_detour(file: h5py.File, name: str, other: Path) -> None:
    file["way"] = h5py.ExternalLink(other.name, "/")
    file[name] = h5py.SoftLink(f"/way/{name}")


def _store_out(file: h5py.File, name: str, other: Path) -> None:
    storage = [(other.name, 0, 7 * 20 * 28 * 3)]
    file.create_dataset(name, (7, 20, 28, 3), np.uint8, external=storage)


def _compose_out(file: h5py.File, name: str, other: Path) -> None:
    layout = h5py.VirtualLayout((7, 20, 28, 3), np.uint8)
    layout[:] = h5py.VirtualSource(other.name, name, (7, 20, 28, 3))
    file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize("way", [_link_out, _link_out_by_a_detour, _store_out, _compose_out])
def test_what_lies_in_another_file_is_not_read(
    files: list[Path], tmp_path: Path, recording: Recording, way: Callable[[h5py.File, str, Path], None]
):
    other = Path(shutil.copy(files[1], files[1].with_name("private")))
    with h5py.File(files[1], "r+") as file:
        del file["observations/images/front"]
        way(file, "observations/images/front", other)
    source = open_aloha(files[0].parent)
    with pytest.raises(DatasetError, match=r"episode 1 .*images/front .*another file"):
        list(source.frames(1, "front", [0]))
    assert source.read(2).length == 8


def test_an_instruction_in_another_file_is_not_read(files: list[Path]):
    with h5py.File(files[0].with_name("private"), "w") as file:
        file["task"] = "a secret"
    with h5py.File(files[1], "r+") as file:
        del file.attrs["language_instruction"]
        file["task"] = h5py.ExternalLink("private", "task")
    with pytest.raises(DatasetError, match=r"episode 1 .*task is a link to another file"):
        open_aloha(files[0].parent).read(1)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _shorten(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        values = file["observations/qpos"][:-1]
        del file["observations/qpos"]
        file["observations/qpos"] = values


def _lose_frames(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        values = file["observations/images/wrist"][:-2]
        del file["observations/images/wrist"]
        file["observations/images/wrist"] = values


def _lose_actions(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["action"]


def _narrow(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        values = file["action"][:, :7]
        del file["action"]
        file["action"] = values


FAULTS = {
    "truncated": (_truncate, "damaged"),
    "state too short": (_shorten, r"observations/qpos has 6 rows for 7 actions"),
    "pictures missing": (_lose_frames, r"images/wrist has 5 pictures for 7 actions"),
    "no actions": (_lose_actions, "action is missing"),
    "other numbers": (_narrow, "14 numbers a state and 7 an action"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damage_is_named_with_its_episode_and_others_stay(
    files: list[Path], recording: Recording, fault: str
):
    damage, words = FAULTS[fault]
    damage(files[1])
    source = open_aloha(files[0].parent)
    assert source.info.episodes == 3
    for attempt in (lambda: source.read(1), lambda: list(source.frames(1, "front", [0]))):
        with pytest.raises(DatasetError, match=rf"episode_1.hdf5: episode 1 .*{words}"):
            attempt()
    for number in (0, 2):
        frames = recording.episodes[number].frames["front"]
        np.testing.assert_array_equal(list(source.frames(number, "front", range(len(frames)))), frames)


def test_a_picture_that_cannot_be_decoded_is_named(tmp_path: Path, recording: Recording):
    path = write_aloha(tmp_path, recording, compressed=True)[0]
    with h5py.File(path, "r+") as file:
        file["observations/images/front"][3, 200:] = 0
    source = open_aloha(tmp_path)
    assert len(list(source.frames(0, "front", range(3)))) == 3
    with pytest.raises(DatasetError, match=r"episode_0.hdf5: episode 0 .*front, frame 3"):
        list(source.frames(0, "front", range(6)))


def test_a_camera_that_only_some_episodes_have(files: list[Path]):
    with h5py.File(files[2], "r+") as file:
        del file["observations/images/wrist"]
    source = open_aloha(files[0].parent)
    assert any("wrist is in only 2 of 3" in note for note in source.info.notes)
    assert source.read(2).length == 8
    with pytest.raises(DatasetError, match="no camera wrist, only front"):
        list(source.frames(2, "wrist", [0]))


def test_it_is_known_by_what_is_in_it(files: list[Path], tmp_path: Path):
    _truncate(files[0])
    assert looks_like_aloha(files[0].parent) and looks_like_aloha(files[1])
    assert not looks_like_aloha(files[0]) and not looks_like_aloha(tmp_path / "nothing")


def test_nothing_that_can_be_read_is_an_error(files: list[Path]):
    for path in files:
        _truncate(path)
    with pytest.raises(DatasetError, match=r"no episode that can be read \(episode_0.hdf5: damaged"):
        open_aloha(files[0].parent)
