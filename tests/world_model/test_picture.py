"""Pictures from outside: any size, any mode, and what is no picture."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from robosim.world_model.picture import FORMATS, PictureError, read_picture

RED, BLUE = (220, 30, 20), (20, 40, 210)


def halves(width: int, height: int) -> Image.Image:
    """Red on the left, blue on the right."""
    pixels = np.full((height, width, 3), RED, np.uint8)
    pixels[:, width // 2 :] = BLUE
    return Image.fromarray(pixels)


def file_of(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def near(pixel: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() < 12)


@pytest.mark.parametrize("width, height", [(300, 100), (100, 300), (64, 64), (9, 5), (1, 1)])
def test_the_middle_square_of_any_size(width: int, height: int):
    frame = read_picture(file_of(halves(width, height)), 32)
    assert frame.shape == (32, 32, 3) and frame.dtype == np.uint8
    if width > 1:
        assert near(frame[16, 2], RED) and near(frame[16, -3], BLUE)


def test_what_lies_outside_the_middle_square_is_cut_away():
    pixels = np.full((60, 180, 3), 255, np.uint8)
    pixels[:, 60:120] = RED
    assert near(read_picture(pixels, 16), RED)


def test_resizing_averages_instead_of_picking():
    board = np.indices((256, 256)).sum(0) % 2 * 255
    frame = read_picture(board.astype(np.uint8), 16)
    assert np.abs(frame.astype(int) - 128).max() < 8


def test_a_turned_photo_is_turned_back():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the picture's top is the file's left
    frame = read_picture(file_of(halves(80, 80), "JPEG", exif=exif, quality=95), 16)
    assert near(frame[2, 8], RED) and near(frame[-3, 8], BLUE)


def test_transparency_becomes_white():
    drawn = np.zeros((40, 40, 4), np.uint8)
    drawn[10:30, 10:30] = (*RED, 255)
    for source in (drawn, file_of(Image.fromarray(drawn)), Image.fromarray(drawn)):
        frame = read_picture(source, 40)
        assert near(frame[2, 2], (255, 255, 255)) and near(frame[20, 20], RED)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr", "I;16"])
def test_every_mode_comes_out_as_grey_that_is_grey(mode: str):
    grey = Image.fromarray(np.full((20, 20), 200, np.uint8))
    if mode == "I;16":
        grey = Image.fromarray(np.full((20, 20), 200 * 257, np.uint16))
    elif mode == "1":
        grey = grey.point(lambda value: 255).convert("1")
    else:
        grey = grey.convert("RGB").convert(mode) if mode in ("CMYK", "YCbCr", "P") else grey.convert(mode)
    frame = read_picture(grey, 8)
    assert near(frame, (255,) * 3 if mode == "1" else (200,) * 3)


def test_of_an_animation_the_first_picture_counts():
    data = file_of(halves(20, 20), "GIF", save_all=True, append_images=[Image.new("RGB", (20, 20), "white")])
    assert near(read_picture(data, 8)[4, 1], RED)


def test_paths_arrays_and_pil_images_give_the_same(tmp_path):
    image = halves(50, 40)
    image.save(tmp_path / "photo.png")
    wanted = read_picture(file_of(image), 32)
    for source in (tmp_path / "photo.png", str(tmp_path / "photo.png"), image, np.asarray(image)):
        assert np.array_equal(read_picture(source, 32), wanted)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_promised_format_is_read(kind: str):
    frame = read_picture(file_of(halves(60, 60), kind), 16)
    assert near(frame[8, 2], RED) and near(frame[8, -3], BLUE)


def test_a_twenty_megapixel_photo():
    rng = np.random.default_rng(0).integers(0, 255, (36, 54, 3), dtype=np.uint8)
    photo = Image.fromarray(rng).resize((5472, 3648))
    small = read_picture(Image.fromarray(rng), 32)
    for kind in ("JPEG", "PNG"):
        options = {"compress_level": 1} if kind == "PNG" else {"quality": 92}
        frame = read_picture(file_of(photo, kind, **options), 32)
        assert np.abs(frame.astype(int) - small).mean() < 12


def bomb(width: int, height: int) -> bytes:
    """A PNG file of a few bytes that claims to be huge."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


@pytest.mark.parametrize(
    "data, words",
    [
        (b"", r"drop\.png is empty"),
        (b"dear diary, " * 50, r"drop\.png isn't a picture that can be read; use a PNG, JPEG"),
        # Pillow would start Ghostscript on it.
        (file_of(halves(99, 99), "EPS"), r"drop\.png isn't a picture that can be read"),
        (file_of(halves(99, 99))[:200], r"drop\.png is damaged or was cut off"),
        (b"\0\0\0\x18ftypheic" + bytes(100), r"drop\.png is a HEIC picture.*export it as JPEG"),
        (bomb(9000, 9000), "9000×9000 pixels, at most 60 million"),
        (bomb(60000, 60000), "far more pixels, at most 60 million"),
    ],
)
def test_what_is_no_picture_gets_a_sentence(data: bytes, words: str):
    with pytest.raises(PictureError, match=words):
        read_picture(data, 32, "drop.png")


def test_paths_and_arrays_that_dont_fit(tmp_path):
    with pytest.raises(PictureError, match=r"nothing\.png can't be opened"):
        read_picture(tmp_path / "nothing.png", 32)
    with pytest.raises(PictureError, match="can't be opened"):
        read_picture(tmp_path, 32)
    for array in (np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="a picture must be uint8"):
            read_picture(array, 32)
