"""What one pass over an episode's frames shows: black pictures, pictures that stand still, and the video's hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from robosim_datasets.faults import Fault

BLACK_LEVEL = 24
"""Of 255: numbers of a pixel up to this count as black; a dark sensor's noise stays below."""

BLACK_SHARE = 0.001
"""A frame is black when at most this share of its numbers is above `BLACK_LEVEL`: hot pixels, but no object."""

SAME_LEVELS = 3
"""Of 255: two frames are the same picture when no number differs by more; an encoder's ripple, but no motion."""


@dataclass
class Watched:
    """What one camera showed in one episode."""

    frames: int = 0
    black: list[tuple[int, int]] = field(default_factory=list)
    """Runs of black frames, first and last."""
    still: list[tuple[int, int]] = field(default_factory=list)
    """Runs of at least two frames with the same picture, first and last."""
    digest: str = ""
    """SHA-256 of all frames."""
    odd: Fault | None = None
    """The first frame of another shape or type."""

    @property
    def all_black(self) -> bool:
        return self.black == [(0, self.frames - 1)]

    @property
    def all_still(self) -> bool:
        return self.frames > 1 and self.still == [(0, self.frames - 1)]


def watch(frames: Iterable[np.ndarray], camera: str, size: tuple[int, int], index: int) -> Watched:
    """Look at every frame once. `size` is (height, width), `index` the episode's number, for the fault."""
    seen, digest = Watched(), hashlib.sha256()
    # A frame is compared with the first of its run: a slow motion must not pass as none.
    start, first = 0, None
    for number, frame in enumerate(frames):
        seen.frames += 1
        if seen.odd is None and (frame.shape != (*size, 3) or frame.dtype != np.uint8):
            what = f"frame {number} is {frame.dtype} {frame.shape} and not uint8 {(*size, 3)}"
            kind = "shape" if frame.dtype == np.uint8 else "dtype"
            seen.odd = Fault(kind, f"camera {camera}", what, index)
        digest.update(np.ascontiguousarray(frame))
        if is_black(frame):
            _extend(seen.black, number)
        if first is None or not same_picture(first, frame):
            _add_run(seen.still, start, number - 1)
            start, first = number, frame
    _add_run(seen.still, start, seen.frames - 1)
    seen.digest = digest.hexdigest()
    return seen


def is_black(frame: np.ndarray) -> bool:
    """Whether a frame, uint8 [H, W, 3], shows nothing."""
    return np.count_nonzero(frame > BLACK_LEVEL) <= BLACK_SHARE * frame.size


def same_picture(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two frames, uint8 [H, W, 3], show the same but for an encoder's ripple."""
    if one.shape != other.shape:
        return False
    # The maximum less the minimum: uint8 can't hold a negative difference.
    return bool((np.maximum(one, other) - np.minimum(one, other)).max(initial=0) <= SAME_LEVELS)


def black_faults(seen: Watched, camera: str, index: int) -> Iterator[Fault]:
    if seen.all_black:
        yield Fault("black", f"camera {camera}", f"all {seen.frames} frames are black", index)
    elif seen.black:
        yield Fault("black", f"camera {camera}", f"black at {run_list(seen.black)}", index)


def run_list(runs: list[tuple[int, int]]) -> str:
    """Runs of frames as text, such as "frames 3, 7–9"."""
    shown = [f"{first}" if first == last else f"{first}–{last}" for first, last in runs[:5]]
    more = f" and {len(runs) - 5} more runs" if len(runs) > 5 else ""
    plural = "s" if len(runs) > 1 or runs[0][0] != runs[0][1] else ""
    return f"frame{plural} {', '.join(shown)}{more}"


def _extend(runs: list[tuple[int, int]], number: int) -> None:
    if runs and runs[-1][1] == number - 1:
        runs[-1] = (runs[-1][0], number)
    else:
        runs.append((number, number))


def _add_run(runs: list[tuple[int, int]], first: int, last: int) -> None:
    if last > first:
        runs.append((first, last))
