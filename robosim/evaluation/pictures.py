"""Frames as pictures inside a page: strips of true, predicted and error frames, and short animations."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

ERROR_GAIN = 2.0
"""Error frames show |predicted − true| times this, so that faint errors are visible too."""

GAP = 2
"""Pixels between the frames of a strip."""


def error_frames(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Absolute error uint8 [...,H,W,3], amplified by `ERROR_GAIN`; black where the prediction is exact."""
    difference = np.abs(predicted.astype(np.int16) - true.astype(np.int16))
    return np.minimum(difference * ERROR_GAIN, 255).astype(np.uint8)


def strip(rows: Sequence[np.ndarray], columns: Sequence[int]) -> np.ndarray:
    """Rows of frames [T,H,W,3] as one picture with an alpha channel, a column for each frame of `columns`."""
    height, width = rows[0].shape[1:3]
    picture = np.zeros(
        (len(rows) * (height + GAP) - GAP, len(columns) * (width + GAP) - GAP, 4), dtype=np.uint8
    )
    for i, frames in enumerate(rows):
        for j, column in enumerate(columns):
            top, left = i * (height + GAP), j * (width + GAP)
            picture[top : top + height, left : left + width, :3] = frames[column]
            picture[top : top + height, left : left + width, 3] = 255
    return picture


def side_by_side(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Videos [T,H,W,3] as one video [T,H,W',3] with a light gap between them."""
    time, height = rows[0].shape[:2]
    gap = np.full((time, height, GAP, 3), 128, dtype=np.uint8)
    parts = [part for row in rows for part in (row, gap)][:-1]
    return np.concatenate(parts, axis=2)


def png_uri(picture: np.ndarray) -> str:
    """A picture uint8 [H,W,3 or 4] as a `data:` address, lossless."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return _uri(buffer)


def animation_uri(frames: np.ndarray, fps: int, hold: float = 1.0) -> str:
    """A video uint8 [T,H,W,3] as an endless animated PNG; the last frame stays for `hold` seconds more."""
    pictures = [Image.fromarray(frame) for frame in frames]
    period = round(1000 / fps)
    durations = [period] * (len(pictures) - 1) + [period + round(1000 * hold)]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, format="PNG", save_all=True, append_images=pictures[1:], duration=durations, loop=0
    )
    return _uri(buffer)


def _uri(buffer: io.BytesIO) -> str:
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
