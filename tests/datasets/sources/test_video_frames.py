"""Frames by number from video files of any codec and container, sound or damaged."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from robosim_datasets.sources.video_frames import decode_numbers, decode_times, probe

from robosim.bench.lerobot_layouts import encode
from robosim.errors import DatasetError
from tests.datasets.sources.demos import numbers_of, show


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"x264-params": "open-gop=1:keyint=8:bframes=2:min-keyint=8:scenecut=0"}),
        ("a.mkv", "libx264", {}),
        ("a.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
        ("b.webm", "libvpx", {"deadline": "realtime", "auto-alt-ref": "1", "lag-in-frames": "8"}),
        ("a.avi", "mpeg4", {}),
    ],
)
@pytest.mark.parametrize("fps", [30, 24000 / 1001])
def test_any_video_file(tmp_path: Path, name: str, codec: str, options: dict, fps: float) -> None:
    frames = np.stack([show(4, number, (48, 64)) for number in range(32)])
    encode(frames, tmp_path / name, fps, codec, **options)
    facts = probe(tmp_path / name)
    assert (facts.height, facts.width, facts.frames) == (48, 64, 32)
    assert facts.fps == pytest.approx(fps, rel=1e-3)
    for chosen in (list(range(32)), [9, 9, 13], [31], [17, 18]):
        for rate in (None, fps):
            found = decode_numbers(tmp_path / name, chosen, fps=rate)
            assert [numbers_of(pixels)[1] for pixels in found] == chosen
    later = decode_numbers(tmp_path / name, [0, 5], start=12 / fps, fps=fps)
    assert [numbers_of(pixels)[1] for pixels in later] == [12, 17]
    with pytest.raises(DatasetError, match=name):
        list(decode_numbers(tmp_path / name, [31, 32], fps=fps))


def test_times_between_frames_take_the_nearest(tmp_path: Path) -> None:
    frames = np.stack([show(0, number, (48, 64)) for number in range(30)])
    encode(frames, tmp_path / "a.mp4", 30)
    found = decode_numbers(tmp_path / "a.mp4", range(10), start=0.4 / 30, fps=10)
    assert [numbers_of(pixels)[1] for pixels in found] == list(range(0, 30, 3))
    found = decode_numbers(tmp_path / "a.mp4", range(9), start=0.6 / 30, fps=10)
    assert [numbers_of(pixels)[1] for pixels in found] == list(range(1, 28, 3))


def test_frames_far_apart_are_found_without_those_between(tmp_path: Path) -> None:
    frames = np.stack([show(0, number % 32, (48, 64)) for number in range(160)])
    encode(frames, tmp_path / "a.mp4", 10, g="10")
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    middle = (data.index(b"mdat") + data.rindex(b"moov")) // 2
    data[middle - 400 : middle + 400] = bytes(800)  # whoever decodes this, fails
    (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(DatasetError, match=r"a\.mp4"):
        list(decode_numbers(tmp_path / "a.mp4", range(160), fps=10))
    found = decode_times(tmp_path / "a.mp4", [0.0, 0.0, 0.3, 15.1, 15.9], 1e-3)
    assert [numbers_of(pixels)[1] for pixels in found] == [0, 0, 3, 151 % 32, 159 % 32]


DISPLAYS = {
    (1, 0, 0, 1): lambda frame: frame,
    (0, 1, -1, 0): lambda frame: np.rot90(frame, -1),  # a telephone held upright: a quarter turn clockwise
    (-1, 0, 0, -1): lambda frame: np.rot90(frame, 2),
    (0, -1, 1, 0): lambda frame: np.rot90(frame),
    (-1, 0, 0, 1): lambda frame: frame[:, ::-1],  # a mirrored camera
    (0, 1, 1, 0): lambda frame: frame.transpose(1, 0, 2),
}


@pytest.mark.parametrize("display", DISPLAYS)
def test_pictures_are_turned_as_players_show_them(tmp_path: Path, display: tuple[int, int, int, int]) -> None:
    frames = np.stack([show(5, number, (48, 64)) for number in range(6)])
    encode(frames, tmp_path / "a.mp4", 30)
    stored = list(decode_numbers(tmp_path / "a.mp4", range(6)))
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    a, b, c, d = (value << 16 for value in display)
    place = data.index(b"tkhd") + 44  # the matrix of the track's header
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(data)
    facts = probe(tmp_path / "turned.mp4")
    for picture, was in zip(decode_numbers(tmp_path / "turned.mp4", range(6), fps=30), stored, strict=True):
        expected = DISPLAYS[display](was)
        assert (facts.height, facts.width) == picture.shape[:2]
        np.testing.assert_array_equal(picture, expected)


@pytest.mark.parametrize("chosen", [range(32), range(0, 32, 8)])
def test_pictures_that_lean_on_damage_are_refused(tmp_path: Path, chosen: range) -> None:
    frames = np.stack([show(0, number, (48, 64)) for number in range(32)])
    encode(frames, tmp_path / "whole.mp4", 30, g="32")
    data = (tmp_path / "whole.mp4").read_bytes()
    for place in np.linspace(data.index(b"mdat") + 900, data.rindex(b"moov") - 400, 20).astype(int):
        bad = bytearray(data)
        bad[place : place + 8] = bytes(byte ^ 0xFF for byte in bad[place : place + 8])
        (tmp_path / "bad.mp4").write_bytes(bad)
        with pytest.raises(DatasetError, match=r"bad\.mp4"):
            list(decode_numbers(tmp_path / "bad.mp4", chosen, fps=30))


def test_cut_files_are_named_unless_no_picture_is_lost(tmp_path: Path) -> None:
    frames = np.stack([show(0, number, (48, 64)) for number in range(30)])
    encode(frames, tmp_path / "whole.mp4", 30)
    data = (tmp_path / "whole.mp4").read_bytes()
    for place in np.linspace(0, data.rindex(b"stco"), 20).astype(int):
        (tmp_path / "cut.mp4").write_bytes(data[:place])
        with pytest.raises(DatasetError, match=r"cut\.mp4"):
            list(decode_numbers(tmp_path / "cut.mp4", range(30), fps=30))
    (tmp_path / "cut.mp4").write_bytes(data[:-4])
    assert len(list(decode_numbers(tmp_path / "cut.mp4", range(30), fps=30))) == 30


@pytest.mark.parametrize("content", [b"", b"no video at all", b"RIFF\0\0\0\0WEBPVP8X"])
def test_files_that_are_no_video(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.mp4"):
        probe(tmp_path / "a.mp4")
    with pytest.raises(DatasetError, match=r"a\.mp4"):
        list(decode_numbers(tmp_path / "a.mp4", [0]))
