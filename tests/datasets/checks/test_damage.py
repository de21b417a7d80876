"""Files of a dataset and of a clip store, cut off and with flipped bytes at many places: each one is named, nothing
damaged is read, nothing good is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from robosim_datasets.checks.command import check_path
from robosim_datasets.checks.dataset_checks import own_faults
from robosim_datasets.checks.store_checks import store_faults
from robosim_datasets.clip_store import ClipStore, build_clip_store
from robosim_datasets.episode import Episode
from robosim_datasets.lerobot_io import DatasetWriter, load_episode, open_dataset, open_tables
from robosim_datasets.sources.detect import open_source

from robosim.errors import DatasetError
from robosim.spec import LABELS, EnvSpec

PLACES = 20

DATASET_FILES = (
    "data/chunk-000/file-000.parquet",
    "meta/episodes/chunk-000/file-000.parquet",
    "meta/info.json",
    "meta/robosim.json",
    "meta/stats.json",
    "meta/tasks.parquet",
    "videos/observation.images.front/chunk-000/file-000.mp4",
)
UNREAD = ("meta/info.json", "meta/stats.json", "meta/tasks.parquet")
"""What `load_episode` doesn't need."""

STORE_FILES = (
    "columns/action.h5",
    "columns/motion.h5",
    "columns/success.h5",
    "frames/front-00000.h5",
    "index.json",
)


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, spec: EnvSpec, make_episode: Callable[..., Episode]
) -> Path:
    """A run folder with four short episodes of one camera, and its clips; every test mends what it breaks."""
    run = tmp_path_factory.mktemp("damage")
    small = replace(spec, cameras=("front",), size=16)
    with DatasetWriter(run / "dataset", small, {"renderer": "squares"}) as writer:
        for seed in range(4):
            episode = make_episode(seed, 6, split="train" if seed < 3 else "val")
            episode.frames = {"front": episode.frames["front"][:, 8:24, 8:24]}
            writer.add(episode)
    build_clip_store(run / "dataset", run / "clips", progress=False)
    return run


@pytest.fixture(scope="module")
def originals(run: Path) -> list[Episode]:
    dataset = open_dataset(run / "dataset")
    return [load_episode(dataset, index) for index in range(4)]


def damages(path: Path, places: int = PLACES) -> Iterator[str]:
    """The file cut off at so many places, then with a flipped bit at as many; whole again at the end."""
    content = path.read_bytes()
    spots = np.linspace(0, len(content) - 2, places).astype(
        int
    )  # the last byte of a JSON file is a mere new line
    try:
        for spot in spots:
            path.write_bytes(content[:spot])
            yield f"{path.name} cut off after {spot} of {len(content)} bytes"
        for number, spot in enumerate(spots):
            flipped = bytearray(content)
            flipped[spot] ^= 1 << (number % 8)
            path.write_bytes(flipped)
            yield f"{path.name} with a flipped bit in byte {spot} of {len(content)}"
    finally:
        path.write_bytes(content)


def same(one: Episode, other: Episode) -> bool:
    names = ("task", "instruction", "behaviour", "split", "seed")
    arrays = [np.array_equal(getattr(one, name), getattr(other, name)) for name in LABELS]
    frames = [np.array_equal(one.frames[camera], other.frames[camera]) for camera in one.frames]
    return all([*arrays, *frames, *(getattr(one, name) == getattr(other, name) for name in names)])


def readable(root: Path, originals: list[Episode]) -> int:
    """How many episodes can still be read, each exactly as it was; the others are refused in one line."""
    try:
        dataset = open_tables(root)
    except DatasetError as error:
        assert "\n" not in str(error)
        return 0
    count = 0
    for index, original in enumerate(originals):
        try:
            assert same(load_episode(dataset, index), original)
            count += 1
        except DatasetError as error:
            assert "\n" not in str(error)
    return count


