"""What is written comes back: by our reader, and by stock LeRobot."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from robosim_datasets import lerobot_format
from robosim_datasets.checks.command import check_dataset
from robosim_datasets.clip_store import build_clip_store
from robosim_datasets.lerobot_io import (
    DatasetWriter,
    dataset_hash,
    open_dataset,
    read_episode,
    read_episode_table,
    read_spec,
)
from robosim_datasets.statistics import column_statistics, merge_statistics, video_statistics

from robosim.errors import DatasetError

ARRAYS = ("state", "action", "environment_state", "reward", "success")


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a.astype(float) - b) ** 2) / 255**2))


def test_round_trip_is_exact_but_for_the_video(dataset, episodes, spec):
    assert read_spec(dataset) == spec
    for index, original in enumerate(episodes):
        back = read_episode(dataset, index)
        for name in ARRAYS:
            assert np.array_equal(getattr(back, name), getattr(original, name)), name
            assert getattr(back, name).dtype == getattr(original, name).dtype
        for camera in spec.cameras:
            assert psnr(back.frames[camera], original.frames[camera]) > 40
        for name in ("task", "instruction", "behaviour", "split", "seed"):
            assert getattr(back, name) == getattr(original, name)


def test_a_table_that_is_written_in_parts_is_the_same(dataset, episodes, spec, tmp_path, monkeypatch):
    monkeypatch.setattr("robosim_datasets.dataset_writer.EPISODES_HELD", 4)
    with DatasetWriter(tmp_path / "parts", spec, provenance={}) as writer:
        for episode in episodes:
            writer.add(episode)
    table = lerobot_format.EPISODES_PARQUET
    assert pq.read_table(tmp_path / "parts" / table).equals(pq.read_table(dataset / table))
    assert pq.ParquetFile(tmp_path / "parts" / table).num_row_groups == 3
    parts, whole = (
        json.loads((root / "meta/stats.json").read_text()) for root in (tmp_path / "parts", dataset)
    )
    for feature, statistics in whole.items():
        for name, value in statistics.items():
            assert np.allclose(parts[feature][name], value, rtol=1e-12), (feature, name)


def test_small_coloured_object_keeps_its_colour(dataset, episodes):
    """Chroma subsampling would smear the square's edge by some 40 grey levels."""
    original, back = episodes[0].frames["front"], read_episode(dataset, 0).frames["front"]
    square = (original == (230, 60, 40)).all(axis=-1)
    assert np.abs(back.astype(int) - original)[square].max() < 20


def test_table_and_splits(dataset, episodes):
    table = read_episode_table(dataset)
    assert [row["length"] for row in table] == [episode.length for episode in episodes]
    assert all(row["success"] for row in table)
    info = json.loads((dataset / "meta/info.json").read_text())
    assert info["splits"] == {"train": "0:8", "val": "8:11"}
    assert check_dataset(dataset) == []


def test_writing_twice_gives_the_same_bytes(write, episodes, dataset, tmp_path):
    assert dataset_hash(write(tmp_path / "again", episodes)) == dataset_hash(dataset)
    assert dataset_hash(write(tmp_path / "fewer", episodes[:-1])) != dataset_hash(dataset)


def test_many_files(write, episodes, tmp_path, monkeypatch):
    """Every episode overflows its file, so that each gets its own."""
    monkeypatch.setattr(lerobot_format, "VIDEO_FILE_MB", 1e-9)
    monkeypatch.setattr(lerobot_format, "DATA_FILE_MB", 1e-9)
    monkeypatch.setattr(lerobot_format, "CHUNK_FILES", 2)
    root = write(tmp_path / "many", episodes[:5])
    assert (root / "videos/observation.images.side/chunk-002/file-000.mp4").is_file()
    assert check_dataset(root) == []
    assert np.array_equal(read_episode(root, 3).action, episodes[3].action)
    store = build_clip_store(root, tmp_path / "clips", progress=False)
    assert psnr(store.frames(4), episodes[4].frames["front"]) > 40


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")


