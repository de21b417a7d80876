"""The clip store gives back the dataset's frames and columns, and refuses what is damaged."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from robosim_datasets import clip_store
from robosim_datasets.clip_store import ClipStore, build_clip_store, frame_motion
from robosim_datasets.lerobot_io import read_episode, read_episode_table

from robosim.checkpoint import file_hash
from robosim.errors import DatasetError, OutputError
from robosim.spec import LABELS


@pytest.fixture
def copy(store: ClipStore, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store.path, tmp_path / "copy"))


def flip_bit(path: Path, position: float = 0.9) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * position)] ^= 1
    path.write_bytes(content)


def test_frames_and_columns_are_the_datasets(store, dataset, episodes):
    for position, row in enumerate(store.episodes):
        episode = read_episode(dataset, row.index)
        for camera in store.spec.cameras:
            assert np.array_equal(store.frames(position, camera=camera), episode.frames[camera])
        rows = slice(row.start, row.start + row.length)
        for name in LABELS:
            assert np.array_equal(store.column(name)[rows], getattr(episodes[row.index], name)), name
    assert np.array_equal(store.frames(3, 2, 5), store.frames(3)[2:5])
    assert store.num_frames == sum(episode.length for episode in episodes)
    assert store.verify() == []


def test_select(store):
    assert store.select() == list(range(11))
    assert store.select(split="val") == [8, 9, 10]
    assert store.select(split="train", task="reach") == [0, 2, 4, 6]
    assert store.select(behaviour="explore", split="val") == [9]
    assert store.select(task="absent") == []


def test_every_episode_keeps_its_own_sentence(store, dataset):
    assert [row.instruction for row in store.episodes] == [
        row["instruction"] for row in read_episode_table(dataset)
    ]
    assert len({row.instruction for row in store.episodes}) == 2


def test_shards_hold_whole_episodes(dataset, store, tmp_path, monkeypatch):
    monkeypatch.setattr(clip_store, "SHARD_BYTES", 30 * 32 * 32 * 3)
    small = build_clip_store(dataset, tmp_path / "clips", progress=False)
    assert len(list((small.path / "frames").glob("front-*.h5"))) > 3
    for episode in range(len(store.episodes)):
        assert np.array_equal(small.frames(episode, camera="side"), store.frames(episode, camera="side"))


def test_asking_for_what_is_not_there(store):
    with pytest.raises(IndexError, match="frames 0:99 of episode 0, which has 10"):
        store.frames(0, 0, 99)
    with pytest.raises(ValueError, match=r"no camera 'top'.*front, side"):
        store.frames(0, camera="top")
    with pytest.raises(DatasetError, match=r"no column 'tokens' \(it has action.*run the stage"):
        store.column("tokens")
    assert store.column_provenance("tokens") is None


def test_motion_comes_from_pixels(store):
    row = store.episodes[2]
    expected = frame_motion(store.frames(2))
    assert np.array_equal(store.column("motion")[row.start : row.start + row.length], expected)
    frames = store.frames(2).astype(float)
    assert np.allclose(expected[:-1], np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3)))
    assert expected[-1] == 0


def test_added_column_comes_back_and_can_be_replaced(copy):
    store = ClipStore(copy)
    tokens = np.random.default_rng(0).integers(0, 512, size=(store.num_frames, 64), dtype=np.int16)
    store.add_column("tokens", tokens, {"tokenizer": "abc"})
    assert np.array_equal(store.column("tokens"), tokens)
    assert np.array_equal(ClipStore(copy).column("tokens"), tokens)
    assert ClipStore(copy).column_provenance("tokens") == {"tokenizer": "abc"}
    store.add_column("tokens", tokens[::-1], {"tokenizer": "def"})
    assert np.array_equal(store.column("tokens"), tokens[::-1])
    assert store.column_provenance("tokens") == {"tokenizer": "def"}
    assert "tokens" in store.column_names()
    with pytest.raises(ValueError, match="read-only"):
        store.column("tokens")[0] = 0


def test_wrong_columns_are_refused(copy):
    store = ClipStore(copy)
    with pytest.raises(ValueError, match="has 3 rows"):
        store.add_column("tokens", np.zeros(3), {})
    for name in ("action", "motion", "../escape"):
        with pytest.raises(ValueError, match="can't name an added column"):
            store.add_column(name, np.zeros(store.num_frames), {})


def test_video_only_stages_touch_no_label(copy, store):
    """Without any label file, frames, motion and the episode table are all there."""
    for name in LABELS:
        (copy / f"columns/{name}.h5").unlink()
    blind = ClipStore(copy)
    assert np.array_equal(blind.frames(4), store.frames(4))
    assert np.array_equal(blind.column("motion"), store.column("motion"))


def test_labels_change_nothing_in_the_frames(write, store, episodes, tmp_path):
    rng = np.random.default_rng(9)
    garbage = [
        replace(
            episode,
            action=rng.normal(size=episode.action.shape).astype(np.float32) * 1e6,
            state=np.zeros_like(episode.state),
            reward=np.zeros_like(episode.reward),
            success=np.zeros_like(episode.success),
            instruction="nonsense",
        )
        for episode in episodes
    ]
    other = build_clip_store(write(tmp_path / "garbage", garbage), tmp_path / "clips", progress=False)
    for path in sorted((store.path / "frames").iterdir()):
        assert file_hash(path) == file_hash(other.path / "frames" / path.name)
    assert file_hash(store.path / "columns/motion.h5") == file_hash(other.path / "columns/motion.h5")


def test_built_store_is_reused_with_its_columns(dataset, tmp_path):
    store = build_clip_store(dataset, tmp_path / "clips", progress=False)
    store.add_column("tokens", np.arange(store.num_frames), {})
    again = build_clip_store(dataset, tmp_path / "clips", progress=False)
    assert np.array_equal(again.column("tokens"), np.arange(store.num_frames))


def test_store_of_another_dataset_is_refused_unless_replaced(write, episodes, copy, tmp_path):
    other = write(tmp_path / "other", episodes[:2])
    with pytest.raises(OutputError, match="already holds a finished result"):
        build_clip_store(other, copy, progress=False)
    assert len(ClipStore(copy).episodes) == 11
    assert len(build_clip_store(other, copy, progress=False, replace=True).episodes) == 2


# Faults


def test_missing_store(tmp_path):
    with pytest.raises(DatasetError, match="no clip store at"):
        ClipStore(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', '{"format": 7}'])
def test_damaged_index(copy, content):
    (copy / "index.json").write_text(content)
    with pytest.raises(DatasetError, match=str(copy)) as caught:
        ClipStore(copy)
    assert "\n" not in str(caught.value)


def test_truncated_shard_is_named_at_once(copy):
    path = copy / "frames/side-00000.h5"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DatasetError, match=r"side-00000\.h5 has \d+ bytes, written \d+; delete"):
        ClipStore(copy)


def test_flipped_bit_in_a_shard_is_never_read(copy):
    flip_bit(copy / "frames/front-00000.h5")
    store = ClipStore(copy)
    with pytest.raises(DatasetError, match=r"front-00000\.h5 was changed"):
        store.frames(0)
    assert store.frames(0, camera="side").any()
    assert len(store.verify()) == 1


def test_garbage_that_is_no_hdf5_is_named(copy):
    path = copy / "frames/front-00000.h5"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(DatasetError, match=r"front-00000\.h5 can't be opened"):
        ClipStore(copy, verify=False).frames(0)


def test_shard_of_another_frame_size_is_named(copy):
    with h5py.File(copy / "frames/front-00000.h5", "w") as file:
        file["frames"] = np.zeros((3, 16, 16, 3), np.uint8)
    index = json.loads((copy / "index.json").read_text())
    del index["sha256"]
    index["shards"][0]["bytes"] = (copy / "frames/front-00000.h5").stat().st_size
    (copy / "index.json").write_text(json.dumps(index))
    with pytest.raises(DatasetError, match="doesn't hold 165 frames of 32 pixels"):
        ClipStore(copy, verify=False).frames(0)


def test_damaged_column_is_named(copy):
    path = copy / "columns/action.h5"
    with h5py.File(path, "r+") as file:
        file["values"][5, 0] += 1
    with pytest.raises(DatasetError, match=r"action\.h5 is damaged \(wrong checksum\)"):
        ClipStore(copy).column("action")
    path.write_bytes(path.read_bytes()[:800])
    with pytest.raises(DatasetError, match=r"action\.h5 is damaged"):
        ClipStore(copy).column("action")
    assert len(ClipStore(copy).verify()) == 1


def test_full_disk_leaves_no_store_and_keeps_the_old_column(dataset, copy, tmp_path, monkeypatch):
    store = ClipStore(copy)
    store.add_column("tokens", np.arange(store.num_frames), {})

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(h5py.Group, "create_dataset", full)
    with pytest.raises(OutputError, match="the disk is full"):
        store.add_column("tokens", np.zeros(store.num_frames), {"new": True})
    with pytest.raises(OutputError, match="the disk is full"):
        build_clip_store(dataset, tmp_path / "clips", progress=False)
    assert np.array_equal(ClipStore(copy).column("tokens"), np.arange(store.num_frames))
    assert not list(tmp_path.glob("clips*")) and not list(copy.rglob("*.partial"))


def test_video_that_ends_early_leaves_no_store(write, episodes, tmp_path, monkeypatch):
    root = write(tmp_path / "dataset", episodes[:3])
    decode = clip_store.decode_frames
    monkeypatch.setattr(clip_store, "decode_frames", lambda *args: iter(list(decode(*args))[:15]))
    with pytest.raises(DatasetError, match="ends after 5 of the 11 frames of episode 1"):
        build_clip_store(root, tmp_path / "clips", progress=False)
    assert not list(tmp_path.glob("clips*"))
