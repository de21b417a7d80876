"""LeRobotDatasets of the same demos: by LeRobot's own writer, and in the layouts before it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.datasets.sources.demos import CAMERAS, LENGTHS, STATE_NAMES, Demo, make_demos, write_v2


@pytest.fixture(scope="session")
def demos() -> list[Demo]:
    return make_demos(LENGTHS)


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory, demos: list[Demo]) -> dict[str, Path]:
    """The demos by LeRobot's own writer, as "video" and as "image"."""
    from lerobot.configs.video import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    base = {"dtype": "float32", "shape": (3,), "names": STATE_NAMES}
    roots = {}
    for kind in ("video", "image"):
        roots[kind] = root = tmp_path_factory.mktemp("stock") / kind
        pictures = {
            f"observation.images.{name}": {
                "dtype": kind,
                "shape": (*size, 3),
                "names": ["height", "width", "channels"],
            }
            for name, size in CAMERAS.items()
        }
        outcome = {"next.reward": {**base, "shape": (1,), "names": None}}
        outcome["next.success"] = {"dtype": "bool", "shape": (1,), "names": None}
        features = {
            "observation.state": base,
            "action": base,
            "observation.effort": base,
            **outcome,
            **pictures,
        }
        encoder = RGBEncoderConfig(vcodec="h264", pix_fmt="yuv444p", crf=10, preset="veryfast", g=2)
        options = {"use_videos": True, "rgb_encoder": encoder} if kind == "video" else {"use_videos": False}
        dataset = LeRobotDataset.create(
            "test/numbers", 30, features, root=root, robot_type="so100", video_backend="pyav", **options
        )
        for demo in demos:
            for number in range(demo.length):
                dataset.add_frame(_stock_frame(demo, number))
            dataset.save_episode(parallel_encoding=False)
        dataset.finalize()
    return roots


def _stock_frame(demo: Demo, number: int) -> dict:
    return {
        **{f"observation.images.{name}": frames[number] for name, frames in demo.frames.items()},
        "observation.state": demo.state[number],
        "action": demo.action[number],
        "observation.effort": demo.effort[number],
        "next.reward": np.array([number / 8], np.float32),
        "next.success": np.array([number == demo.length - 1]),
        "task": demo.instruction,
    }


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory, demos: list[Demo]) -> dict[str, Path]:
    """The demos as v2.1 with videos, with pictures in the tables, and as v2.0 at 29.97 frames/s."""
    folder = tmp_path_factory.mktemp("old")
    return {
        "v2.1": write_v2(folder / "v21", demos),
        "v2.1 images": write_v2(folder / "images", demos, images=True),
        "v2.0": write_v2(folder / "v20", demos, version="v2.0", fps=30000 / 1001),
    }


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    """A dataset that a test may damage."""

    def copied(root: Path) -> Path:
        return Path(shutil.copytree(root, tmp_path / "copy"))

    return copied
