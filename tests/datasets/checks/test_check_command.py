"""`robosim data check PATH`: what it takes, prints, writes and answers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from robosim_datasets.checks.command import check_command, check_path
from robosim_datasets.checks.lerobot_checks import split_faults
from robosim_datasets.clip_store import MOTION, ClipStore, build_clip_store
from robosim_datasets.lerobot_io import DatasetWriter
from robosim_datasets.sources import detect
from robosim_datasets.sources.detect import open_source

from robosim.checkpoint import atomic_write_json
from robosim.errors import ConfigError, DatasetError
from robosim.spec import LABELS, RobotSpec

VIDEO = "videos/observation.images.front/chunk-000/file-000.mp4"
DATA = "data/chunk-000/file-000.parquet"


@pytest.fixture
def run(dataset: Path, store: ClipStore, tmp_path: Path) -> Path:
    shutil.copytree(dataset, tmp_path / "run/dataset")
    shutil.copytree(store.path, tmp_path / "run/clips")
    return tmp_path / "run"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit_info(root: Path, change) -> None:
    """Change `meta/info.json` of what is, without `meta/robosim.json`, any lab's LeRobotDataset."""
    (root / "meta/robosim.json").unlink(missing_ok=True)
    info = json.loads((root / "meta/info.json").read_text())
    change(info)
    atomic_write_json(root / "meta/info.json", info)


def sentences(path: Path) -> list[str]:
    return [fault.sentence() for fault in check_path(path, progress=False).faults]


def test_sound_run_is_said_to_be_sound(run, capsys):
    check_command("data check", [f"path={run}"])
    printed = capsys.readouterr()
    assert "sound: 11 episodes, 165 frames\n" in printed.out
    assert f"next: robosim train stage=tokenizer out={run}" in printed.out
    assert "330/330 frames" in printed.err


def test_faults_are_in_the_table_the_file_and_the_exit_code(run, tmp_path, capsys):
    flip(run / "dataset" / VIDEO)
    flip(run / "clips/columns/action.h5")
    with pytest.raises(DatasetError, match=r"11 episodes, 165 frames, \d+ faults in 1 episode$") as caught:
        check_command("data check", [f"path={run}", f"out={tmp_path}/faults.json"])
    assert caught.value.exit_code == 3
    printed = capsys.readouterr().out
    assert f"│ {VIDEO}" in printed and "│ clips/columns/action.h5" in printed
    assert f"next: robosim data show {run}" in printed
    written = json.loads((tmp_path / "faults.json").read_text())
    assert {fault["where"] for fault in written["faults"]} >= {VIDEO, "clips/columns/action.h5"}
    assert (written["episodes"], written["frames"]) == (11, 165)


def test_clip_store_alone(run, store):
    assert check_path(run / "clips", progress=False).summary() == "sound: 11 episodes, 165 frames"
    shutil.rmtree(run / "dataset")
    flip(run / "clips/frames/front-00000.h5")
    faults = sentences(run)
    assert any("frames/front-00000.h5 was changed since it was written" in fault for fault in faults)
    assert not any("camera side" in fault for fault in faults)


def test_clip_store_column_that_is_not_finite(run):
    store = ClipStore(run / "clips")
    values = np.zeros((store.num_frames, 2), np.float32)
    values[store.episodes[3].start + 2, 1] = np.nan
    store.add_column("latent_action", values, {})
    assert sentences(run) == ["not finite: episode 3, clips/columns/latent_action.h5: at frame 2"]


@pytest.mark.parametrize("name", [*LABELS, MOTION])
def test_missing_column_is_named(run, name):
    (run / f"clips/columns/{name}.h5").unlink()
    assert sentences(run) == [f"damaged: clips/columns/{name}.h5: is missing"]
    assert f"damaged: columns/{name}.h5: is missing" in sentences(run / "clips")


def test_clips_of_another_dataset(run, write, episodes, tmp_path):
    shutil.rmtree(run / "clips")
    build_clip_store(write(tmp_path / "other", episodes[:3]), run / "clips", progress=False)
    assert any("clips/index.json: was decoded from another dataset" in fault for fault in sentences(run))


def test_start_that_is_in_two_splits(make_episode, write, tmp_path):
    episodes = [make_episode(0), make_episode(1), make_episode(2, split="val")]
    episodes[2].seed = 0
    found = sentences(write(tmp_path / "dataset", episodes))
    assert found == [
        "splits: episode 2, meta/robosim.json: task reach, seed 0 is in val and in train (episode 0)"
    ]


def test_stray_file_among_the_data(run):
    shutil.copy(run / "dataset" / DATA, run / "dataset/data/chunk-000/file-001.parquet")
    assert any("file-001.parquet: isn't a file of this dataset" in fault for fault in sentences(run))


# A LeRobotDataset of somebody else's