@pytest.mark.parametrize("name", DATASET_FILES)
def test_every_damage_to_a_dataset_is_named_and_nothing_damaged_is_read(run, originals, name):
    root = run / "dataset"
    for what in damages(root / name):
        assert any(name in fault.sentence() for fault in own_faults(root)), what
        if name not in UNREAD:
            readable(root, originals)
        with pytest.raises(DatasetError) as caught:
            open_dataset(root)
            build_clip_store(root, run / "other", progress=False)
        assert name in str(caught.value) and "\n" not in str(caught.value), what
        assert not (run / "other").exists() and not (run / "other.partial").exists()
    assert own_faults(root) == []


@pytest.mark.parametrize("name", STORE_FILES)
def test_every_damage_to_a_clip_store_is_named_and_nothing_damaged_is_read(run, name):
    clips, good = run / "clips", ClipStore(run / "clips")
    whole = {"motion": good.column("motion"), **{label: good.column(label) for label in LABELS}}
    frames = [good.frames(episode).copy() for episode in range(4)]
    for what in damages(clips / name):
        assert any(name in fault.sentence() for fault in store_faults(clips)), what
        with pytest.raises(DatasetError) as caught:
            store = ClipStore(clips)
            for episode in range(4):
                assert np.array_equal(store.frames(episode), frames[episode])
            for column, values in whole.items():
                assert np.array_equal(store.column(column), values)
        assert name in str(caught.value) and "\n" not in str(caught.value), what
    assert store_faults(clips) == []


@pytest.mark.parametrize("base", ["dataset", "clips"])
def test_the_whole_check_survives_every_damage(run, base):
    """Whatever reads a damaged file, in one library or another, it ends in the table and not in a traceback."""
    for name in DATASET_FILES if base == "dataset" else STORE_FILES:
        for what in damages(run / base / name, places=3):
            try:
                sentences = [fault.sentence() for fault in check_path(run / base, progress=False).faults]
            except DatasetError as error:
                sentences = [str(error)]
            assert any(name in sentence for sentence in sentences), what


@pytest.mark.parametrize("name", [DATASET_FILES[0], DATASET_FILES[-1]])
def test_a_flipped_bit_in_one_episode_costs_that_episode_alone(run, originals, name):
    root = run / "dataset"
    content = (root / name).read_bytes()
    lost = []
    for spot in np.linspace(0.05, 0.45, PLACES):
        flipped = bytearray(content)
        flipped[int(spot * len(content))] ^= 1
        (root / name).write_bytes(flipped)
        lost.append(4 - readable(root, originals))
        named = {fault.episode for fault in own_faults(root)} - {None}
        assert len(named) == lost[-1]
    (root / name).write_bytes(content)
    assert set(lost) <= {0, 1} and lost.count(1) > PLACES // 2
    assert readable(root, originals) == 4


@pytest.mark.parametrize("name", [name for name in DATASET_FILES if name != "meta/robosim.json"])
def test_a_source_reads_what_is_sound_and_nothing_else(run, originals, name):
    root = run / "dataset"
    whole = 0
    for what in damages(root / name, places=10):
        try:
            source = open_source(root)
        except DatasetError as error:
            assert name in str(error), what
            continue
        for index, original in enumerate(originals):
            try:
                episode = source.read(index)
                frames = np.stack(list(source.frames(index, "front", range(episode.length))))
            except DatasetError:
                continue
            whole += 1
            assert np.array_equal(frames, original.frames["front"]), what
            assert np.array_equal(episode.action, original.action), what
            assert np.array_equal(episode.state, original.state), what
    assert whole > 10 or name in ("meta/info.json", "meta/episodes/chunk-000/file-000.parquet")


def test_an_unfinished_copy_of_a_dataset_keeps_its_other_files(run, originals, tmp_path):
    """Half a copy: what is missing is named, file by file, and nothing of what is there is removed."""
    copy = Path(shutil.copytree(run / "dataset", tmp_path / "copy"))
    (copy / DATASET_FILES[-1]).unlink()
    before = sorted(path for path in copy.rglob("*"))
    sentences = [fault.sentence() for fault in check_path(copy, progress=False).faults]
    assert f"damaged: {DATASET_FILES[-1]}: is missing" in sentences
    assert all(any(f"episode {index}" in sentence for sentence in sentences) for index in range(4))
    assert sorted(path for path in copy.rglob("*")) == before
