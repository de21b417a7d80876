"""Held-out clips as one picture: what a stage leaves to be looked at."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from robosim.checkpoint import atomic_write_bytes

ROWS = ("true", "tokenizer", "dynamics")

MARGIN, GAP = 76, 2
"""Pixels at the left for the rows' names, and between frames."""


def save_strips(path: Path, versions: Sequence[np.ndarray]) -> None:
    """Write a PNG: for each of B clips a row a version, named as in `ROWS`; each version is uint8 [B, T, H, W, 3]."""
    clips, frames, height, width = versions[0].shape[:4]
    block = len(versions) * (height + GAP) + 4 * GAP
    sheet = Image.new("RGB", (MARGIN + frames * (width + GAP), clips * block), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for clip in range(clips):
        for row, (name, version) in enumerate(zip(ROWS, versions, strict=True)):
            top = clip * block + row * (height + GAP)
            draw.text((2 * GAP, top + height // 2 - 8), name, "black", font)
            for frame, picture in enumerate(version[clip]):
                sheet.paste(Image.fromarray(picture), (MARGIN + frame * (width + GAP), top))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    atomic_write_bytes(path, buffer.getvalue())
