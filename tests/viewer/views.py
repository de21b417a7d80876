"""What the tests of play have in common: a picture to start from, and when two views are the same."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from robosim.viewer.play.session import View


def assert_same(left: View, right: View) -> None:
    for name in ("frame", "joints", "command"):
        assert np.array_equal(getattr(left, name), getattr(right, name)), name
    assert (left.twin is None) == (right.twin is None)
    assert left.twin is None or np.array_equal(left.twin, right.twin)
    assert left.step == right.step


def photo(colour: str = "teal", size: tuple[int, int] = (90, 60)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()
