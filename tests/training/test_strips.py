"""The picture that the dynamics leave: a row a version, a column a frame, nothing mixed up."""

from __future__ import annotations

import numpy as np
from PIL import Image

from robosim.training.strips import GAP, MARGIN, save_strips


def test_every_frame_stands_in_its_row_and_column(tmp_path):
    size, clips, frames = 16, 2, 5
    versions = [
        np.broadcast_to(
            (np.arange(clips * frames).reshape(clips, frames) * 8 + 80 * version)[..., None, None, None],
            (clips, frames, size, size, 3),
        ).astype(np.uint8)
        for version in range(3)
    ]
    save_strips(tmp_path / "strips.png", versions)
    sheet = np.asarray(Image.open(tmp_path / "strips.png"))
    block = 3 * (size + GAP) + 4 * GAP
    assert sheet.shape == (clips * block, MARGIN + frames * (size + GAP), 3)
    for version, pixels in enumerate(versions):
        for clip in range(clips):
            for frame in range(frames):
                row = clip * block + version * (size + GAP) + size // 2
                column = MARGIN + frame * (size + GAP) + size // 2
                assert (sheet[row, column] == pixels[clip, frame, 0, 0]).all()
