"""Several processes at one dataset and one clip store, and readers beside a writer that is killed."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from robosim_datasets.checks.command import check_path
from robosim_datasets.clip_store import ClipStore, build_clip_store
from robosim_datasets.lerobot_io import dataset_hash, load_episode, open_dataset

READER = """
import sys
import numpy as np
from robosim_datasets.clip_store import ClipStore
from robosim_datasets.lerobot_io import load_episode, open_dataset

dataset, store = open_dataset(sys.argv[1]), ClipStore(sys.argv[2])
generator = np.random.default_rng(int(sys.argv[3]))
for number in range(40):
    index = int(generator.integers(len(store.episodes)))
    episode, row = load_episode(dataset, index), store.episodes[index]
    for camera in store.spec.cameras:
        for start in generator.integers(row.length - 4, size=20):
            clip = store.frames(index, start, start + 4, camera)
            assert np.array_equal(clip, episode.frames[camera][start : start + 4]), (index, camera, start)
    rows = slice(row.start, row.start + row.length)
    assert np.array_equal(store.column("action")[rows], episode.action), index
print("done")
"""

WRITER = """
import os, signal, sys
from robosim_datasets import clip_files, clip_store
from robosim_datasets.clip_store import ClipStore, build_clip_store
from robosim_datasets.lerobot_io import DatasetWriter, load_episode, open_dataset

run, what = sys.argv[1:]
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
dataset = open_dataset(run + "/dataset")
if what == "dataset":
    writer = DatasetWriter(run + "/dataset", dataset.spec, {}, replace=True)
    for index in range(3):
        writer.add(load_episode(dataset, index))
    die()
elif what == "clips":
    clip_store.read_all_columns = die
    build_clip_store(run + "/other", run + "/clips", progress=False, replace=True)
elif what == "column":
    clip_files.replace_atomically = die
    store = ClipStore(run + "/clips")
    store.add_column("tokens", list(range(store.num_frames))[::-1], {"new": True})
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def run(dataset: Path, store: ClipStore, tmp_path: Path) -> Path:
    shutil.copytree(dataset, tmp_path / "run/dataset")
    shutil.copytree(store.path, tmp_path / "run/clips")
    return tmp_path / "run"


def test_four_readers_at_once(run):
    readers = [start(READER, run / "dataset", run / "clips", seed) for seed in range(4)]
    for reader in readers:
        out, err = reader.communicate(timeout=120)
        assert out == "done\n", err


@pytest.mark.parametrize("what", ["dataset", "clips", "column"])
def test_killed_writer_leaves_readers_and_the_next_writer_untouched(run, write, episodes, what):
    write(run / "other", episodes[:3])
    ClipStore(run / "clips").add_column("tokens", np.arange(165), {})
    hash_before = dataset_hash(run / "dataset")
    reader, clips = open_dataset(run / "dataset"), ClipStore(run / "clips")
    frames = clips.frames(4).copy()

    writer = start(WRITER, run, what)
    _, err = writer.communicate(timeout=120)
    assert writer.returncode == -signal.SIGKILL, err
    assert list(run.rglob("*.partial")), "it was killed in the middle"

    # Whoever had it open goes on, and who opens it now finds what was there.
    assert np.array_equal(load_episode(reader, 4).frames["front"], frames)
    assert np.array_equal(clips.frames(5, camera="side"), load_episode(reader, 5).frames["side"])
    assert dataset_hash(run / "dataset") == hash_before
    assert np.array_equal(ClipStore(run / "clips").column("tokens"), np.arange(165))
    assert check_path(run, progress=False).faults == []

    write(run / "dataset", episodes[:2], replace=True)
    store = build_clip_store(run / "dataset", run / "clips", progress=False, replace=True)
    store.add_column("tokens", np.zeros(store.num_frames), {})
    assert check_path(run, progress=False).faults == []
    assert not list(run.rglob("*.partial"))
