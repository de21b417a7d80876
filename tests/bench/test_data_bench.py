"""`bench data`: both readers read the same clips, nothing is written into what is measured, and the waiting is real."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from robosim_datasets.clip_store import ClipStore, build_clip_store
from robosim_datasets.lerobot_io import open_dataset
from robosim_datasets.sampler import ClipSampler

from robosim.bench.data import (
    DataBenchConfig,
    bench_data,
    one_core,
    training_row,
    with_columns,
    write_made_up,
)
from robosim.checkpoint import file_hash
from robosim.errors import ConfigError, DatasetError
from robosim.training.presets import Preset, load_preset

SMALL = ["episodes=2", "length=20", "batch=4", "clips=8", "lerobot_clips=2", "repeats=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with the made-up dataset and its clips."""
    folder = tmp_path_factory.mktemp("bench") / "run"
    write_made_up(DataBenchConfig(episodes=3, length=18), folder / "dataset")
    build_clip_store(folder / "dataset", folder / "clips", progress=False)
    return folder


@pytest.fixture(scope="module")
def preset() -> Preset:
    return load_preset(
        "nano", ("tokenizer.train.batch=2", "dynamics.train.batch=2", "dynamics.clip_length=4")
    )


def test_both_readers_read_the_same_frames_of_a_made_up_dataset(capsys, tmp_path):
    out = tmp_path / "data.json"
    bench_data("bench data", [*SMALL, "steps=0", f"out={out}"])
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert result == json.loads(out.read_text())
    assert (result["dataset"]["episodes"], result["dataset"]["frames"], result["dataset"]["size"]) == (
        2,
        40,
        64,
    )
    assert result["largest_difference_in_grey_levels"] == 0
    store, stock = result["results"]
    assert (store["what"], stock["what"]) == ("clip store", "LeRobotDataset")
    assert store["clips_per_second"] > stock["clips_per_second"] > 0
    ratio = store["clips_per_second"] / stock["clips_per_second"]
    assert store["times_lerobot"] == pytest.approx(ratio, rel=0.01)
    assert "LeRobotDataset" in shown.err


@pytest.mark.parametrize("place", ["", "dataset"])
def test_a_run_or_its_dataset_is_measured_and_stays_as_it_is(run, capsys, place):
    before = {path: file_hash(path) for path in run.rglob("*") if path.is_file()}
    bench_data("bench data", [*SMALL, "steps=0", f"path={run / place}"])
    assert json.loads(capsys.readouterr().out)["dataset"]["frames"] == 54
    assert {path: file_hash(path) for path in run.rglob("*") if path.is_file()} == before


def test_every_part_is_timed_on_columns_of_its_own(run, preset, tmp_path):
    store = ClipStore(run / "clips")
    labelled = with_columns(store, preset, tmp_path / "run", seed=0)
    assert {"tokens", "latent_action", "draft"} <= set(labelled.column_names())
    assert "tokens" not in store.column_names()
    config = DataBenchConfig(repeats=1, steps=1)
    for part in ("tokenizer", "dynamics"):
        row = training_row(config, labelled, preset, part, "cpu")
        assert part in row["what"] and row["seconds_a_kept_step"] > 0
        expected = row["milliseconds_drawing"] / 1000 / row["seconds_a_step"]
        assert row["share_waiting"] == pytest.approx(expected, abs=2e-5)


def test_slow_drawing_shows_as_waiting(run, preset, monkeypatch):
    """The kept batch never waits; the drawn ones wait for as long as drawing takes."""
    read = ClipSampler.__call__
    monkeypatch.setattr(ClipSampler, "__call__", lambda *a: (time.sleep(0.5), read(*a))[1])
    row = training_row(DataBenchConfig(repeats=1), ClipStore(run / "clips"), preset, "tokenizer", "cpu")
    assert row["milliseconds_drawing"] >= 500
    assert row["seconds_a_step"] > row["seconds_a_kept_step"]
    assert row["share_waiting"] == pytest.approx(0.5 / row["seconds_a_step"], rel=0.1)


def test_one_core_is_given_back():
    before = torch.get_num_threads()
    with one_core():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_made_up_episodes_move_and_differ(run):
    dataset = open_dataset(run / "dataset")
    store = ClipStore(run / "clips")
    assert dataset.spec.labels == ("state", "action") and dataset.spec.robot.num_joints == 7
    assert (store.frames(0) != store.frames(1)).any() and store.column("motion")[:17].min() > 0


@pytest.mark.parametrize("override", ["clips=0", "length=8", "steps=-1", "model=huge", "speed=1"])
def test_a_wrong_key_is_refused(override: str):
    with pytest.raises(ConfigError):
        bench_data("bench data", [override])


def test_what_is_no_dataset_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"there is no dataset at .*absent"):
        bench_data("bench data", [f"path={tmp_path / 'absent'}"])
