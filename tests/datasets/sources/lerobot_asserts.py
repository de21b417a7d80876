"""Comparing a source with the demos that it holds, and changing what lies on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from robosim_datasets.sources.lerobot import LeRobotSource

from tests.datasets.sources.demos import CAMERAS, Demo, numbers_of


def assert_holds(source: LeRobotSource, demos: list[Demo], episodes: list[int] | None = None) -> None:
    """The demos' numbers exactly, and every frame the right one."""
    for episode in range(len(demos)) if episodes is None else episodes:
        demo, read = demos[episode], source.read(episode)
        assert read.length == demo.length and read.instruction == demo.instruction
        np.testing.assert_array_equal(read.state, demo.state)
        np.testing.assert_array_equal(read.action, demo.action)
        assert read.timestamps is not None and np.allclose(np.diff(read.timestamps), 1 / source.info.fps)
        for camera in CAMERAS:
            frames = list(source.frames(episode, camera, range(demo.length)))
            assert [numbers_of(pixels) for pixels in frames] == [(episode, n) for n in range(demo.length)]
            assert psnr(np.stack(frames), demo.frames[camera]) > 25


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(1e-9, np.mean((one.astype(float) - other) ** 2)))


def faults_of(source: LeRobotSource) -> list[str]:
    return [fault.sentence() for fault in source.info.faults]


def change_info(root: Path, **changes) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_features(root: Path, **changes) -> None:
    """`state`, `action`, `effort`: fields of their features that change."""
    keys = {"state": "observation.state", "effort": "observation.effort"}
    features = json.loads((root / "meta/info.json").read_text())["features"]
    for name, fields in changes.items():
        features[keys.get(name, name)] |= fields
    change_info(root, features=features)


def spoil(path: Path, damage: str) -> None:
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[: len(data) // 2] if damage == "cut" else bytes(reversed(data)))
