"""Folders of plain video: every file an episode, with its own times, sentence and faults."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import cast

import av
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


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_a_file_whose_length_was_never_written_is_read_as_far_as_it_goes(
    tmp_path: Path, recording: Recording, codec: str
):
    """Browsers record such files: whether they were cut can't be told, but what is there can be shown."""
    path, frames = tmp_path / "take.webm", recording.episodes[0].frames["front"]
    options = {"deadline": "realtime", "auto-alt-ref": "0", "crf": "4", "b": "4M"}
    with av.open(str(path), "w", options={"live": "1"}) as container:
        stream = cast(av.VideoStream, container.add_stream(codec, 10, options=options))
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    whole, lengths = path.read_bytes(), []
    assert b"\x18\x53\x80\x67\x01" + b"\xff" * 7 in whole
    for part in (1, 0.9, 0.75):
        path.write_bytes(whole[: int(part * len(whole))])
        source = open_video(path)
        read = source.read(0)
        lengths.append(read.length)
        assert read.timestamps is not None
        np.testing.assert_allclose(read.timestamps, np.arange(read.length) / 10, atol=2e-3)
        shown = np.stack(list(source.frames(0, "video", range(read.length)))).astype(float)
        errors = np.abs(shown[:, None] - frames[None]).mean(axis=(2, 3, 4))
        assert (errors.argmin(axis=1) == np.arange(read.length)).all()
    assert lengths[0] == 8 > lengths[2] > 2


def test_a_sentence_in_another_encoding_costs_its_odd_letters_alone(tmp_path: Path, recording: Recording):
    path = write_videos(tmp_path, recording)[1]
    path.with_suffix(".txt").write_bytes("drücke\n den Würfel".encode("latin-1"))
    source = open_video(tmp_path)
    assert source.read(1).instruction == "dr\ufffdcke den W\ufffdrfel"
    assert len(list(source.frames(1, "video", range(9)))) == 9


def test_a_film_from_a_telephone_held_upright(tmp_path: Path, recording: Recording):
    path = write_videos(tmp_path, recording)[0]
    lying = list(open_video(path).frames(0, "video", range(8)))
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    data[place : place + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    source = open_video(path)
    assert source.info.cameras == {"video": (48, 32)}
    np.testing.assert_array_equal(list(source.frames(0, "video", range(8))), [np.rot90(x, -1) for x in lying])


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


def test_pictures_of_other_kinds_are_not_even_looked_at(tmp_path: Path, recording: Recording):
    """Pillow would hand PostScript to another program, whatever the file's name."""
    still = Image.fromarray(recording.episodes[0].frames["front"][0])
    for kind in ("EPS", "PNG"):
        still.save(tmp_path / "still.gif", kind)
        with pytest.raises(DatasetError, match="cannot identify"):
            open_video(tmp_path)


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
