"""How a rigid thing stands, from its pose [7] (position in metres, quaternion wxyz)."""

from __future__ import annotations

import numpy as np


def yaw_of(pose: np.ndarray) -> float:
    """The turn (rad, −π…π) about the vertical of a thing that stands upright."""
    w, x, y, z = pose[3:]
    return float(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))


def tilt_of(pose: np.ndarray) -> float:
    """The angle (rad, 0…π) between the thing's own vertical and the world's."""
    _, x, y, _ = pose[3:]
    return float(np.arccos(np.clip(1 - 2 * (x * x + y * y), -1.0, 1.0)))


def square_turn(yaw: float) -> float:
    """Of the four turns (rad) that a square thing can't tell from `yaw`, the one nearest to 0."""
    return float((yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4)
