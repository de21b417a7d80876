"""Sources are read by several threads at once: what they get is what one thread gets."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from robosim_datasets.sources.detect import open_source
from robosim_datasets.sources.source import Source

from robosim.bench.layouts import make_recording, write_aloha, write_rlds, write_robomimic, write_videos

THREADS = 8
RECORDING = make_recording(6, 9, (20, 28))

WRITE: dict[str, Callable[[Path], object]] = {
    "rlds": lambda folder: write_rlds(folder, RECORDING, shards=2),
    "aloha": lambda folder: write_aloha(folder, RECORDING),
    "aloha, compressed": lambda folder: write_aloha(folder, RECORDING, compressed=True),
    "robomimic": lambda folder: write_robomimic(folder / "a.hdf5", RECORDING),
    "video": lambda folder: write_videos(folder, RECORDING),
    "animations": lambda folder: write_videos(folder, RECORDING, ".webp"),
}


@pytest.mark.parametrize("layout", WRITE)
def test_layouts(tmp_path: Path, layout: str):
    WRITE[layout](tmp_path / "it")
    assert_same_from_threads(open_source(tmp_path / "it"))


@pytest.mark.parametrize("kind", ["v2.1", "v2.1 images", "video", "image"])
def test_lerobot(old: dict[str, Path], stock: dict[str, Path], kind: str):
    assert_same_from_threads(open_source({**old, **stock}[kind]))


def test_lerobot_with_pictures_in_one_row_group(stock: dict[str, Path], copy):
    path = copy(stock["image"]) / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path), path)
    assert_same_from_threads(open_source(path.parents[2]))


def assert_same_from_threads(source: Source) -> None:
    """Every episode from every thread, in an order of its own."""
    alone = [everything(source, episode) for episode in range(source.info.episodes)]
    rng = np.random.default_rng(0)
    orders = [rng.permutation(source.info.episodes).tolist() for _ in range(THREADS)]

    def read(order: list[int]) -> list[list[np.ndarray]]:
        return [everything(source, episode) for episode in order]

    with ThreadPoolExecutor(THREADS) as pool:
        for order, found in zip(orders, pool.map(read, orders), strict=True):
            for episode, columns in zip(order, found, strict=True):
                for one, other in zip(alone[episode], columns, strict=True):
                    np.testing.assert_array_equal(one, other)


def everything(source: Source, episode: int) -> list[np.ndarray]:
    """Numbers, sentence and all frames of an episode."""
    read = source.read(episode)
    frames = [
        np.stack(list(source.frames(episode, name, range(read.length)))) for name in source.info.cameras
    ]
    return [read.state, read.action, np.array(read.instruction), *frames]
