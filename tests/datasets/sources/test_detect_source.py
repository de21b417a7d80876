"""`open_source` knows every layout by what lies there, and says what it looked for."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from robosim_datasets.clip_store import ClipStore
from robosim_datasets.episode import Episode
from robosim_datasets.sources import detect
from robosim_datasets.sources.detect import LAYOUTS, detect_layout, open_source

from robosim.bench.layouts import make_recording, write_aloha, write_rlds, write_robomimic, write_videos
from robosim.errors import ConfigError, DatasetError

RECORDING = make_recording(2, 4, (16, 16), cameras=("front",))
WRITERS = {
    "rlds": lambda folder: write_rlds(folder, RECORDING),
    "aloha": lambda folder: write_aloha(folder, RECORDING),
    "robomimic": lambda folder: write_robomimic(folder / "x.hdf5", RECORDING),
    "video": lambda folder: write_videos(folder, RECORDING),
}


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_is_known(tmp_path: Path, layout: str):
    WRITERS[layout](tmp_path / "it")
    assert detect_layout(tmp_path / "it") == layout
    assert open_source(str(tmp_path / "it")).info.frames == RECORDING.frames


def test_every_layout_is_tried():
    assert set(LAYOUTS) == {"lerobot", "clips", *WRITERS}


def test_a_dataset_and_the_run_around_it_are_the_same(tmp_path: Path, dataset: Path):
    assert detect_layout(dataset) == "lerobot"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "dataset").symlink_to(dataset)
    assert open_source(tmp_path / "run").info.episodes == open_source(dataset).info.episodes == 11


def test_a_clip_store_and_the_run_around_it_are_the_same(
    tmp_path: Path, store: ClipStore, episodes: list[Episode]
):
    assert detect_layout(store.path) == "clips"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "clips").symlink_to(store.path)
    alone, run = open_source(store.path), open_source(tmp_path / "run")
    assert alone.info == replace(run.info, name=alone.info.name)
    assert (run.info.layout, run.info.episodes, run.info.splits) == ("clip store", 11, {"train": 8, "val": 3})
    assert run.read(3).instruction == episodes[3].instruction


def test_clips_have_the_numbers_and_frames_of_their_dataset(dataset: Path, store: ClipStore):
    clips, recorded = open_source(store.path), open_source(dataset)
    assert clips.info.cameras == recorded.info.cameras
    for index in (0, 10):
        one, other = clips.read(index), recorded.read(index)
        for name in ("state", "action", "reward", "success", "environment_state"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
        chosen = [0, 4, 4, one.length - 1]
        for camera in clips.info.cameras:
            pairs = zip(
                clips.frames(index, camera, chosen), recorded.frames(index, camera, chosen), strict=True
            )
            assert all(np.array_equal(mine, theirs) for mine, theirs in pairs)
    with pytest.raises(DatasetError, match="not frame 10"):
        list(clips.frames(0, "front", [10]))


def test_clips_without_a_column_of_their_labels_are_refused(tmp_path: Path, store: ClipStore):
    shutil.copytree(store.path, tmp_path / "clips")
    (tmp_path / "clips" / "columns" / "action.h5").unlink()
    with pytest.raises(DatasetError, match="no column 'action'"):
        open_source(tmp_path / "clips").read(0)


def test_an_index_of_something_else_is_no_clip_store(tmp_path: Path):
    write_videos(tmp_path, RECORDING)
    (tmp_path / "index.json").write_text("{}")
    assert detect_layout(tmp_path) == "video"


def test_a_layout_can_be_forced(tmp_path: Path):
    write_rlds(tmp_path, RECORDING)
    write_videos(tmp_path, RECORDING)
    assert open_source(tmp_path).info.layout == "RLDS (TFRecord)"
    assert open_source(tmp_path, "video").info.layout == "video files"


def test_an_unknown_layout_names_the_known_ones(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"unknown layout 'rlsd'.*'rlds'.*aloha"):
        open_source(tmp_path, "rlsd")


def test_nothing_known_says_what_was_looked_for(tmp_path: Path):
    (tmp_path / "readme.md").write_text("nothing")
    with pytest.raises(DatasetError) as caught:
        open_source(tmp_path)
    assert all(f"{layout}: " in str(caught.value) for layout in LAYOUTS)


def test_nothing_there(tmp_path: Path):
    with pytest.raises(DatasetError, match="nothing at"):
        open_source(tmp_path / "not" / "there")


def test_a_name_on_the_hub_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_videos(tmp_path / "copy", RECORDING)
    asked = []
    monkeypatch.setattr(detect, "fetch_from_hub", lambda name: asked.append(name) or tmp_path / "copy")
    assert open_source("lab/pushing").info.episodes == 2
    assert asked == ["lab/pushing"]


def test_an_hdf5_file_that_was_cut_off_is_called_damaged(tmp_path):
    whole = tmp_path / "demos.hdf5"
    write_robomimic(whole, make_recording(episodes=2, length=4))
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    for place in (whole, tmp_path):
        with pytest.raises(DatasetError, match=r"demos\.hdf5 is damaged \(.*truncated"):
            open_source(place)
