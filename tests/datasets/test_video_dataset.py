"""Where an episode's rows lie, and how often its file is read for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from robosim_datasets import lerobot_format, video_dataset
from robosim_datasets.episode import Episode
from robosim_datasets.lerobot_io import load_episode, open_dataset


@pytest.fixture
def many_files(write: Callable[..., Path], episodes: list[Episode], tmp_path: Path, monkeypatch) -> Path:
    """Two or three episodes a data file."""
    monkeypatch.setattr(lerobot_format, "DATA_FILE_MB", 0.003)
    root = write(tmp_path / "dataset", episodes)
    assert len(list(root.glob("data/*/*"))) > 3
    return root


def test_rows_of_every_episode_are_found_in_any_order_and_by_any_thread(many_files, episodes):
    dataset = open_dataset(many_files)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(11), 5))
    with ThreadPoolExecutor(4) as executor:
        tables = list(executor.map(dataset.read_rows, order))
    for index, table in zip(order, tables, strict=True):
        assert set(table["episode_index"].to_pylist()) == {index}
        assert np.array_equal(np.stack(table["action"].to_numpy()), episodes[index].action)


def test_a_footer_is_parsed_once_and_rows_are_read_once(dataset, monkeypatch):
    calls: Counter[str] = Counter()

    def count(module: Any, name: str) -> None:
        original = getattr(module, name)

        def counted(*arguments: Any) -> Any:
            calls[name] += 1
            return original(*arguments)

        monkeypatch.setattr(module, name, counted)

    count(video_dataset, "_read_row_group")
    count(video_dataset.pq, "read_metadata")
    opened = open_dataset(dataset)
    for index in range(11):
        load_episode(opened, index)
    assert calls == {"_read_row_group": 11, "read_metadata": 1}


def test_the_place_of_an_episode_is_known_without_a_search():
    """The last of many episodes takes no more than the first; a walk back through the file took 0.2 s."""
    paths = []

    class Watched(video_dataset.VideoDataset):
        def data_path(self, index: int) -> Path:
            paths.append(index)
            return Path(f"{index // 5000}")

    dataset = Watched(Path(), None, [{}] * 6000, [{}] * 6000, {})  # pyright: ignore[reportArgumentType]
    assert [dataset.row_group(index) for index in (5999, 4999, 5000, 0)] == [999, 4999, 0, 0]
    paths.clear()
    assert dataset.row_group(5998) == 998 and len(paths) == 1
