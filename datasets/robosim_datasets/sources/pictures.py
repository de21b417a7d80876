"""Single pictures in files' bytes: PNG, JPEG, WebP and BMP."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
"""What recorders write. Pillow would take dozens more: some start programs of their own, as EPS does."""

MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485
"""From here on Pillow warns of a decompression bomb; a recording has no such pictures."""

BLACK = 3
"""Largest value of a picture that counts as black: what JPEG makes of zeros."""

ERRORS = (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises for bytes that aren't a whole picture."""


def open_picture(source: Path | bytes, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """A picture whose header was read, nothing decoded; to be closed. Raises one of `ERRORS`.

    Also where the data are in a format that isn't one of Pillow's `formats`, or far too large.
    """
    picture = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats)
    if picture.width * picture.height > MAX_PIXELS:
        size = f"{picture.width}×{picture.height}"
        picture.close()
        raise ValueError(f"a picture of {size} pixels; {MAX_PIXELS} are the limit")
    return picture


def picture_size(data: bytes) -> tuple[int, int]:
    """Height and width from a picture's header; nothing is decoded. Raises one of `ERRORS`."""
    with open_picture(data) as picture:
        return picture.height, picture.width


def decode_picture(data: bytes) -> np.ndarray:
    """A picture as uint8 [H, W, 3]. Raises one of `ERRORS`, also where the data are cut off."""
    with open_picture(data) as picture:
        return np.asarray(picture.convert("RGB"))


def is_black(picture: np.ndarray) -> bool:
    """Whether a picture shows nothing."""
    return int(picture.max(initial=0)) <= BLACK
