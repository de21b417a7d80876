"""Frames of any video file, one at a time: whatever codec, frame size and rate it has, with B-frames and sound.

A frame is found by its time stamp, never by counting packets, so that seeking to a key frame and decoding from the
beginning give the same picture. (In containers without times it is counted.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from robosim.errors import DatasetError

SLACK = 1e-3
"""Seconds by which a frame may come early and is still taken without a look at the next one."""

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
        frames = stream.frames if _is_counted(stream) else _count(container, stream)
        if not frames or not fps or not stream.width or not stream.height:
            raise DatasetError(f"{path} has a video stream without frames; restore the file or leave it out")
        return VideoFacts(stream.height, stream.width, fps, frames)


def decode_numbers(
    path: Path, numbers: Sequence[int] | np.ndarray, start: float = 0.0, fps: float | None = None
) -> Iterator[np.ndarray]:
    """The frames with the ascending `numbers`, one uint8 [H, W, 3] each, decoded as they are taken.

    Frame n is the one nearest to `start + n / fps` seconds after the beginning of the file's video, at most half a
    period away; with `fps` None it is the n-th that the file shows. A number may come more than once. Raises
    `DatasetError` naming the file when it is missing, can't be decoded or doesn't hold one of the frames.
    """
    numbers, done = [int(number) for number in numbers], 0
    # Where pictures lean on those before their key frame (open GOPs), only the beginning gives them all.
    for seek in (True, False) if fps else (False,):
        try:
            for pixels in _decode(Path(path), numbers[done:], start, fps, seek):
                yield pixels
                done += 1
            return
        except DatasetError:
            if not seek:
                raise


def _decode(
    path: Path, numbers: list[int], start: float, fps: float | None, seek: bool
) -> Iterator[np.ndarray]:
    """`decode_numbers` from the last key frame before the first number (`seek`) or from the beginning."""
    if not numbers:
        return
    with _opened(path) as (container, stream):
        if fps and not set(container.format.name.split(",")).isdisjoint(TIMED):
            times = [start + number / fps for number in numbers]
            frames = _timed(container, stream, times[0] if seek else None, path)
            found = _by_time(frames, times, 0.5 / fps, path)
        else:
            rate = float(stream.average_rate or 0) if fps else None
            counts = [round((start + n / fps) * rate) for n in numbers] if fps and rate else numbers
            found = _by_count(_decoded(container, stream, path), counts, path)
        to_pixels = _converter(stream, path)
        for frame in found:
            yield to_pixels(frame)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """A file's first video stream; FFmpeg's errors as `DatasetError`."""
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = next((stream for stream in container.streams.video if stream.codec_context), None)
            if stream is None:
                raise DatasetError(f"{path} holds no video that can be decoded; restore it or leave it out")
            stream.codec_context.thread_count = 1
            yield container, stream
    except (FFmpegError, OSError, ValueError, ArithmeticError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"{path} can't be decoded ({reason}); restore it or leave it out") from error


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


def _converter(stream: av.VideoStream, path: Path) -> Callable[[av.VideoFrame], np.ndarray]:
    """From decoded frames to uint8 [H, W, 3]; refuses changes of size."""
    size, reformatter = (stream.height, stream.width), VideoReformatter()

    def to_pixels(frame: av.VideoFrame) -> np.ndarray:
        if (frame.height, frame.width) != size:
            raise DatasetError(
                f"{path} changes from {size[1]}×{size[0]} to {frame.width}×{frame.height} pixels at "
                f"{frame.time} s; cut it there or leave it out"
            )
        return reformatter.reformat(frame, format="rgb24").to_ndarray()

    return to_pixels
