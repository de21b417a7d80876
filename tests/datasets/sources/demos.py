"""Recordings whose every frame shows its number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robosim.bench.layouts import RecordedEpisode
from robosim.bench.lerobot_layouts import write_lerobot_v2

CAMERAS = {"front": (48, 64), "wrist": (32, 40)}
STATE_NAMES = ["shoulder.pos", "elbow.pos", "gripper.pos"]
LENGTHS = (20, 17, 31)


@dataclass(frozen=True)
class Demo(RecordedEpisode):
    """One episode, with a column that robosim doesn't know."""

    effort: np.ndarray


def make_demos(lengths: Sequence[int], cameras: dict[str, tuple[int, int]] = CAMERAS) -> list[Demo]:
    rng = np.random.default_rng(0)
    return [
        Demo(
            frames={
                name: np.stack([show(episode, number, size) for number in range(length)])
                for name, size in cameras.items()
            },
            state=rng.normal(size=(length, 3)).astype(np.float32),
            action=rng.normal(size=(length, 3)).astype(np.float32),
            effort=rng.normal(size=(length, 3)).astype(np.float32),
            instruction=("lift the block", "push the block")[episode % 2],
        )
        for episode, length in enumerate(lengths)
    ]


def show(episode: int, number: int, size: tuple[int, int]) -> np.ndarray:
    """A picture of eight fields, bright or dark: three for the episode, five for the frame's number."""
    code, (height, width) = episode << 5 | number, size
    fields = np.array([code >> bit & 1 for bit in range(8)]).reshape(2, 4)
    bright = np.kron(fields, np.ones((height // 2, width // 4)))[..., None]
    return np.where(bright, (230, 180, 60), (20, 40, 90)).astype(np.uint8)


def numbers_of(pixels: np.ndarray) -> tuple[int, int]:
    """The episode and frame number that a picture shows."""
    height, width = pixels.shape[:2]
    fields = pixels[height // 4 :: height // 2, width // 8 :: width // 4].mean(axis=-1) > 100
    code = sum(int(bit) << i for i, bit in enumerate(fields.reshape(-1)))
    return code >> 5, code & 31


def write_v2(root: Path, demos: Sequence[Demo], fps: float = 30, **options) -> Path:
    """The demos as LeRobot wrote them until 2025, two episodes a folder."""
    extra = {"observation.effort": [demo.effort for demo in demos]}
    return write_lerobot_v2(root, demos, fps, names=STATE_NAMES, extra=extra, chunk=2, held_out=1, **options)
