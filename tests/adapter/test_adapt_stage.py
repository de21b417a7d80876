"""The stage: it keeps to its label budget and writes what the learned simulator loads."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from robosim_datasets.clip_store import ClipStore, build_clip_store
from robosim_datasets.episode import Episode
from robosim_datasets.lerobot_io import DatasetWriter
from robosim_datasets.splits import label_budget

from robosim.adapter import (
    ActionAdapter,
    AdapterBundle,
    FitConfig,
    LabelledEpisodes,
    load_adapter,
    save_adapter,
)
from robosim.checkpoint import load_tensors, save_tensors
from robosim.config import build
from robosim.errors import ConfigError
from robosim.training import adapt as stage

LABELS = 150
CONFIG = stage.AdaptConfig(labels=LABELS, video_frames=60, fit=FitConfig(colours=16))


def episodes_of(drawn: LabelledEpisodes, spec, split: str) -> list[Episode]:
    return [
        Episode(
            frames={"front": frames},
            state=joints,
            action=commands,
            environment_state=points,
            reward=np.zeros(len(frames), np.float32),
            success=np.zeros(len(frames), bool),
            task=task,
            instruction=spec.task(task).instruction,
            behaviour="expert",
            split=split,
            seed=index,
        )
        for index, (frames, joints, commands, points, task) in enumerate(
            zip(drawn.frames, drawn.joints, drawn.commands, drawn.points, drawn.tasks, strict=True)
        )
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, make_episodes, spec) -> Path:
    """A run folder with clips, tokens (here: the number of the frame) and latent actions."""
    run = tmp_path_factory.mktemp("adapt")
    parts = {"train": make_episodes(14), "val": make_episodes(4, seed=100)}
    with DatasetWriter(run / "dataset", spec, {"renderer": "drawn"}) as writer:
        for split, drawn in parts.items():
            for episode in episodes_of(drawn, spec, split):
                writer.add(episode)
    store = build_clip_store(run / "dataset", run / "clips", progress=False)
    store.add_column("tokens", np.arange(store.num_frames, dtype=np.int16)[:, None], {"made": "drawn"})
    latents = [np.pad(latent, ((0, 1), (0, 0))) for drawn in parts.values() for latent in drawn.latents]
    store.add_column("latent_action", np.concatenate(latents), {"made": "drawn"})
    return run


@pytest.fixture(autouse=True)
def tokenizer(run: Path, blurred, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decodes the number of a frame to that frame, blurred."""
    store = ClipStore(run / "clips")
    frames = np.concatenate([store.frames(episode) for episode in range(len(store.episodes))])

    class Blur(torch.nn.Module):
        def decode(self, tokens: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(blurred(frames[tokens[:, 0].numpy()])).float() / 255

    monkeypatch.setattr(stage, "load_tokenizer", lambda folder: Blur())


def test_figures_and_files(run: Path, spec):
    figures = stage.adapt(CONFIG, run, seed=0)
    assert 100 < figures["labels"] <= LABELS
    assert figures["labels"] == 15 * figures["episodes"]
    assert figures["command_mae_rad"] < 0.3 * figures["shuffled_command_mae_rad"]
    assert figures["tool_mae_m"] < 0.015
    assert figures["probe_error_m"] < 0.03
    numbers = [value for value in figures.values() if isinstance(value, float)]
    assert all(map(math.isfinite, numbers))
    bundle = load_adapter(run / "adapter")
    assert bundle.judge.tasks == tuple(task.name for task in spec.tasks)


def test_no_other_training_label_is_read(run: Path, monkeypatch: pytest.MonkeyPatch):
    stage.adapt(CONFIG, run, seed=0)
    before = load_tensors(run / "adapter" / "adapter.safetensors")
    store = ClipStore(run / "clips")
    chosen = label_budget(store, LABELS, seed=0)
    unlabelled = [e for e in store.select(split="train") if e not in chosen]
    assert unlabelled
    rows, column = np.concatenate([stage.episode_rows(store, e) for e in unlabelled]), ClipStore.column

    def hidden(self: ClipStore, name: str) -> np.ndarray:
        values = column(self, name).copy()
        if name in ("state", "action", "environment_state"):
            values[rows] = np.nan
        return values

    monkeypatch.setattr(ClipStore, "column", hidden)
    stage.adapt(CONFIG, run, seed=0)
    after = load_tensors(run / "adapter" / "adapter.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_maps_are_taken_from_a_run_that_tells_more(run: Path, bundle, tmp_path: Path):
    save_adapter(tmp_path / "known" / "adapter", bundle)
    config = replace(
        CONFIG, labels=40, fit=FitConfig(rank=3, colours=16), init=str(tmp_path / "known" / ".." / "known")
    )
    figures = stage.adapt(config, run, seed=0)
    assert figures["init"] == figures["maps_from"] == "known" and figures["labels"] <= 40
    kept, known = load_adapter(run / "adapter"), bundle.adapter.state_dict()
    assert all(torch.equal(tensor, known[name]) for name, tensor in kept.adapter.state_dict().items())
    assert not torch.equal(kept.probe.codebook_K3, bundle.probe.codebook_K3), "the probe is of this video"


def test_maps_that_tell_less_are_left_and_that_is_said(run: Path, bundle, tmp_path: Path):
    other = AdapterBundle(ActionAdapter(bundle.adapter.config), bundle.probe, bundle.judge)
    other.adapter.load_state_dict(bundle.adapter.state_dict())
    save_adapter(tmp_path / "other" / "adapter", other)
    tensors = load_tensors(tmp_path / "other" / "adapter" / "adapter.safetensors")
    for name in tensors:
        if name.startswith("adapter.to_latent"):
            tensors[name] = -tensors[name]
    save_tensors(tmp_path / "other" / "adapter" / "adapter.safetensors", tensors)
    config = replace(CONFIG, fit=FitConfig(rank=3, colours=16), init=str(tmp_path / "other"))
    figures = stage.adapt(config, run, seed=0)
    assert figures["init"] == "other" and "maps_from" not in figures
    left_out = figures["left_out"]["adapter"]
    assert left_out["known_latent_r2"] < left_out["latent_r2"]


def test_a_senseless_budget_is_refused():
    with pytest.raises(ConfigError, match="labels"):
        build(stage.AdaptConfig, {"labels": 0}, "")
