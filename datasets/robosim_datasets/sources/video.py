"""Plain video files: every file is an episode with one camera, and there are neither commands nor states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robosim.errors import DatasetError
from robosim_datasets.sources import video_frames
from robosim_datasets.sources.cut_files import missing_end
from robosim_datasets.sources.hdf5_episodes import counting_order
from robosim_datasets.sources.opening import one_by_one
from robosim_datasets.sources.pictures import ERRORS, open_picture
from robosim_datasets.sources.source import SourceEpisode, SourceInfo

CAMERA = "video"
VIDEOS = (".mp4", ".webm", ".mkv", ".mov", ".avi")
ANIMATIONS = (".gif", ".webp")
SUFFIXES = VIDEOS + ANIMATIONS
FORMATS = ("GIF", "WEBP")
"""Pillow's names of animations."""

GIF_PERIOD = 0.1
"""Seconds that players show a frame whose duration is written as zero."""


@dataclass
class _File:
    """One video file, and what its header says."""

    path: Path
    height: int = 0
    width: int = 0
    fps: float = 0.0
    times: np.ndarray | None = None
    """float64 [T], seconds from the first frame on: files have rates of their own, telephones' aren't even"""
    start: float | None = None
    """Seconds of the first frame in the file, by which frames are found; None: they can only be counted"""
    fault: str = ""
    instruction: str = ""


