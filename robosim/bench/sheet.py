"""A contact sheet: a row a task × arm, a column a moment of the expert's episode."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from robosim.checkpoint import atomic_write_bytes

MOMENTS = ("start", "1/4", "1/2", "3/4", "end")
GAP = 4
MARGIN = 150
"""Pixels at the left for the rows' names."""

HEAD = 22
INK, PAPER = (30, 30, 30), (255, 255, 255)


def contact_sheet(rows: Sequence[tuple[str, np.ndarray]]) -> Image.Image:
    """Rows of (name, pictures uint8 [5,S,S,3]) as one labelled picture."""
    side = rows[0][1].shape[1]
    width, height = MARGIN + len(MOMENTS) * (side + GAP), HEAD + len(rows) * (side + GAP)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, moment in enumerate(MOMENTS):
        draw.text((MARGIN + column * (side + GAP), 3), moment, INK, font)
    for number, (name, pictures) in enumerate(rows):
        top = HEAD + number * (side + GAP)
        draw.text((GAP, top + side // 2 - 8), name, INK, font)
        for column, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (MARGIN + column * (side + GAP), top))
    return sheet


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write the sheet as PNG. Raises `OutputError` where that fails."""
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    atomic_write_bytes(path, buffer.getvalue())
