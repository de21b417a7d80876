"""Import, export, stock LeRobot, and import again: nothing is lost but what the video encoder takes."""

from __future__ import annotations

import numpy as np
import pytest
from robosim_datasets.importing.config import ImportConfig
from robosim_datasets.importing.import_dataset import import_dataset
from robosim_datasets.lerobot_io import open_dataset, read_episode

from robosim.bench.layouts import make_recording, write_rlds, write_robomimic
from robosim.cli import main

ENCODER_PSNR = 38.0
"""dB that one encoding of these pictures keeps, at least."""


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.fixture(scope="module", params=["rlds", "robomimic"])
def trip(request, tmp_path_factory):
    """(what was recorded, the import, the export, the import of the export)."""
    folder = tmp_path_factory.mktemp(request.param)
    recording = make_recording(episodes=4, length=14, size=(32, 32), fps=10)
    if request.param == "rlds":
        write_rlds(folder / "source", recording)
    else:
        write_robomimic(folder / "source" / "demos.hdf5", recording)
    config = ImportConfig(str(folder / "source"), size=32, source_fps=10.0)
    import_dataset(config, folder / "first" / "dataset")
    assert main(["export", str(folder / "first"), f"out={folder / 'exported'}"]) == 0
    import_dataset(ImportConfig(str(folder / "exported"), size=32), folder / "second")
    return recording, folder / "first" / "dataset", folder / "exported", folder / "second"


def test_actions_states_and_language_come_through_exactly(trip):
    recording, first, _, second = trip
    rows = open_dataset(first).episodes
    assert {row["split"] for row in rows} == {"train", "val"}
    for index, row in enumerate(rows):
        true = recording.episodes[row["source"]["episode"]]
        for root in (first, second):
            episode = read_episode(root, index)
            assert np.array_equal(episode.action, true.action[:, : episode.action.shape[1]])
            assert episode.instruction == true.instruction and episode.split == row["split"]
        again = read_episode(second, index)
        assert np.array_equal(again.state, read_episode(first, index).state)
    assert open_dataset(first).spec == open_dataset(second).spec


def test_stock_lerobot_reads_what_was_recorded(trip):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    recording, first, exported, _ = trip
    dataset = LeRobotDataset("robosim/trip", root=exported, video_backend="pyav", return_uint8=True)
    rows, start = open_dataset(first).episodes, 0
    for row in rows:
        true = recording.episodes[row["source"]["episode"]]
        for number in (0, true.length // 2, true.length - 1):
            item = dataset[start + number]
            action = item["action"].numpy()
            assert np.array_equal(action, true.action[number, : len(action)])
            assert item["task"] == true.instruction
            for camera, frames in true.frames.items():
                seen = item[f"observation.images.{camera}"].numpy().transpose(1, 2, 0)
                assert psnr(seen, frames[number]) > ENCODER_PSNR - 3  # one frame, not the mean
        start += true.length
    assert start == len(dataset)


def test_video_loses_what_the_encoder_takes_and_no_more(trip):
    recording, first, exported, second = trip
    for index, row in enumerate(open_dataset(first).episodes):
        true = recording.episodes[row["source"]["episode"]]
        once, copied, twice = (read_episode(root, index).frames for root in (first, exported, second))
        for camera, frames in true.frames.items():
            assert psnr(once[camera], frames) > ENCODER_PSNR
            assert np.array_equal(copied[camera], once[camera])
            assert psnr(twice[camera], once[camera]) > ENCODER_PSNR
            shifted = psnr(once[camera][1:], frames[:-1])
            assert shifted < ENCODER_PSNR - 6, "the pictures move too little to tell frames apart"
