"""Small datasets of a bright square that moves over a still background."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from robosim_datasets.clip_store import ClipStore, build_clip_store
from robosim_datasets.episode import Episode
from robosim_datasets.lerobot_io import DatasetWriter

from robosim.spec import EnvSpec, RobotSpec, TaskSpec

SIZE = 32
JOINTS = ("shoulder", "elbow", "gripper")
LOWER, UPPER = (-3.0, -3.0, 0.0), (3.0, 3.0, 1.0)

MakeEpisode = Callable[..., Episode]


@pytest.fixture(scope="session")
def spec() -> EnvSpec:
    robot = RobotSpec("stick", JOINTS, ("rad", "rad", "fraction"), LOWER, UPPER)
    tasks = (
        TaskSpec("reach", "move to the marker", 30, 0.03, "tool"),
        TaskSpec("soft_push", "push the body onto the marker", 30, 0.04, "object"),
    )
    return EnvSpec(robot, tasks, cameras=("front", "side"), size=SIZE)


@pytest.fixture(scope="session")
def make_episode() -> MakeEpisode:
    def make(seed: int, length: int = 12, task: str = "reach", split: str = "train", **changes) -> Episode:
        rng = np.random.default_rng(seed)
        path = np.cumsum(rng.integers(-2, 3, size=(length, 2)), axis=0) + SIZE // 2
        frames = np.full((length, SIZE, SIZE, 3), 90, np.uint8)
        for frame, (row, column) in zip(frames, path.clip(0, SIZE - 6), strict=True):
            frame[row : row + 6, column : column + 6] = (230, 60, 40)
        reward = rng.normal(size=length).astype(np.float32)
        success = np.arange(length) >= length - 2
        reward[0] = success[0] = 0
        values = {
            "frames": {"front": frames, "side": frames[:, ::-1].copy()},
            "state": rng.normal(size=(length, len(JOINTS))).clip(LOWER, UPPER).astype(np.float32),
            "action": rng.normal(size=(length, len(JOINTS))).clip(LOWER, UPPER).astype(np.float32),
            "environment_state": rng.normal(size=(length, 9)).astype(np.float32),
            "reward": reward,
            "success": success,
            "task": task,
            "instruction": {"reach": "move to the marker"}.get(task, "push the body onto the marker"),
            "behaviour": ("expert", "explore")[seed % 2],
            "split": split,
            "seed": seed,
        }
        return Episode(**{**values, **changes})

    return make


@pytest.fixture(scope="session")
def episodes(make_episode: MakeEpisode) -> list[Episode]:
    """Eight train and three val episodes of 10 to 20 frames, tasks in turn."""
    return [
        make_episode(seed, 10 + seed, ("reach", "soft_push")[seed % 2], split="train" if seed < 8 else "val")
        for seed in range(11)
    ]


@pytest.fixture
def write(spec: EnvSpec) -> Callable[..., Path]:
    def write_dataset(root: Path, episodes: list[Episode], **options) -> Path:
        with DatasetWriter(root, spec, {"renderer": "squares"}, **options) as writer:
            for episode in episodes:
                writer.add(episode)
        return root

    return write_dataset


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, spec: EnvSpec, episodes: list[Episode]) -> Path:
    """A dataset that no test may change."""
    root = tmp_path_factory.mktemp("session") / "dataset"
    with DatasetWriter(root, spec, {"renderer": "squares"}) as writer:
        for episode in episodes:
            writer.add(episode)
    return root


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> ClipStore:
    """A clip store that no test may change."""
    return build_clip_store(dataset, tmp_path_factory.mktemp("session") / "clips", progress=False)
