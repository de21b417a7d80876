"""Frames of any video file, one at a time: whatever codec, frame size and rate it has, with B-frames and sound.

A frame is found by its time stamp, never by counting packets, so that seeking to a key frame and decoding from the
beginning give the same picture. (In containers without times it is counted.) Sizes and pictures are as players show
them: telephones store how the picture is to be turned.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from robosim.errors import DatasetError

SLACK = 1e-3
"""Seconds by which a frame may come early and is still taken without a look at the next one."""

FAR = 5.0
"""Seconds to the next frame that is asked for from which on a key frame before it is looked for."""

TIMED = ("mp4", "matroska")
"""Containers that give every frame its time; of others the frames are counted."""

HIDDEN_PACKETS = ("vp8",)
"""Codecs with packets that show no frame: their frames can only be counted by decoding."""


@dataclass(frozen=True)
class VideoFacts:
    """What a video file's headers and packets say."""

    height: int
    width: int
    fps: float
    """Frames a second, the average."""
    frames: int


def probe(path: Path) -> VideoFacts:
    """Size, rate and number of frames. Raises `DatasetError` naming a file that is missing, damaged or no video."""
    with _opened(path) as (container, stream):
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        frames = stream.frames if _is_counted(stream) else None
        first = next(_decoded(container, stream, path), None)  # only frames say how they are turned
        if first is None or not fps or not first.width or not first.height:
            raise DatasetError(f"{path} has a video stream without frames; restore the file or leave it out")
        turned = _turn(first).transposed
        height, width = (first.width, first.height) if turned else (first.height, first.width)
    if frames is None:
        with _opened(path) as (container, stream):
            frames = _count(container, stream)
    return VideoFacts(height, width, fps, frames)


def frame_times(path: Path) -> np.ndarray | None:
    """Seconds from the beginning of the file's video at which each frame is shown, float64 [T]; nothing is decoded.

    None where the container has no times, or not every packet shows a frame of its own.
    """
    with _opened(path) as (container, stream):
        if not _is_timed(container) or stream.codec_context.name in HIDDEN_PACKETS:
            return None
        zero, unit = stream.start_time or 0, stream.time_base or Fraction(1)
        packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
        stamps = sorted(packet.pts for packet in packets if packet.pts is not None)
    if len(stamps) < len(packets) or len(set(stamps)) < len(stamps):
        return None
    return np.asarray([float((stamp - zero) * unit) for stamp in stamps], np.float64)


def decode_numbers(
    path: Path, numbers: Sequence[int] | np.ndarray, start: float = 0.0, fps: float | None = None
) -> Iterator[np.ndarray]:
    """The frames with the ascending `numbers`, one uint8 [H, W, 3] each, decoded as they are taken.

    Frame n is the one nearest to `start + n / fps` seconds after the beginning of the file's video, at most half a
    period away; with `fps` None it is the n-th that the file shows. A number may come more than once. Raises
    `DatasetError` naming the file when it is missing, can't be decoded or doesn't hold one of the frames.
    """
    numbers = [int(number) for number in numbers]
    if fps is None:
        yield from _counted(Path(path), numbers)
    else:
        yield from decode_times(path, [start + number / fps for number in numbers], 0.5 / fps)


def decode_times(path: Path, times: Sequence[float] | np.ndarray, tolerance: float) -> Iterator[np.ndarray]:
    """The frames nearest to the ascending `times`, in seconds after the beginning of the file's video.

    A frame may be `tolerance` seconds away. See `decode_numbers`.
    """
    wanted = np.asarray(times, np.float64)
    for part in np.split(wanted, np.flatnonzero(np.diff(wanted) > FAR) + 1):
        done = 0
        # Where pictures lean on those before their key frame (open GOPs), only the beginning gives them all.
        for seek in (True, False):
            try:
                for pixels in _decode(Path(path), part[done:].tolist(), tolerance, seek):
                    yield pixels
                    done += 1
                break
            except DatasetError:
                if not seek:
                    raise


def _decode(path: Path, times: list[float], tolerance: float, seek: bool) -> Iterator[np.ndarray]:
    """`decode_times` from the last key frame before the first time (`seek`) or from the beginning."""
    if not times:
        return
    with _opened(path) as (container, stream):
        if _is_timed(container):
            frames = _timed(container, stream, times[0] if seek else None, path)
            found = _by_time(frames, times, tolerance, path)
        else:
            rate = float(stream.average_rate or 0) or 0.5 / tolerance
            found = _by_count(_decoded(container, stream, path), [round(time * rate) for time in times], path)
        yield from map(_converter(stream, path), found)


