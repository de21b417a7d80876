"""The world model learns from pixels only: with every label turned to garbage its weights are the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from robosim_datasets.clip_files import write_column
from robosim_datasets.clip_store import ClipStore, build_clip_store
from robosim_datasets.episode import Episode
from robosim_datasets.lerobot_io import DatasetWriter

from robosim.checkpoint import load_tensors
from robosim.spec import LABELS, EnvSpec, RobotSpec, TaskSpec
from robosim.training.loop import TrainConfig
from robosim.training.stages import (
    DynamicsTraining,
    LatentActionTraining,
    TokenizerTraining,
    train_dynamics,
    train_latent_action,
    train_tokenizer,
)
from robosim.world_model.dynamics import DynamicsConfig
from robosim.world_model.latent_action import LatentActionConfig
from robosim.world_model.st_transformer import STConfig
from robosim.world_model.tokenizer import TokenizerConfig

SIZE, FRAMES = 32, 12
ROBOT = RobotSpec("stick", ("a", "b"), ("rad", "rad"), (-3.0, -3.0), (3.0, 3.0))
SPEC = EnvSpec(ROBOT, (TaskSpec("reach", "Touch it.", 12, 0.04, "tool"),), size=SIZE)
FEW = TrainConfig(steps=3, batch=4)


def make_run(run: Path) -> ClipStore:
    with DatasetWriter(run / "dataset", SPEC, {}) as writer:
        for seed, split in enumerate(["train"] * 4 + ["val"] * 2):
            writer.add(episode(seed, split))
    return build_clip_store(run / "dataset", run / "clips", progress=False)


def episode(seed: int, split: str) -> Episode:
    rng = np.random.default_rng(seed)
    frames = np.full((FRAMES, SIZE, SIZE, 3), 90, np.uint8)
    for t in range(FRAMES):
        x = (seed * 3 + 2 * t) % (SIZE - 6)
        frames[t, 8:14, x : x + 6] = (230, 60, 40)
    return Episode(
        frames={"front": frames},
        state=rng.normal(size=(FRAMES, 2)).astype(np.float32),
        action=rng.normal(size=(FRAMES, 2)).astype(np.float32),
        environment_state=rng.normal(size=(FRAMES, 9)).astype(np.float32),
        reward=np.zeros(FRAMES, np.float32),
        success=np.zeros(FRAMES, bool),
        task="reach",
        instruction="Touch it.",
        behaviour="expert",
        split=split,
        seed=seed,
    )


def train_all(run: Path) -> dict[str, dict[str, torch.Tensor]]:
    train_tokenizer(TokenizerTraining(TokenizerConfig(channels=8), FEW), run, 0, "cpu")
    model = LatentActionConfig(channels=8, blocks=1)
    train_latent_action(LatentActionTraining(model, FEW), run, 0, "cpu")
    small = DynamicsConfig(STConfig(dim=16, heads=2, layers=1, window=4))
    config = DynamicsTraining(small, FEW, clip_length=6, context=2, horizon=6)
    train_dynamics(config, run, 0, "cpu")
    parts = ("tokenizer", "latent_action", "dynamics")
    return {part: load_tensors(run / part / "model.safetensors") for part in parts}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, dict[str, torch.Tensor]]:
    run = tmp_path_factory.mktemp("true")
    make_run(run)
    return train_all(run)


@pytest.mark.parametrize("garbage", ["nan", "noise"])
def test_garbage_labels_give_bit_identical_weights(tmp_path, trained, garbage):
    store = make_run(tmp_path)
    for name in LABELS:
        values = np.array(store.column(name))
        if garbage == "nan":
            values = np.full(values.shape, np.nan, np.float32)
        else:
            values = np.random.default_rng(1).normal(size=values.shape).astype(np.float32)
        write_column(store.path, name, values, {})
    again = train_all(tmp_path)
    for part, tensors in trained.items():
        assert tensors.keys() == again[part].keys()
        assert all(torch.equal(tensor, again[part][name]) for name, tensor in tensors.items()), part


def test_other_pixels_give_other_weights(tmp_path, trained, monkeypatch):
    """The comparison above would see a change: one changed pixel column suffices."""
    true_episode = episode

    def brighter(seed: int, split: str) -> Episode:
        made = true_episode(seed, split)
        made.frames["front"][:, :, 0] = 200
        return made

    monkeypatch.setitem(globals(), "episode", brighter)
    make_run(tmp_path)
    again = train_all(tmp_path)
    for part in trained:
        assert any(not torch.equal(tensor, again[part][name]) for name, tensor in trained[part].items()), part
