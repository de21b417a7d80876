"""Any picture, a photo or a sketch, as a frame that the learned simulator can start from.

A picture is turned as its EXIF data say, laid on white where it is transparent, cut to its middle square and resized
with a Lanczos filter. Of an animation, the first picture counts.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from robosim.errors import RobosimError

MOST_PIXELS = 60_000_000
"""Larger pictures are refused before they are decoded: a small file can claim any size."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""What is decoded at all. Pillow knows dozens more, and hands some of them to other programs (EPS: Ghostscript)."""

Source = str | Path | bytes | np.ndarray | Image.Image


class PictureError(RobosimError):
    """A picture can't be read. The message is a whole sentence, for the person who chose it."""


def read_picture(source: Source, size: int, name: str = "the picture") -> np.ndarray:
    """A frame uint8 [size, size, 3] from a path, a file's bytes, a PIL image or an array.

    Arrays are uint8 [H, W], [H, W, 3] or [H, W, 4] (with transparency). `name` is what messages call bytes. Raises
    `PictureError` for a file that is missing, damaged, too large or no picture, `ValueError` for another array.
    """
    if isinstance(source, np.ndarray):
        return _to_frame(_from_array(source), size)
    if isinstance(source, Image.Image):
        return _to_frame(source, size)
    if not isinstance(source, bytes):
        path = Path(source).expanduser()
        name = str(path)
        try:
            source = path.read_bytes()
        except OSError as error:
            raise PictureError(f"{name} can't be opened ({error.strerror}); give a picture's path") from error
    return _decode(source, size, name)


def _decode(data: bytes, size: int, name: str) -> np.ndarray:
    if not data:
        raise PictureError(f"{name} is empty (0 bytes); choose another file")
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise PictureError(_too_large(name, f"{width}×{height} pixels"))
            # JPEG files are decoded at a fraction of their size, as far as the frame doesn't need more.
            image.draft("RGB", (4 * size, 4 * size))
            return _to_frame(image, size)
    except Image.DecompressionBombError as error:
        raise PictureError(_too_large(name, "far more pixels")) from error
    except Image.UnidentifiedImageError as error:
        raise PictureError(_unknown_format(data, name)) from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
    ) as error:  # what Pillow's decoders raise on damaged files
        raise PictureError(
            f"{name} is damaged or was cut off on its way ({error}); choose another file"
        ) from error


def _to_frame(image: Image.Image, size: int) -> np.ndarray:
    image = _opaque(ImageOps.exif_transpose(image))
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.array(square.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0))


def _opaque(image: Image.Image) -> Image.Image:
    """RGB, with white where the picture is transparent."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    drawn = image.convert("RGBA")
    white = Image.new("RGBA", drawn.size, "white")
    return Image.alpha_composite(white, drawn).convert("RGB")


def _from_array(array: np.ndarray) -> Image.Image:
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not fits or array.size == 0:
        raise ValueError(
            f"a picture must be uint8 [H, W], [H, W, 3] or [H, W, 4], got {array.dtype} {list(array.shape)}"
        )
    return Image.fromarray(array)


def _too_large(name: str, found: str) -> str:
    return (
        f"{name} has {found}, at most {MOST_PIXELS // 1_000_000} million can be read; make it smaller first"
    )


def _unknown_format(data: bytes, name: str) -> str:
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"):
        return f"{name} is a HEIC picture, which can't be read here; export it as JPEG or PNG"
    return f"{name} isn't a picture that can be read; use a PNG, JPEG, WebP, GIF, BMP or TIFF file"