def test_foreign_dataset_needs_no_checksums(run):
    edit_info(run / "dataset", lambda info: None)
    checked = check_path(run / "dataset", progress=False)
    assert checked.faults == [] and checked.episodes == 11


def test_splits_that_overlap(run):
    edit_info(
        run / "dataset", lambda info: info.update(splits={"train": "0:9", "val": "8:11", "test": "all"})
    )
    faults = sentences(run / "dataset")
    assert "splits: meta/info.json: train and val both have the episodes 8:9" in faults
    assert any("test is 'all' and not a range" in fault for fault in faults)


def test_splits_of_absurd_sizes_take_no_time(dataset):
    source = open_source(dataset)
    splits = {"train": "0:999999999", "val": "5:999999999", "test": "0:1", "long": f"0:{'9' * 5000}"}
    faults = [fault.sentence() for fault in split_faults({"splits": splits}, source.info.episodes)]
    assert len(faults) == 5 and max(map(len, faults)) < 120
    assert "splits: meta/info.json: train and val both have the episodes 5:11" in faults
    assert "splits: meta/info.json: test and train both have the episodes 0:1" in faults


@pytest.mark.parametrize("splits", [["0:8"], "0:8", 8])
def test_splits_that_are_no_ranges_by_name(run, splits):
    edit_info(run / "dataset", lambda info: info.update(splits=splits))
    assert any("splits" in fault for fault in sentences(run / "dataset"))


def test_rows_that_do_not_count(run):
    edit_info(run / "dataset", lambda info: None)
    path = run / "dataset" / DATA
    file = pq.ParquetFile(path)
    groups = [file.read_row_group(number) for number in range(file.num_row_groups)]
    with pq.ParquetWriter(path, groups[0].schema) as writer:
        for group in groups[:4] + groups[5:]:
            writer.write_table(group)
    faults = sentences(run / "dataset")
    assert any("time: episode 5" in fault and "episode_index is 5 in row 46" in fault for fault in faults)
    assert any(fault.startswith("damaged: episode 4") for fault in faults)


def test_video_that_is_longer_than_its_rows(write, episodes, tmp_path):
    root = write(tmp_path / "dataset", episodes[:3])
    long = write(tmp_path / "long", episodes[:4])
    edit_info(root, lambda info: None)
    shutil.copy(long / VIDEO, root / VIDEO)
    assert sentences(root) == [
        "length: observation.images.front: its files hold 46 frames, the episodes 33 rows"
    ]


def test_name_on_the_hub_is_said_as_it_was_typed(run, monkeypatch, capsys):
    edit_info(run / "dataset", lambda info: None)
    monkeypatch.setattr(detect, "fetch_from_hub", lambda name: run / "dataset")
    check_command("data check", ["path=lab/pushing"])
    assert "next: robosim import lab/pushing out=runs/pushing" in capsys.readouterr().out
    (run / "dataset" / VIDEO).unlink()
    with pytest.raises(DatasetError, match=r"^lab/pushing isn't sound"):
        check_command("data check", ["path=lab/pushing"])
    assert "next: robosim data show lab/pushing\n" in capsys.readouterr().out


def test_layout_says_what_of_a_run_is_checked(run):
    assert check_path(run, "clips", progress=False).layout == "clip store"
    flip(run / "clips/columns/action.h5")
    assert check_path(run, "lerobot", progress=False).faults != []
    assert check_path(run / "dataset", "lerobot", progress=False).faults == []


# What can't be checked


def test_nothing_there(tmp_path):
    with pytest.raises(DatasetError, match="nothing at"):
        check_path(tmp_path / "absent")
    with pytest.raises(ConfigError, match="path is empty"):
        check_command("data check", [])


@pytest.mark.parametrize("name", ["dataset", "clips"])
def test_half_written_result_is_named(spec, episodes, run, name):
    shutil.rmtree(run / "dataset")
    shutil.rmtree(run / "clips")
    (run / f"{name}.partial").mkdir()
    with pytest.raises(DatasetError, match=rf"{name}\.partial is what an interrupted run left"):
        check_path(run)


def test_episodes_without_labels(spec, make_episode, tmp_path):
    nobody = RobotSpec("nobody", (), (), (), ())
    bare = replace(spec, labels=(), action_kind="none", robot=nobody)
    empty = np.zeros((12, 0), np.float32)
    with DatasetWriter(tmp_path / "dataset", bare, {}) as writer:
        for seed in range(3):
            values = {"state": empty, "action": empty, "environment_state": empty}
            writer.add(
                make_episode(seed, 12, **values, reward=np.zeros(12, np.float32), success=np.zeros(12, bool))
            )
    assert sentences(tmp_path / "dataset") == []
    build_clip_store(tmp_path / "dataset", tmp_path / "clips", progress=False)
    assert sentences(tmp_path) == []
