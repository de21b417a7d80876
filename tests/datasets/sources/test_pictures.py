"""Single pictures: the kinds that recorders write, and nothing that could do harm."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from robosim_datasets.sources.pictures import ERRORS, FORMATS, decode_picture, picture_size

PIXELS = np.arange(12 * 16 * 3, dtype=np.uint8).reshape(12, 16, 3)


def saved(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind)
    return buffer.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """The header of a picture of any size, and hardly anything behind it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(bytes(99)), b"IEND")
    parts = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_kinds_that_recorders_write(kind: str):
    assert picture_size(saved(kind)) == (12, 16)
    assert decode_picture(saved(kind)).shape == (12, 16, 3)


@pytest.mark.parametrize("kind", ["EPS", "TIFF", "PPM", "ICO"])
def test_other_kinds_are_no_pictures(kind: str):
    for read in (picture_size, decode_picture):
        with pytest.raises(ERRORS, match="cannot identify"):
            read(saved(kind))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 20_000])
def test_pictures_that_would_fill_the_memory_are_refused(side: int):
    """Pillow itself only warns of the smaller one."""
    assert picture_size(png_of_size(4000, 3000)) == (3000, 4000)
    for read in (picture_size, decode_picture):
        with pytest.raises(ERRORS, match=r"pixels.* limit|exceeds limit"):
            read(png_of_size(side, side))
