"""LeRobotDatasets of every version, by LeRobot, by robosim and by a writer of the old layout, read as sources."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from robosim_datasets.lerobot_format import outcomes
from robosim_datasets.lerobot_io import read_episode
from robosim_datasets.sources import lerobot_rows
from robosim_datasets.sources.lerobot import looks_like_lerobot, open_lerobot

from robosim.errors import DatasetError
from tests.datasets.sources.demos import CAMERAS, LENGTHS, STATE_NAMES, Demo, numbers_of
from tests.datasets.sources.lerobot_asserts import assert_holds, change_features, change_info


class TestVersions:
    @pytest.mark.parametrize("kind", ["v2.1", "v2.1 images", "v2.0"])
    def test_version_2_is_read_exactly(self, old: dict[str, Path], demos: list[Demo], kind: str) -> None:
        source = open_lerobot(old[kind])
        assert source.info.layout == f"LeRobotDataset {kind[:4]}" and not source.info.faults
        assert_holds(source, demos)

    @pytest.mark.parametrize("kind", ["video", "image"])
    def test_version_3_is_read_exactly(self, stock: dict[str, Path], demos: list[Demo], kind: str) -> None:
        source = open_lerobot(stock[kind])
        assert source.info.layout == "LeRobotDataset v3.0" and not source.info.faults
        assert_holds(source, demos)
        read = source.read(1)
        assert read.reward is not None and read.success is not None
        np.testing.assert_array_equal(read.reward, np.arange(17, dtype=np.float32) / 8)
        assert read.success.dtype == bool and np.flatnonzero(read.success).tolist() == [16]

    def test_frames_are_those_that_lerobot_decodes(self, stock: dict[str, Path]) -> None:
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        theirs = LeRobotDataset("test/numbers", root=stock["video"], video_backend="pyav", return_uint8=True)
        source = open_lerobot(stock["video"])
        for episode, first in enumerate(np.cumsum((0, *LENGTHS[:-1])).tolist()):
            for number in (0, 7, LENGTHS[episode] - 1):
                ours = next(source.frames(episode, "front", [number]))
                item = theirs[first + number]["observation.images.front"]
                np.testing.assert_array_equal(ours, item.numpy().transpose(1, 2, 0))

    def test_several_files_of_episodes_and_data(
        self, stock: dict[str, Path], demos: list[Demo], copy
    ) -> None:
        root = copy(stock["image"])
        table = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet")
        files = pa.array([0, 0, 1])
        table = table.set_column(table.column_names.index("data/file_index"), "data/file_index", files)
        pq.write_table(table.slice(0, 2), root / "meta/episodes/chunk-000/file-000.parquet")
        pq.write_table(table.slice(2), root / "meta/episodes/chunk-000/file-001.parquet")
        path = root / "data/chunk-000/file-000.parquet"
        rows = pq.read_table(path)
        pq.write_table(rows.slice(0, 37), path)
        pq.write_table(rows.slice(37), path.with_name("file-001.parquet"))
        assert_holds(open_lerobot(root), demos)

    def test_own_datasets_come_back_exactly(self, dataset: Path) -> None:
        source = open_lerobot(dataset)
        assert source.info.spec is not None and source.info.splits == {"train": 8, "val": 3}
        assert source.info.layout.startswith("robosim") and not source.info.faults and not source.info.notes
        for number in (0, 3, 10):
            mine, read = read_episode(dataset, number), source.read(number)
            np.testing.assert_array_equal(read.state, mine.state)
            np.testing.assert_array_equal(read.action, mine.action)
            np.testing.assert_array_equal(read.environment_state, mine.environment_state)
            assert read.reward is not None and read.success is not None and read.row is not None
            np.testing.assert_array_equal(outcomes(read.reward, np.array([0])), mine.reward)
            np.testing.assert_array_equal(outcomes(read.success, np.array([0])), mine.success)
            assert (read.split, read.instruction) == (mine.split, mine.instruction)
            assert read.row["seed"] == mine.seed
            for camera in ("front", "side"):
                frames = np.stack(list(source.frames(number, camera, range(read.length))))
                np.testing.assert_array_equal(frames, mine.frames[camera])

    @pytest.mark.parametrize("version", ["v1.6", "v4.0"])
    def test_other_versions_are_refused(self, old: dict[str, Path], copy, version: str) -> None:
        root = copy(old["v2.1"])
        change_info(root, codebase_version=version)
        with pytest.raises(DatasetError, match=f"{version}.*convert"):
            open_lerobot(root)

    def test_only_folders_with_an_info_json_look_like_lerobot(
        self, old: dict[str, Path], tmp_path: Path
    ) -> None:
        assert looks_like_lerobot(old["v2.1"])
        assert not looks_like_lerobot(tmp_path) and not looks_like_lerobot(Path("x" * 5000))
        with pytest.raises(DatasetError, match=r"info\.json is missing"):
            open_lerobot(tmp_path)


class TestDescription:
    def test_what_the_dataset_says_is_told(self, old: dict[str, Path]) -> None:
        info = open_lerobot(old["v2.1"]).info
        assert info.cameras == CAMERAS and info.fps == 30 and info.robot == "so100"
        assert info.state_names == info.action_names == tuple(STATE_NAMES)
        assert (info.episodes, info.frames) == (3, sum(LENGTHS))
        assert info.instructions == ("lift the block", "push the block")
        assert info.splits == {"train": 2, "test": 1}
        assert any("observation.effort" in note for note in info.notes)
        assert info.metadata["info.json"]["features"]["observation.effort"]["names"] == {
            "motors": STATE_NAMES
        }
        files = [path for path in old["v2.1"].rglob("*") if path.is_file()]
        assert info.bytes == sum(path.stat().st_size for path in files)

    def test_episodes_know_their_split(self, old: dict[str, Path]) -> None:
        source = open_lerobot(old["v2.1"])
        assert [source.read(number).split for number in range(3)] == ["train", "train", "test"]

    @pytest.mark.parametrize(
        ("names", "found"),
        [
            (None, ("action_0", "action_1", "action_2")),
            (["a", "b", "c"], ("a", "b", "c")),
            ({"arm": ["a", "b"], "hand": ["c"]}, ("a", "b", "c")),
            ({"motors": {"left": ["a"], "right": ["b", "c"]}}, ("a", "b", "c")),
            (["a", "b"], ("action_0", "action_1", "action_2")),
            (["a", "a", "b"], ("action_0", "action_1", "action_2")),
        ],
    )
    def test_names_of_numbers(self, old: dict[str, Path], copy, names, found) -> None:
        root = copy(old["v2.1"])
        change_features(root, action={"names": names})
        assert open_lerobot(root).info.action_names == found

    @pytest.mark.parametrize(
        ("names", "kind"),
        [
            (["shoulder_pan", "wrist_roll", "gripper"], "joint_position"),
            (["motor_0", "motor_1", "motor_2"], "other"),
            (["x", "y", "gripper"], "other"),
            (["roll", "pitch", "yaw"], "other"),
            (["ee.delta_a", "ee.delta_b", "gripper"], "other"),
            (None, "other"),
        ],
    )
    def test_commands_are_joints_only_by_the_names_of_joints(
        self, old: dict[str, Path], copy, names, kind: str
    ) -> None:
        root = copy(old["v2.1"])
        change_features(root, action={"names": names}, state={"names": names})
        assert open_lerobot(root).info.action_kind == kind
        change_features(root, state={"names": ["p", "q", "r"]})
        assert open_lerobot(root).info.action_kind == "other"

    def test_cameras_under_any_key(self, old: dict[str, Path], copy) -> None:
        root = copy(old["v2.1 images"])
        info = json.loads((root / "meta/info.json").read_text())
        picture = info["features"].pop("observation.images.front")
        depth = {**picture, "info": {"is_depth_map": True}}
        more = {
            "observation.image": {**picture, "shape": [3, 48, 64], "names": ["channels", "height", "width"]},
            "wrist_image": {**picture, "names": None},
            "observation.images.far": depth,
            "observation.images.left.depth": picture,
        }
        change_info(root, features={**info["features"], **more})
        source = open_lerobot(root)
        assert source.info.cameras == {"wrist": (32, 40), "image": (48, 64), "wrist_image": (48, 64)}
        assert "observation.images.far, observation.images.left.depth" in " ".join(source.info.notes)

    def test_video_alone_has_no_commands(self, old: dict[str, Path], copy) -> None:
        root = copy(old["v2.1"])
        features = json.loads((root / "meta/info.json").read_text())["features"]
        change_info(root, features={key: value for key, value in features.items() if "images" in key})
        source = open_lerobot(root)
        assert source.info.action_kind == "none" and source.info.action_names == ()
        read = source.read(2)
        assert read.state.shape == read.action.shape == (31, 0) and read.action.dtype == np.float32

    def test_splits_that_overlap_are_named(self, old: dict[str, Path], copy) -> None:
        root = copy(old["v2.1"])
        change_info(root, splits={"train": "0:2", "val": "1:3", "odd": "all"})
        faults = open_lerobot(root).info.faults
        assert [fault.kind for fault in faults] == ["splits", "schema"]
        assert faults[0].what == "train and val both have the episodes 1:2"

    def test_a_size_other_than_described_is_noted(self, old: dict[str, Path], copy) -> None:
        root = copy(old["v2.1"])
        change_features(root, **{"observation.images.front": {"shape": [64, 48, 3]}})
        source = open_lerobot(root)
        assert source.info.cameras["front"] == (48, 64)
        assert any("64×48 pixels, not 48×64" in note for note in source.info.notes)


class TestFrames:
    @pytest.mark.parametrize("kind", ["v2.1", "v2.1 images", "v2.0"])
    def test_chosen_frames_with_gaps_and_repeats(self, old: dict[str, Path], kind: str) -> None:
        source, chosen = open_lerobot(old[kind]), [0, 3, 3, 13, 29, 30, 30]
        for camera in CAMERAS:
            frames = source.frames(2, camera, np.array(chosen))
            assert [numbers_of(pixels) for pixels in frames] == [(2, number) for number in chosen]
        assert list(source.frames(0, "front", [])) == []

    def test_pictures_in_one_row_group_are_read_once(
        self, stock: dict[str, Path], demos: list[Demo], copy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Converted datasets are such: reading every episode from the group's start would never end."""
        root = copy(stock["image"])
        path = root / "data/chunk-000/file-000.parquet"
        pq.write_table(pq.read_table(path), path)
        opened = []

        class Counted(lerobot_rows.PictureColumn):
            def __init__(self, path: Path, key: str, group: int) -> None:
                opened.append(key)
                super().__init__(path, key, group)

        monkeypatch.setattr(lerobot_rows, "PictureColumn", Counted)
        source = open_lerobot(root)
        assert_holds(source, demos)
        assert sorted(opened) == [f"observation.images.{camera}" for camera in CAMERAS]
        assert_holds(source, demos, [2, 0])

    def test_readers_of_one_camera_do_not_disturb_each_other(self, stock: dict[str, Path], copy) -> None:
        root = copy(stock["image"])
        path = root / "data/chunk-000/file-000.parquet"
        pq.write_table(pq.read_table(path), path)
        source = open_lerobot(root)
        list(source.frames(0, "front", [0]))
        pairs = zip(source.frames(2, "front", range(17)), source.frames(1, "front", range(17)), strict=True)
        for number, (one, other) in enumerate(pairs):
            assert (numbers_of(one), numbers_of(other)) == ((2, number), (1, number))

    def test_frames_and_cameras_that_are_not_there(self, old: dict[str, Path]) -> None:
        source = open_lerobot(old["v2.1"])
        with pytest.raises(DatasetError, match="frames 0 … 19"):
            next(source.frames(0, "front", [20]))
        with pytest.raises(DatasetError, match="no camera 'top'; it has front, wrist"):
            next(source.frames(0, "top", [0]))
        with pytest.raises(DatasetError, match="no episode 3"):
            source.read(3)
