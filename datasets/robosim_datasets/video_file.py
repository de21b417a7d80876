"""Video files: encoding that keeps small coloured objects, and exact sequential decoding.

H.264 without chroma subsampling (4:4:4): at 64 px, 4:2:0 smears a small coloured object over its surroundings. A
key frame at least every second frame makes random access cheap, and B-frames are off so that frames leave in the
order in which they entered. The "ultrafast" preset gives larger files and, at the same rate factor, *better*
pictures and faster decoding than slower presets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import PictureType

from robosim.errors import DatasetError

PIXEL_FORMAT = "yuv444p"
CODEC_OPTIONS = {"crf": "10", "preset": "ultrafast", "g": "2", "bf": "0"}

READ_ERRORS = (FFmpegError, OSError, IndexError, ValueError, ArithmeticError, MemoryError)
"""What reading a damaged file raises: no stream, tags that aren't text, a rate of 0, a frame of a million pixels."""


class VideoFileWriter:
    """Encodes frames one after another into one MP4 file."""

    def __init__(self, path: Path, size: int, fps: int) -> None:
        self.path, self.fps = path, fps
        self.num_frames = 0
        self.num_bytes = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        with _os_errors():
            self._container = av.open(str(path), "w")
        # One encoder thread: at these sizes threads cost more than they give, and the bytes stay repeatable.
        # x264 would otherwise print its statistics whenever another library has switched logging on.
        options = {**CODEC_OPTIONS, "threads": "1", "x264-params": "log=-1"}
        self._stream = self._container.add_stream("libx264", fps, options=options)
        self._stream.width = self._stream.height = size
        self._stream.pix_fmt = PIXEL_FORMAT
        self._stream.time_base = Fraction(1, fps)

    def add(self, frames: np.ndarray) -> None:
        """Encode uint8 [T, H, W, 3]; the first of them becomes a key frame, so that an episode starts cleanly."""
        for position, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = self.num_frames, Fraction(1, self.fps)
            if position == 0:
                frame.pict_type = PictureType.I
            with _os_errors():
                self._mux(self._stream.encode(frame))
            self.num_frames += 1

    def close(self) -> None:
        """Write what the encoder still holds and the file's index."""
        with _os_errors():
            self._mux(self._stream.encode())
            self._container.close()

    def abort(self) -> None:
        """Let go of a file that nobody will read."""
        with suppress(OSError), _os_errors():
            self._container.close()

    def _mux(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            self.num_bytes += packet.size
            self._container.mux(packet)


def decode_frames(path: Path, size: int, first: int = 0) -> Iterator[np.ndarray]:
    """Yield the frames of a video file from number `first` on, each uint8 [size, size, 3].

    Raises `DatasetError` when the file is missing, damaged or of another frame size.
    """
    try:
        with av.open(str(path)) as container:
            stream = _video_stream(container)
            if (stream.width, stream.height) != (size, size):
                raise DatasetError(
                    f"{path} has frames of {stream.width}×{stream.height} pixels, but the dataset's spec says "
                    f"{size}×{size}; collect or import it again"
                )
            stream.codec_context.thread_count = 1
            step = ticks_per_frame(stream)
            if first:
                container.seek(first * step, stream=stream)
            for frame in container.decode(stream):
                if frame.pts is not None and frame.pts >= first * step:
                    yield frame.to_ndarray(format="rgb24")
    except READ_ERRORS as error:
        raise DatasetError(
            f"{path} can't be decoded ({error}); restore it or collect the dataset again"
        ) from error


def packet_hashes(path: Path, places: Sequence[tuple[int, int]]) -> list[str]:
    """SHA-256 of the encoded video of frames `first … first + count − 1`, for each ascending (first, count).

    Equal hashes mean equal pictures, because an episode's packets are decoded without those before them. Raises
    `DatasetError` when the file is missing or damaged as a whole.
    """
    digests = []
    try:
        with av.open(str(path)) as container:
            stream = _video_stream(container)
            context, ticks = stream.codec_context, ticks_per_frame(stream)
            head = f"{context.name} {context.pix_fmt} {stream.width} {stream.height} {stream.average_rate} "
            digests = [hashlib.sha256(head.encode() + (context.extradata or b"")) for _ in places]
            if places[0][0]:
                container.seek(places[0][0] * ticks, stream=stream)
            current = 0
            for packet in container.demux(stream):
                if packet.pts is None:
                    continue
                while current < len(places) and packet.pts >= sum(places[current]) * ticks:
                    current += 1
                if current == len(places):
                    break
                time = packet.pts - places[current][0] * ticks
                if time >= 0:
                    digests[current].update(f"{time} {packet.size} ".encode() + bytes(packet))
    except READ_ERRORS as error:
        raise DatasetError(
            f"{path} can't be read ({error}); restore it or collect the dataset again"
        ) from error
    return [digest.hexdigest() for digest in digests]


def video_rate(path: Path) -> float:
    """Frames a second that the file itself declares. Raises `DatasetError` when it can't be read."""
    try:
        container = av.open(str(path))
        try:
            return float(_video_stream(container).average_rate or 0)
        finally:
            container.close()
    except READ_ERRORS as error:
        raise DatasetError(
            f"{path} can't be opened ({error}); restore it or collect the dataset again"
        ) from error


@contextmanager
def _os_errors() -> Iterator[None]:
    """FFmpeg reports a full disk in its own class; callers wait for the operating system's."""
    try:
        yield
    except FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error


def _video_stream(container: InputContainer) -> av.VideoStream:
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise ValueError("its video has an unknown codec")
    return stream


def ticks_per_frame(stream: av.VideoStream) -> int:
    if not stream.average_rate or not stream.time_base:
        raise DatasetError(f"a video stream declares no frame rate: {stream}")
    return round(1 / (stream.average_rate * stream.time_base))
