"""From a source's frame rate and picture size to ours.

Frames are chosen, never blended: a blended frame shows an arm in two places. Row t of the result is again
(observation t, action t), action t being what happens between the *chosen* frames t and t + 1.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from robosim.errors import DatasetError
from robosim.spec import ActionKind
from robosim_datasets.importing.config import Fit

STRETCH, PAUSE = 20, 60.0
"""How much longer than at its rate an episode may last by its time stamps: times, and seconds."""


def choose_rows(
    length: int, source_fps: float, fps: float, timestamps: np.ndarray | None = None
) -> np.ndarray:
    """Numbers of the source's frames that are nearest to the times 0, 1/fps, 2/fps …; int64, ascending.

    `timestamps` (float [length], seconds) count where the source has them, else frames lie 1/source_fps apart. Raises
    `DatasetError` for time stamps that can't be.
    """
    if length < 2:
        return np.arange(length)
    times = np.arange(length) / source_fps
    if timestamps is not None:
        _check_times(timestamps, times[-1])
        times = timestamps - timestamps[0]
    # Half a period of slack: a recording of exactly one second holds its frame at 1.0 s in spite of rounding.
    wanted = np.arange(int(np.floor(times[-1] * fps + 0.5 * min(1.0, fps / source_fps))) + 1) / fps
    after = np.searchsorted(times, wanted).clip(1, length - 1)
    nearest = np.where(wanted - times[after - 1] <= times[after] - wanted, after - 1, after)
    return np.unique(nearest)


def _check_times(timestamps: np.ndarray, seconds: float) -> None:
    """`seconds`: how long the episode would be at the source's rate."""
    steps = np.diff(timestamps)
    if not np.isfinite(timestamps).all() or steps.min() <= 0:
        raise DatasetError("its time stamps aren't finite, or don't rise; source_fps= reads it without them")
    if timestamps[-1] - timestamps[0] > STRETCH * seconds + PAUSE:
        raise DatasetError(
            f"its time stamps run over {timestamps[-1] - timestamps[0]:.3g} s, its frames are worth {seconds:.3g} s; "
            "source_fps= reads it without them"
        )


def resample_actions(
    action: np.ndarray, rows: np.ndarray, kind: ActionKind, names: tuple[str, ...], end: int | None = None
) -> np.ndarray:
    """Actions between the frames `rows`, float32 [len(rows), A], from those of every frame, [T, A].

    Motions (`ee_delta`) add up, to first order for rotations; targets and grippers count as they were last. The last
    row's action reaches to the row `end` where the recording goes on there; else it is its own, and nothing uses it.
    """
    ends = np.append(rows[1:], rows[-1] + 1 if end is None else end)
    result = action[ends - 1].astype(np.float32)
    if kind == "ee_delta":
        moves = [index for index, name in enumerate(names) if "gripper" not in name.lower()]
        result[:, moves] = np.add.reduceat(action[: ends[-1], moves], rows, axis=0)
    return result


def resample_outcomes(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """What was reached on arriving at each of `rows`, from what each action led to ([T], see `SourceEpisode`).

    Rewards add up and a success stays one. What the last action led to is counted for the last frame, as no later one
    shows it; frame 0 has nothing.
    """
    join = np.any if values.dtype == np.bool_ else np.sum
    ends = np.append(rows[1:-1], len(values))
    result = np.zeros(len(rows), values.dtype)
    result[1:] = [join(values[start:end]) for start, end in zip(rows[:-1], ends, strict=True)]
    return result


def fit_frame(frame: np.ndarray, size: int, fit: Fit) -> np.ndarray:
    """A frame uint8 [H, W, 3] as [size, size, 3]; one of that size already is untouched.

    crop: the largest square in the middle; pad: all of it between black bars; stretch: all of it, out of shape.
    """
    height, width = frame.shape[:2]
    if (height, width) == (size, size):
        return frame
    image = Image.fromarray(frame)
    if fit == "pad":
        scale = size / max(height, width)
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        canvas = Image.new("RGB", (size, size))
        corner = ((size - inner[0]) // 2, (size - inner[1]) // 2)
        canvas.paste(image.resize(inner, Image.Resampling.BILINEAR, reducing_gap=3.0), corner)
        return np.asarray(canvas)
    if fit == "crop":
        side = min(height, width)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0))
