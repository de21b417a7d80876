"""`open_source` knows every layout by what lies there, and says what it looked for."""

from __future__ import annotations

from pathlib import Path

import pytest
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
    assert set(LAYOUTS) == {"lerobot", *WRITERS}


def test_a_dataset_and_the_run_around_it_are_the_same(tmp_path: Path, dataset: Path):
    assert detect_layout(dataset) == "lerobot"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "dataset").symlink_to(dataset)
    assert open_source(tmp_path / "run").info.episodes == open_source(dataset).info.episodes == 11


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