def test_stock_lerobot_reads_it(write, episodes, spec, tmp_path, no_network, monkeypatch):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    monkeypatch.setattr(lerobot_format, "VIDEO_FILE_MB", 0.02)
    monkeypatch.setattr(lerobot_format, "DATA_FILE_MB", 0.004)
    root = write(tmp_path / "dataset", episodes)
    assert len(list(root.glob("videos/observation.images.front/*/*"))) > 1
    assert len(list(root.glob("data/*/*"))) > 1
    window = {"observation.images.front": [0.0, 0.1], "action": [0.0, 0.1]}
    stock = LeRobotDataset(
        "robosim/test", root=root, video_backend="pyav", return_uint8=True, delta_timestamps=window
    )
    assert (stock.num_episodes, stock.fps) == (len(episodes), spec.fps)
    assert len(stock) == sum(episode.length for episode in episodes)
    first = 0
    for index, original in enumerate(episodes):
        ours = read_episode(root, index)
        for frame in (0, 3, original.length - 2):
            item = stock[first + frame]
            pixels = item["observation.images.front"].permute(0, 2, 3, 1).numpy()
            assert np.array_equal(pixels, ours.frames["front"][frame : frame + 2])
            assert np.array_equal(item["action"].numpy(), original.action[frame : frame + 2])
            assert np.array_equal(item["observation.state"].numpy(), original.state[frame])
            assert item["next.reward"].item() == original.reward[frame + 1]
            assert item["next.success"].item() == original.success[frame + 1]
            assert item["task"] == original.instruction
        first += original.length
    actions = np.concatenate([episode.action for episode in episodes])
    assert np.allclose(stock.meta.stats["action"]["mean"], actions.mean(0), atol=1e-6)
    assert np.allclose(stock.meta.stats["action"]["std"], actions.std(0), atol=1e-6)
    assert stock.meta.stats["observation.images.front"]["mean"].shape == (3, 1, 1)


def test_impulse_stays_aligned(write, make_episode, tmp_path):
    """A command at row t moves the picture between t and t + 1 and is rewarded at t + 1, in every form of storage."""
    moment = 5
    episode = make_episode(0, 12)
    still = np.full_like(episode.frames["front"], 90)
    still[moment + 1 :] = 200
    episode.frames = {"front": still, "side": still}
    episode.action = np.zeros_like(episode.action)
    episode.action[moment] = 1
    episode.reward = np.zeros_like(episode.reward)
    episode.reward[moment + 1] = 1
    root = write(tmp_path / "dataset", [make_episode(1), episode])

    def check(frames: np.ndarray, action: np.ndarray, reward: np.ndarray) -> None:
        change = np.abs(np.diff(frames.astype(int), axis=0)).mean(axis=(1, 2, 3))
        assert change.argmax() == action[:, 0].argmax() == reward.argmax() - 1 == moment

    back = read_episode(root, 1)
    check(back.frames["front"], back.action, back.reward)
    store = build_clip_store(root, tmp_path / "clips", progress=False)
    rows = slice(store.episodes[1].start, None)
    check(store.frames(1), store.column("action")[rows], store.column("reward")[rows])
    assert store.column("motion")[rows].argmax() == moment


def test_statistics_merge_as_if_computed_at_once():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(length, 2)) for length in (5, 50, 17)]
    merged = merge_statistics([column_statistics(part) for part in parts])
    whole = np.concatenate(parts)
    for name in ("mean", "std", "min", "max"):
        assert np.allclose(merged[name], getattr(whole, name)(axis=0)), name
    assert merged["count"] == [72]
    frames = rng.integers(0, 256, size=(4, 8, 8, 3), dtype=np.uint8)
    statistics = video_statistics(frames)
    assert np.allclose(statistics["mean"].ravel(), frames[0].reshape(-1, 3).mean(0) / 255)
    assert np.allclose(statistics["std"].ravel(), frames[0].reshape(-1, 3).std(0) / 255)
    assert np.all(statistics["q01"] <= statistics["q50"]) and np.all(statistics["q50"] <= statistics["q99"])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"task": "fly"}, "task"),
        ({"split": "test"}, "split"),
        ({"state": np.zeros((12, 3), np.float64)}, "state is float64"),
        ({"action": np.zeros((12, 2), np.float32)}, "action"),
        ({"action": np.full((12, 3), np.nan, np.float32)}, "action isn't finite at frame 0"),
        ({"reward": np.ones(12, np.float32)}, "first frame has a reward"),
        ({"frames": {"front": np.zeros((12, 32, 32, 3), np.uint8)}}, "cameras"),
        ({"frames": {c: np.zeros((12, 64, 64, 3), np.uint8) for c in ("front", "side")}}, "frames of front"),
    ],
)
def test_unfitting_episode_is_refused(spec, make_episode, tmp_path: Path, changes, complaint):
    with DatasetWriter(tmp_path / "dataset", spec, {}) as writer:
        writer.add(make_episode(0))
        with pytest.raises(DatasetError, match=complaint):
            writer.add(make_episode(1, **changes))
    assert len(open_dataset(tmp_path / "dataset").episodes) == 1