class VideoSource:
    """Opened video files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files = [_inspect(path) for path in one_by_one(video_files(root))]
        good = [file for file in self._files if not file.fault]
        if not good:
            reason = self._files[0].fault if self._files else f"no file ends in {', '.join(SUFFIXES)}"
            raise DatasetError(f"{root} has no video that can be read ({reason})")
        rates = Counter(round(file.fps, 3) for file in good)
        sizes = Counter((file.height, file.width) for file in good)
        self.info = SourceInfo(
            layout="video files",
            name=root.stem,
            cameras={CAMERA: sizes.most_common(1)[0][0]},
            fps=rates.most_common(1)[0][0],
            state_names=(),
            action_names=(),
            action_kind="none",
            robot="unknown",
            episodes=len(self._files),
            frames=sum(len(file.times) for file in good if file.times is not None),
            instructions=tuple(dict.fromkeys(file.instruction for file in good if file.instruction)),
            splits={},
            notes=tuple(_notes(rates, sizes)),
            bytes=sum(file.path.stat().st_size for file in self._files),
        )

    def read(self, episode: int) -> SourceEpisode:
        file, times = self._file(episode)
        empty = np.zeros((len(times), 0), np.float32)
        metadata: dict[str, Any] = {"file": file.path.name, "fps": file.fps}
        if self.root.is_dir() and file.path.parent != self.root:
            metadata["folder"] = file.path.parent.relative_to(self.root).as_posix()
        return SourceEpisode(
            length=len(times),
            state=empty,
            action=empty.copy(),
            instruction=file.instruction,
            timestamps=times.copy(),
            metadata=metadata,
        )

    def frames(self, episode: int, camera: str, chosen: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
        file, times = self._file(episode)
        if camera != CAMERA:
            raise DatasetError(f"{self.root} has no camera {camera!r}; it has {CAMERA}")
        numbers = [int(number) for number in chosen]
        if any(not 0 <= number < len(times) for number in numbers):
            raise DatasetError(
                f"{self._where(episode)} has {len(times)} frames, not those that are asked for"
            )
        try:
            yield from _decode(file, times, numbers)
        except (DatasetError, *ERRORS) as error:
            raise DatasetError(
                f"{self._where(episode)} can't be decoded ({error}); restore it or leave it out"
            ) from error

    def _file(self, episode: int) -> tuple[_File, np.ndarray]:
        """A file that is sound, and its times. Raises `DatasetError` for others."""
        if not 0 <= episode < len(self._files):
            raise DatasetError(
                f"{self.root} has no episode {episode}; it has {len(self._files)}, counted from 0"
            )
        file = self._files[episode]
        if file.fault or file.times is None:
            raise DatasetError(f"{self._where(episode)} is damaged: {file.fault}; restore it or leave it out")
        return file, file.times

    def _where(self, episode: int) -> str:
        return f"{self._files[episode].path}: episode {episode}"


def open_video(path: Path) -> VideoSource:
    """Open one video file, or all below a folder. Raises `DatasetError` when none can be read."""
    return VideoSource(Path(path))


def looks_like_video(path: Path) -> bool:
    """Whether there is a video file at `path` or below it."""
    try:
        return bool(video_files(path))
    except OSError:
        return False


def video_files(path: Path) -> list[Path]:
    """`path` itself or the video files below it, `take_2` before `take_10`."""
    if path.is_file():
        return [path] if path.suffix.lower() in SUFFIXES else []
    files = [file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()]
    return sorted(files, key=lambda file: counting_order(file.relative_to(path).as_posix()))


def _inspect(path: Path) -> _File:
    """Size, times and sentence of a file, or what is wrong with it."""
    file = _File(path)
    try:
        file.fault = missing_end(path)
        if not file.fault and path.suffix.lower() in ANIMATIONS:
            _inspect_animation(file)
        elif not file.fault:
            facts = video_frames.probe(path)
            file.height, file.width, file.fps = facts.height, facts.width, facts.fps
            shown = video_frames.frame_times(path)
            if shown is None or len(shown) != facts.frames:
                file.times = np.arange(facts.frames) / facts.fps
            else:
                file.times, file.start = shown - shown[0], float(shown[0])
        if not file.fault and (file.times is None or len(file.times) < 2):
            file.fault = "it has a single frame"
    except (DatasetError, *ERRORS) as error:
        file.fault = " ".join(str(error).split()) or type(error).__name__
    file.instruction = _sentence(path.with_suffix(".txt"))
    return file


def _sentence(path: Path) -> str:
    """The text beside a video on one line; "" if there is none. Letters in another encoding than UTF-8 are lost."""
    try:
        return " ".join(path.read_text("utf-8-sig", errors="replace").split()) if path.is_file() else ""
    except OSError:
        return ""


def _decode(file: _File, times: np.ndarray, numbers: list[int]) -> Iterator[np.ndarray]:
    if file.path.suffix.lower() in ANIMATIONS:
        return _animation_frames(file.path, numbers)
    if file.start is None:
        return video_frames.decode_numbers(file.path, numbers)
    half_a_step = float(np.diff(times).min()) / 2
    return video_frames.decode_times(
        file.path, file.start + times[numbers], min(video_frames.SLACK, half_a_step)
    )


def _inspect_animation(file: _File) -> None:
    """Size and times of an animated GIF or WebP, whose frames have durations of their own."""
    with open_picture(file.path, FORMATS) as picture:
        file.height, file.width = picture.height, picture.width
        durations = []
        for number in range(getattr(picture, "n_frames", 1)):
            picture.seek(number)
            picture.load()  # WebP tells a frame's duration only then
            durations.append(picture.info.get("duration", 0) / 1000 or GIF_PERIOD)
    file.times = np.cumsum([0.0, *durations[:-1]])
    file.fps = round(1 / float(np.median(durations)), 3)


def _animation_frames(path: Path, numbers: Sequence[int]) -> Iterator[np.ndarray]:
    with open_picture(path, FORMATS) as picture:
        for number in numbers:
            picture.seek(number)
            yield np.asarray(picture.convert("RGB"))


def _notes(rates: Counter[float], sizes: Counter[tuple[int, int]]) -> Iterator[str]:
    yield "there are no commands and no states: a world model can be trained on it, an adapter can't"
    if len(rates) > 1:
        listed = ", ".join(f"{count} at {rate:g}" for rate, count in rates.most_common())
        yield f"the files run at different rates in frames/s ({listed}); each is resampled from its own"
    if len(sizes) > 1:
        listed = ", ".join(f"{count} of {width}×{height}" for (height, width), count in sizes.most_common())
        yield f"the files have pictures of different sizes ({listed})"
