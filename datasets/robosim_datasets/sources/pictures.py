"""Single pictures in files' bytes: JPEG, PNG and whatever else Pillow reads."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

BLACK = 3
"""Largest value of a picture that counts as black: what JPEG makes of zeros."""

ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for bytes that aren't a whole picture."""


def picture_size(data: bytes) -> tuple[int, int]:
    """Height and width from a picture's header; nothing is decoded. Raises one of `ERRORS`."""
    with Image.open(io.BytesIO(data)) as picture:
        return picture.height, picture.width


def decode_picture(data: bytes) -> np.ndarray:
    """A picture as uint8 [H, W, 3]. Raises one of `ERRORS`, also where the data are cut off."""
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def is_black(picture: np.ndarray) -> bool:
    """Whether a picture shows nothing."""
    return int(picture.max(initial=0)) <= BLACK