def _counted(path: Path, numbers: list[int]) -> Iterator[np.ndarray]:
    """The frames with these numbers in the order in which they are shown."""
    if numbers:
        with _opened(path) as (container, stream):
            found = _by_count(_decoded(container, stream, path), numbers, path)
            yield from map(_converter(stream, path), found)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """A file's first video stream; FFmpeg's errors as `DatasetError`."""
    try:
        if not os.path.isfile(path):
            raise DatasetError(f"{path} is no file that can be read; restore it or leave it out")
        # An absolute path: FFmpeg takes what stands before a colon for a protocol.
        with av.open(str(path.absolute()), metadata_errors="replace") as container:
            stream = next((stream for stream in container.streams.video if stream.codec_context), None)
            if stream is None:
                raise DatasetError(f"{path} holds no video that can be decoded; restore it or leave it out")
            stream.codec_context.thread_count = 1
            yield container, stream
    except (FFmpegError, OSError, ValueError, ArithmeticError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"{path} can't be decoded ({reason}); restore it or leave it out") from error


def _is_timed(container: InputContainer) -> bool:
    return not set(container.format.name.split(",")).isdisjoint(TIMED)


def _is_counted(stream: av.VideoStream) -> bool:
    """Whether the header's number of frames agrees with its duration, so that an edit list hides none of them."""
    if not stream.frames or not stream.duration or not stream.average_rate:
        return False
    seconds = float(stream.duration * (stream.time_base or 0))
    return abs(seconds * float(stream.average_rate) - stream.frames) < 0.5


def _count(container: InputContainer, stream: av.VideoStream) -> int:
    """Frames that the file shows, by its packets where each of them shows one."""
    if stream.codec_context.name in HIDDEN_PACKETS:
        return sum(1 for _ in container.decode(stream))
    return sum(1 for packet in container.demux(stream) if packet.size and not packet.is_discard)


def _decoded(container: InputContainer, stream: av.VideoStream, path: Path) -> Iterator[av.VideoFrame]:
    """All frames from where the container stands. FFmpeg paints over what it can't decode; here it is refused."""
    for frame in container.decode(stream):
        if frame.is_corrupt:
            raise DatasetError(f"{path} is damaged at {frame.time} s; restore it or leave it out")
        yield frame


def _timed(
    container: InputContainer, stream: av.VideoStream, time: float | None, path: Path
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Frames with their seconds after the beginning, from a key frame at or before `time` if it is given."""
    zero, unit = stream.start_time or 0, stream.time_base or Fraction(1)
    if time is not None:
        container.seek(zero + max(0, int((time + SLACK) / unit)), stream=stream)
    for frame in _decoded(container, stream, path):
        if frame.pts is not None:
            yield float((frame.pts - zero) * unit), frame


def _by_time(
    frames: Iterator[tuple[float, av.VideoFrame]], times: Sequence[float], tolerance: float, path: Path
) -> Iterator[av.VideoFrame]:
    """The frame nearest to each of the ascending `times`."""
    before, after = None, next(frames, None)
    for time in times:
        while after is not None and after[0] < time - min(SLACK, tolerance):
            before, after = after, next(frames, None)
        near = [frame for frame in (before, after) if frame and abs(frame[0] - time) <= tolerance]
        if not near:
            end = "ends before" if after is None else "has no frame at"
            raise DatasetError(f"{path} {end} {time:.3f} s; restore it or leave it out")
        yield min(near, key=lambda frame: abs(frame[0] - time))[1]


def _by_count(
    frames: Iterator[av.VideoFrame], numbers: Sequence[int] | np.ndarray, path: Path
) -> Iterator[av.VideoFrame]:
    """The frames with the ascending `numbers`, counted from the beginning."""
    count, frame = 0, next(frames, None)
    for number in numbers:
        while frame is not None and count < number:
            count, frame = count + 1, next(frames, None)
        if frame is None:
            raise DatasetError(f"{path} ends before frame {int(number)}; restore it or leave it out")
        yield frame


class _Turn(NamedTuple):
    """How stored rows and columns become those that are shown: exchanged, then mirrored."""

    transposed: bool = False
    upside_down: bool = False
    mirrored: bool = False

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3], or [W, H, 3] where rows and columns are exchanged."""
        if not any(self):
            return pixels
        pixels = pixels.swapaxes(0, 1) if self.transposed else pixels
        pixels = pixels[::-1] if self.upside_down else pixels
        return np.ascontiguousarray(pixels[:, ::-1] if self.mirrored else pixels)


def _turn(frame: av.VideoFrame) -> _Turn:
    """From a frame's display matrix [3, 3]: (x, y) is shown at (a x + c y, b x + d y), in quarter turns."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return _Turn()
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return _Turn(False, d < 0, a < 0)
    return _Turn(True, b < 0, c < 0)


def _converter(stream: av.VideoStream, path: Path) -> Callable[[av.VideoFrame], np.ndarray]:
    """From decoded frames to uint8 [H, W, 3]; refuses changes of size."""
    size, reformatter = (stream.height, stream.width), VideoReformatter()

    def to_pixels(frame: av.VideoFrame) -> np.ndarray:
        if (frame.height, frame.width) != size:
            raise DatasetError(
                f"{path} changes from {size[1]}×{size[0]} to {frame.width}×{frame.height} pixels at "
                f"{frame.time} s; cut it there or leave it out"
            )
        return _turn(frame).apply(reformatter.reformat(frame, format="rgb24").to_ndarray())

    return to_pixels
