"""Folders of plain video: every file an episode, with its own times, sentence and faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from robosim_datasets.sources.video import looks_like_video, open_video

from robosim.bench.layouts import Recording, make_recording, write_videos
from robosim.errors import DatasetError

SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".gif", ".webp")


@pytest.fixture(scope="module")
def recording() -> Recording:
    return make_recording(3, 8, (32, 48), fps=10)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_recording_comes_back(tmp_path: Path, recording: Recording, suffix: str):
    write_videos(tmp_path, recording, suffix)
    source = open_video(tmp_path)
    info = source.info
    assert (info.episodes, info.frames, info.fps) == (3, recording.frames, 10)
    assert (info.action_kind, info.action_names, info.state_names) == ("none", (), ())
    assert info.cameras == {"video": (32, 48)}
    for number, recorded in enumerate(recording.episodes):
        read = source.read(number)
        assert (read.action.shape, read.state.shape) == ((recorded.length, 0), (recorded.length, 0))
        assert read.instruction == recorded.instruction
        assert read.timestamps is not None
        np.testing.assert_allclose(read.timestamps, np.arange(recorded.length) / 10, atol=2e-3)
        frames = np.stack(list(source.frames(number, "video", range(read.length)))).astype(float)
        # Every frame is its own and not its neighbour's.
        errors = np.abs(frames[:, None] - recorded.frames["front"][None]).mean(axis=(2, 3, 4))
        assert (errors.argmin(axis=1) == np.arange(read.length)).all()
        assert errors.diagonal().max() < (0 if suffix == ".webp" else 6) + 1e-9
    chosen = list(source.frames(0, "video", [2, 2, 7]))
    assert len(chosen) == 3 and np.array_equal(chosen[0], chosen[1]) and not np.array_equal(*chosen[1:])


def test_folders_are_searched_and_named(tmp_path: Path, recording: Recording):
    write_videos(tmp_path / "lab" / "monday", recording, ".mp4")
    write_videos(tmp_path, recording, ".webp")
    source = open_video(tmp_path)
    episodes = [source.read(i) for i in range(6)]
    assert [e.metadata.get("folder") for e in episodes] == ["lab/monday"] * 3 + [None] * 3
    assert open_video(tmp_path / "take_1.webp").read(0).length == 9


def test_different_rates_and_sizes_are_noted(tmp_path: Path, recording: Recording):
    write_videos(tmp_path / "a", recording)
    write_videos(tmp_path / "b", make_recording(1, 8, (16, 16), fps=25))
    source = open_video(tmp_path)
    assert (source.info.fps, source.info.cameras) == (10, {"video": (32, 48)})
    assert any("3 at 10, 1 at 25" in note for note in source.info.notes)
    assert any("1 of 16×16" in note for note in source.info.notes)
    times = source.read(3).timestamps
    assert times is not None and source.read(3).metadata["fps"] == 25
    np.testing.assert_allclose(np.diff(times), 0.04)


def test_frames_of_a_gif_last_as_long_as_it_says(tmp_path: Path, recording: Recording):
    first, *rest = (Image.fromarray(frame) for frame in recording.episodes[0].frames["front"][:4])
    first.save(tmp_path / "x.gif", save_all=True, append_images=rest, duration=[50, 200, 100, 100])
    times = open_video(tmp_path).read(0).timestamps
    np.testing.assert_allclose(times, [0, 0.05, 0.25, 0.35])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_cut_file_is_named_and_others_stay(tmp_path: Path, recording: Recording, suffix: str):
    path = write_videos(tmp_path, recording, suffix)[1]
    whole = path.read_bytes()
    for part in (0, 0.3, 0.6, 0.9, 1 - 1 / len(whole)):
        path.write_bytes(whole[: int(part * len(whole))])
        source = open_video(tmp_path)
        assert source.info.episodes == 3
        for attempt in (lambda: source.read(1), lambda: list(source.frames(1, "video", [0]))):  # noqa: B023
            with pytest.raises(DatasetError, match=rf"take_1\{suffix}: episode 1 is damaged"):
                attempt()
        assert len(list(source.frames(2, "video", range(10)))) == 10


def test_a_text_file_with_the_ending_of_a_video_is_named(tmp_path: Path, recording: Recording):
    write_videos(tmp_path, recording)
    (tmp_path / "take_1.mp4").write_text("no video")
    with pytest.raises(DatasetError, match=r"take_1\.mp4"):
        open_video(tmp_path).read(1)


def test_a_still_picture_is_no_video(tmp_path: Path, recording: Recording):
    Image.fromarray(recording.episodes[0].frames["front"][0]).save(tmp_path / "still.webp")
    with pytest.raises(DatasetError, match="a single frame"):
        open_video(tmp_path)


def test_frames_beyond_the_end_are_refused(tmp_path: Path, recording: Recording):
    write_videos(tmp_path, recording)
    with pytest.raises(DatasetError, match="has 8 frames"):
        list(open_video(tmp_path).frames(0, "video", [8]))


def test_it_is_known_by_its_files(tmp_path: Path, recording: Recording):
    (tmp_path / "notes.txt").write_text("none yet")
    assert not looks_like_video(tmp_path) and not looks_like_video(tmp_path / "notes.txt")
    paths = write_videos(tmp_path / "deep" / "down", recording)
    assert looks_like_video(tmp_path) and looks_like_video(paths[0])
