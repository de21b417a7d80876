"""Damaged LeRobotDatasets: what is wrong is named, with its episode, and the other episodes stay readable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from robosim_datasets.lerobot_io import read_episode
from robosim_datasets.sources.lerobot import open_lerobot

from robosim.errors import DatasetError
from tests.datasets.sources.demos import Demo, numbers_of
from tests.datasets.sources.lerobot_asserts import assert_holds, change_info, faults_of, spoil


class TestDamage:
    def test_half_written_info(self, old: dict[str, Path], copy) -> None:
        root = copy(old["v2.1"])
        text = (root / "meta/info.json").read_bytes()
        for cut in (0, 1, len(text) // 2, len(text) - 2):
            (root / "meta/info.json").write_bytes(text[:cut])
            with pytest.raises(DatasetError, match=r"info\.json is damaged"):
                open_lerobot(root)

    @pytest.mark.parametrize(
        "changes",
        [
            {"features": {"action": {}}},
            {"features": []},
            {"fps": 0},
            {"fps": "fast"},
            {"codebase_version": 3},
        ],
    )
    def test_info_of_another_kind(self, old: dict[str, Path], copy, changes: dict) -> None:
        root = copy(old["v2.1"])
        change_info(root, **changes)
        with pytest.raises(DatasetError, match=r"info\.json"):
            open_lerobot(root)

    @pytest.mark.parametrize("damage", ["cut", "garbage", "gone"])
    def test_a_damaged_table_costs_its_episode_alone(
        self, old: dict[str, Path], demos: list[Demo], copy, damage: str
    ) -> None:
        root = copy(old["v2.1"])
        spoil(root / "data/chunk-000/episode_000001.parquet", damage)
        source = open_lerobot(root)
        with pytest.raises(DatasetError, match=r"episode_000001\.parquet.*episode 1"):
            source.read(1)
        if damage == "gone":
            assert [fault.episode for fault in source.info.faults] == [1]
        assert_holds(source, demos, [0, 2])

    @pytest.mark.parametrize("damage", ["cut", "garbage", "gone"])
    def test_a_damaged_video_costs_its_episode_alone(
        self, old: dict[str, Path], demos: list[Demo], copy, damage: str
    ) -> None:
        root = copy(old["v2.1"])
        spoil(root / "videos/chunk-000/observation.images.wrist/episode_000001.mp4", damage)
        source = open_lerobot(root)
        with pytest.raises(DatasetError, match=r"episode 1, camera wrist: .*episode_000001\.mp4"):
            list(source.frames(1, "wrist", range(17)))
        assert len(list(source.frames(1, "front", range(17)))) == 17
        assert_holds(source, demos, [0, 2])

    def test_a_damaged_row_group_costs_its_episode_alone(
        self, stock: dict[str, Path], demos: list[Demo], copy
    ) -> None:
        root = copy(stock["video"])
        path = root / "data/chunk-000/file-000.parquet"
        group = pq.read_metadata(path).row_group(1)
        data = bytearray(path.read_bytes())
        for column in (group.column(i) for i in range(group.num_columns)):
            start = column.dictionary_page_offset or column.data_page_offset
            data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
        path.write_bytes(data)
        source = open_lerobot(root)
        with pytest.raises(DatasetError, match=r"file-000\.parquet.*episode 1"):
            source.read(1)
        assert_holds(source, demos, [0, 2])

    def test_broken_pictures_in_a_table_are_named(
        self, old: dict[str, Path], demos: list[Demo], copy
    ) -> None:
        root = copy(old["v2.1 images"])
        path = root / "data/chunk-000/episode_000000.parquet"
        table, key = pq.read_table(path), "observation.images.front"
        pictures = table[key].to_pylist()
        data = bytearray(pictures[4]["bytes"])
        data[len(data) // 2] ^= 0x10
        pictures[4]["bytes"] = bytes(data)
        pictures[9]["bytes"] = pictures[9]["bytes"][:60]
        table = table.set_column(table.column_names.index(key), key, pa.array(pictures))
        pq.write_table(table, path)
        source = open_lerobot(root)
        for number in (4, 9):
            with pytest.raises(DatasetError, match=rf"episode_000000\.parquet.*episode 0, frame {number} "):
                list(source.frames(0, "front", [number]))
        assert [numbers_of(pixels) for pixels in source.frames(0, "front", [3, 5, 10])] == [
            (0, 3),
            (0, 5),
            (0, 10),
        ]

    @pytest.mark.parametrize("kind", ["v2.1", "video"])
    def test_rows_other_than_the_table_says(
        self, old: dict[str, Path], stock: dict[str, Path], demos: list[Demo], copy, kind: str
    ) -> None:
        root = copy({**old, **stock}[kind])
        name = "data/chunk-000/" + ("episode_000001.parquet" if kind == "v2.1" else "file-000.parquet")
        rows = pq.read_table(root / name)
        last = rows["episode_index"].to_numpy().tolist().index(1) + 16
        pq.write_table(pa.concat_tables([rows.slice(0, last), rows.slice(last + 1)]), root / name)
        source = open_lerobot(root)
        with pytest.raises(DatasetError, match="16 rows of episode 1, the episode table says 17"):
            source.read(1)
        assert_holds(source, demos, [0, 2])

    def test_rows_out_of_order(self, old: dict[str, Path], copy) -> None:
        root = copy(old["v2.1"])
        path = root / "data/chunk-000/episode_000001.parquet"
        pq.write_table(pq.read_table(path).take([*range(8), 9, 8, *range(10, 17)]), path)
        with pytest.raises(DatasetError, match="frame_index"):
            open_lerobot(root).read(1)

    def test_vectors_of_another_shape(self, old: dict[str, Path], copy) -> None:
        root = copy(old["v2.1"])
        path = root / "data/chunk-000/episode_000001.parquet"
        table = pq.read_table(path)
        place = table.column_names.index("action")
        for action in ([[1.0, 2.0]] * 17, [[1.0] * 3] * 15 + [[1.0] * 2, [1.0] * 4], ["a"] * 17, [None] * 17):
            pq.write_table(table.set_column(place, "action", pa.array(action)), path)
            with pytest.raises(DatasetError, match=r"episode 1.*action"):
                open_lerobot(root).read(1)
        pq.write_table(table.drop_columns(["action"]), path)
        with pytest.raises(DatasetError, match="episode 1 has no column action"):
            open_lerobot(root).read(1)

    def test_damaged_lines_of_the_episode_table(self, old: dict[str, Path], demos: list[Demo], copy) -> None:
        root = copy(old["v2.1"])
        path = root / "meta/episodes.jsonl"
        lines = path.read_bytes().splitlines()
        path.write_bytes(b"\n".join([lines[0], b'{"episode_index": 1, "tas\xff', lines[2]]))
        source = open_lerobot(root)
        assert source.info.episodes == 3 and any("line 2" in fault for fault in faults_of(source))
        assert [fault.episode for fault in source.info.faults if fault.episode is not None] == [1]
        with pytest.raises(DatasetError, match="lacks episode 1"):
            source.read(1)
        assert_holds(source, demos, [0, 2])
        path.write_bytes(lines[0] + b"\n" + lines[1][:20])
        assert {1, 2} <= {fault.episode for fault in open_lerobot(root).info.faults}

    def test_a_damaged_file_of_the_episode_table(
        self, stock: dict[str, Path], demos: list[Demo], copy
    ) -> None:
        root = copy(stock["video"])
        path = root / "meta/episodes/chunk-000/file-000.parquet"
        table = pq.read_table(path)
        pq.write_table(table.slice(0, 2), path)
        pq.write_table(table.slice(2), path.with_name("file-001.parquet"))
        spoil(path.with_name("file-001.parquet"), "cut")
        source = open_lerobot(root)
        assert any("file-001.parquet" in fault for fault in faults_of(source)) and source.info.episodes == 3
        with pytest.raises(DatasetError, match="lacks episode 2"):
            source.read(2)
        assert_holds(source, demos, [0, 1])

    def test_a_video_shorter_than_its_rows_never_shows_the_next_episode(
        self, stock: dict[str, Path], copy
    ) -> None:
        root = copy(stock["video"])
        path = root / "meta/episodes/chunk-000/file-000.parquet"
        table, key = pq.read_table(path), "videos/observation.images.front/to_timestamp"
        ends = table[key].to_pylist()
        ends[0] -= 3 / 30
        pq.write_table(table.set_column(table.column_names.index(key), key, pa.array(ends)), path)
        source = open_lerobot(root)
        assert [(fault.kind, fault.episode) for fault in source.info.faults] == [("length", 0)]
        frames = source.frames(0, "front", range(20))
        assert [numbers_of(next(frames)) for _ in range(17)] == [(0, number) for number in range(17)]
        with pytest.raises(DatasetError, match="17 frames of episode 0"):
            next(frames)

    @pytest.mark.parametrize("name", ["meta/robosim.json", "meta/stats.json", "meta/tasks.parquet"])
    def test_own_datasets_without_a_metadata_file(self, dataset: Path, copy, name: str) -> None:
        root = copy(dataset)
        spoil(root / name, "cut")
        source = open_lerobot(root)
        assert any(name in fault for fault in faults_of(source))
        np.testing.assert_array_equal(source.read(4).action, read_episode(dataset, 4).action)

    @pytest.mark.parametrize("kind", ["v2.1", "video"])
    @pytest.mark.parametrize(
        "stamps",
        [[0.0] * 17, np.arange(17)[::-1] / 30, [*range(8), np.nan, *range(9, 17)], [*range(16), np.inf]],
    )
    def test_time_stamps_that_do_not_rise(
        self, old: dict[str, Path], stock: dict[str, Path], copy, kind: str, stamps
    ) -> None:
        root = copy({**old, **stock}[kind])
        name = "data/chunk-000/" + ("episode_000001.parquet" if kind == "v2.1" else "file-000.parquet")
        table = pq.read_table(root / name)
        times = table["timestamp"].to_numpy().copy()
        times[table["episode_index"].to_numpy() == 1] = stamps
        place = table.column_names.index("timestamp")
        pq.write_table(table.set_column(place, "timestamp", pa.array(times)), root / name)
        source = open_lerobot(root)
        with pytest.raises(DatasetError, match=r"episode 1: its time stamps don't rise at frame \d+"):
            source.read(1)
        assert source.read(0).length == 20

    @pytest.mark.parametrize("splits", [["0:2", "2:3"], "0:3", 7])
    def test_splits_without_names(self, old: dict[str, Path], demos: list[Demo], copy, splits) -> None:
        root = copy(old["v2.1"])
        change_info(root, splits=splits)
        source = open_lerobot(root)
        assert [(fault.kind, fault.episode) for fault in source.info.faults] == [("schema", None)]
        assert source.read(0).split is None

    def test_a_number_of_episodes_beyond_belief(self, old: dict[str, Path], demos: list[Demo], copy) -> None:
        root = copy(old["v2.1"])
        change_info(root, total_episodes=10**12)
        source = open_lerobot(root)
        assert source.info.episodes == 3 and any("1000000000000" in fault for fault in faults_of(source))
        assert_holds(source, demos, [0])


class TestPathsFromElsewhere:
    """A dataset names files within itself only, whatever its tables say."""

    @pytest.mark.parametrize("key", ["data_path", "video_path"])
    @pytest.mark.parametrize(
        "template",
        [
            "data/{episode_index:>400000000}",
            "data/{episode_index:0400000000d}",
            "data/{episode_index.__class__}",
            "data/{episode_index!r}",
            "data/{video_key:>400000000}",
            "data/{}",
            "data/{root}",
            "data/{episode_index",
            5,
        ],
    )
    def test_templates_with_other_fields(self, old: dict[str, Path], copy, key: str, template) -> None:
        root = copy(old["v2.1"])
        change_info(root, **{key: template})
        with pytest.raises(DatasetError, match=f"info.json says {key} .* no path with the fields"):
            open_lerobot(root)

    @pytest.mark.parametrize("key", ["data_path", "video_path"])
    @pytest.mark.parametrize("path", ["/dev/zero", "../copy/data/x", "data/../../copy", "data/\0"])
    @pytest.mark.parametrize("kind", ["v2.1", "video"])
    def test_paths_that_lead_out(
        self, old: dict[str, Path], stock: dict[str, Path], copy, key: str, path: str, kind: str
    ) -> None:
        root = copy({**old, **stock}[kind])
        change_info(root, **{key: path})
        source = open_lerobot(root)
        assert {fault.episode for fault in source.info.faults} == {0, 1, 2}
        assert "isn't within the dataset" in faults_of(source)[0]
        for attempt in (lambda: source.read(1), lambda: list(source.frames(1, "front", [0]))):
            with pytest.raises(DatasetError, match="lacks episode 1"):
                attempt()

    @pytest.mark.parametrize("key", ["data_path", "video_path"])
    def test_devices_and_endless_names_are_no_files(self, old: dict[str, Path], copy, key: str) -> None:
        root = copy(old["v2.1"])
        (root / "zero").symlink_to("/dev/zero")
        for path in ("zero", "x" * 5000):
            change_info(root, **{key: path})
            source = open_lerobot(root)
            assert {fault.what for fault in source.info.faults} == {"the file is missing"}
            with pytest.raises(DatasetError, match="episode 1"):
                _ = source.read(1) if key == "data_path" else list(source.frames(1, "front", [0]))

    @pytest.mark.parametrize("path", ["/dev/zero", "zero", "../private.png", "gone.png"])
    def test_pictures_that_lead_out(self, old: dict[str, Path], copy, path: str) -> None:
        root = copy(old["v2.1 images"])
        name, key = root / "data/chunk-000/episode_000000.parquet", "observation.images.front"
        table = pq.read_table(name)
        pictures = table[key].to_pylist()
        (root / "zero").symlink_to("/dev/zero")
        for place in (root.parent / "private.png", root / "within.png"):
            place.write_bytes(pictures[5]["bytes"])
        pictures[4], pictures[5] = {"bytes": None, "path": path}, {"bytes": None, "path": "within.png"}
        changed = pa.array(pictures)
        pq.write_table(table.set_column(table.column_names.index(key), key, changed), name)
        source = open_lerobot(root)
        with pytest.raises(DatasetError, match="frame 4 can't be decoded"):
            list(source.frames(0, "front", [4]))
        assert [numbers_of(pixels) for pixels in source.frames(0, "front", [5])] == [(0, 5)]
