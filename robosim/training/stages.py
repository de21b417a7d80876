"""The three stages that learn the simulator, from video alone.

Each reads columns of the clip store and adds one: the tokenizer `tokens`, the latent action model `latent_action`
(row t describes x_t → x_{t+1}), the dynamics stage `draft` (row t drafts frame t). No action, state or reward is
read here.

Each function takes its configuration, the run folder, a seed and a device, and returns the stage's figures; its
folder then holds `model.json` (configuration) and `model.safetensors`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from robosim_datasets.clip_store import ClipStore
from robosim_datasets.sampler import ClipSampler
from torch import Tensor, nn

from robosim.checkpoint import atomic_write_json, file_hash, json_hash, prepare_folder, save_tensors
from robosim.errors import DatasetError
from robosim.progress import progress
from robosim.training.loop import TrainConfig, finish, train
from robosim.world_model.decoding import SamplingConfig
from robosim.world_model.draft import draft_next
from robosim.world_model.dynamics import Dynamics, DynamicsConfig
from robosim.world_model.evaluate import evaluate_dynamics, measure_frames_per_second
from robosim.world_model.latent_action import (
    LatentActionConfig,
    LatentActionModel,
    evaluate_latent_actions,
    infer_clip,
)
from robosim.world_model.quantise import kmeans
from robosim.world_model.tokenizer import Tokenizer, TokenizerConfig, evaluate_tokenizer
from robosim.world_model.world import WorldModel, load_latent_action, load_tokenizer

HELD_OUT_CLIPS = 48
"""Clips of the validation episodes that the figures are taken on, at most."""


@dataclass
class TokenizerTraining:
    model: TokenizerConfig = field(default_factory=TokenizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


@dataclass
class LatentActionTraining:
    model: LatentActionConfig = field(default_factory=LatentActionConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


@dataclass
class DynamicsTraining:
    model: DynamicsConfig = field(default_factory=DynamicsConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    clip_length: int = 12
    """Frames a training clip."""
    context: int = 4
    """Frames that held-out rollouts start from."""
    horizon: int = 16
    """Frames of a held-out rollout."""


def train_tokenizer(config: TokenizerTraining, run: Path, seed: int, device: str) -> dict[str, Any]:
    """Train the tokenizer on single frames and write the column `tokens` (int16 [frames, N])."""
    store, out = ClipStore(run / "clips"), run / "tokenizer"
    episodes = train_episodes(store)
    torch.manual_seed(seed)
    model = Tokenizer(config.model, store.spec.size)
    model.background.copy_(median_frame(store, episodes))
    batches = ClipSampler(store, episodes, 1, config.train.batch, seed)
    identity = {"model": asdict(config.model), "clips": store.source, "seed": seed}
    trained = train(model, batches, config.train, out, "tokenizer", identity, device)
    save_model(out, model, {"config": asdict(config.model), "size": store.spec.size})
    add_tokens(store, model, out, device)
    clips = held_out_clips(store, 12, HELD_OUT_CLIPS)
    figures = evaluate_tokenizer(model, clips.to(device))
    finish(out)
    return figures | {"num_codes": model.num_codes, "parameters": count(model), "train": trained}


def train_latent_action(config: LatentActionTraining, run: Path, seed: int, device: str) -> dict[str, Any]:
    """Train the latent action model on pairs of frames and write the column `latent_action` (float32 [frames, A]).

    The playable codes are the k-means centres of the training video's latent actions.
    """
    store, out = ClipStore(run / "clips"), run / "latent_action"
    episodes = train_episodes(store)
    torch.manual_seed(seed)
    model = LatentActionModel(config.model, store.spec.size)
    batches = ClipSampler(store, episodes, 2, config.train.batch, seed)
    identity = {"model": asdict(config.model), "clips": store.source, "seed": seed}
    trained = train(model, batches, config.train, out, "latent actions", identity, device)
    latents = infer_store(store, model, device)
    rows = np.concatenate([episode_rows(store, episode)[:-1] for episode in episodes])
    model.playable.copy_(kmeans(torch.from_numpy(latents[rows]), config.model.codes, seed))
    save_model(out, model, {"config": asdict(config.model), "size": store.spec.size})
    store.add_column("latent_action", latents, provenance(out))
    pairs = held_out_clips(store, 2, 6 * HELD_OUT_CLIPS)
    figures = evaluate_latent_actions(model, pairs.to(device), seed)
    finish(out)
    return figures | {"parameters": count(model), "train": trained}


def train_dynamics(config: DynamicsTraining, run: Path, seed: int, device: str) -> dict[str, Any]:
    """Train the dynamics on the columns `tokens`, `latent_action` and `draft`; roll out held-out clips.

    Leaves `strips.npz`: `true` and `predicted` uint8 [B, T, H, W, 3], the first `context` frames being true in
    both.
    """
    store, out = ClipStore(run / "clips"), run / "dynamics"
    episodes = train_episodes(store)
    tokenizer, latent_action = load_tokenizer(run / "tokenizer"), load_latent_action(run / "latent_action")
    columns = ("tokens", "latent_action")
    if config.model.draft:
        add_drafts(store, tokenizer, latent_action, run, device)
        columns = (*columns, "draft")
    torch.manual_seed(seed)
    sizes = tokenizer.config.levels, tokenizer.num_tokens, latent_action.config.dim
    model = Dynamics(config.model, *sizes)
    batches = ClipSampler(store, episodes, config.clip_length, config.train.batch, seed, columns)
    sources = {name: store.column_provenance(name) for name in columns}
    identity = {"model": asdict(config.model), "columns": sources, "clip": config.clip_length, "seed": seed}
    trained = train(model, batches, config.train, out, "dynamics", identity, device)
    save_model(out, model, {"config": asdict(config.model), "sampling": asdict(config.sampling)})
    world = WorldModel(tokenizer.to(device), latent_action.to(device), model, config.sampling)
    clips = held_out_clips(store, config.context + config.horizon, HELD_OUT_CLIPS)
    figures, predicted = evaluate_dynamics(world, clips, config.context, seed)
    figures["frames_per_second"] = measure_frames_per_second(world, clips[:1, : config.context])
    shown = torch.cat([clips[:, : config.context], predicted.cpu()], 1)
    np.savez(out / "strips.npz", true=clips.numpy()[::4], predicted=shown.numpy()[::4])
    finish(out)
    return figures | {"parameters": count(model), "train": trained}


def train_episodes(store: ClipStore) -> list[int]:
    episodes = store.select(split="train")
    if not episodes or not store.select(split="val"):
        raise DatasetError(
            f"{store.path}: a world model needs training and held-out episodes, this store has {len(episodes)} and "
            f"{len(store.select(split='val'))}; collect with val_fraction > 0"
        )
    return episodes


def episode_rows(store: ClipStore, episode: int) -> np.ndarray:
    """The rows of an episode in every column."""
    row = store.episodes[episode]
    return np.arange(row.start, row.start + row.length)


def held_out_clips(store: ClipStore, length: int, most: int) -> Tensor:
    """Up to `most` clips uint8 [B, length, H, W, 3] of the validation episodes, evenly spread over all that fit."""
    places = [
        (episode, start)
        for episode in store.select(split="val")
        for start in range(0, store.episodes[episode].length - length + 1, max(1, length // 2))
    ]
    if not places:
        raise DatasetError(
            f"{store.path}: no validation episode has {length} frames; collect longer or more episodes"
        )
    chosen = np.linspace(0, len(places) - 1, min(most, len(places))).round().astype(int)
    clips = [store.frames(places[i][0], places[i][1], places[i][1] + length) for i in chosen]
    return torch.from_numpy(np.stack(clips))


def median_frame(store: ClipStore, episodes: list[int], most: int = 200) -> Tensor:
    """The median of frames spread over the training video, float32 [H, W, 3]: its background."""
    picks = [
        store.frames(e)[store.episodes[e].length // 2] for e in episodes[:: max(1, len(episodes) // most)]
    ]
    return torch.from_numpy(np.median(np.stack(picks), 0).astype(np.float32) / 255)


@torch.no_grad()
def add_tokens(store: ClipStore, model: Tokenizer, out: Path, device: str) -> None:
    model.eval()
    tokens = np.zeros((store.num_frames, model.num_tokens), np.int16)
    with progress("tokens", store.num_frames, "frame") as bar:
        for episode in range(len(store.episodes)):
            frames = torch.from_numpy(np.array(store.frames(episode))).to(device)
            tokens[episode_rows(store, episode)] = model.encode(frames).cpu().numpy()
            bar.advance(len(frames))
    store.add_column("tokens", tokens, provenance(out))


def infer_store(store: ClipStore, model: LatentActionModel, device: str) -> np.ndarray:
    """Latent actions of the whole store, float32 [frames, A]."""
    model.eval()
    latents = np.zeros((store.num_frames, model.config.dim), np.float32)
    with progress("latent actions of all frames", store.num_frames, "frame") as bar:
        for episode in range(len(store.episodes)):
            frames = torch.from_numpy(np.array(store.frames(episode))).to(device)
            latents[episode_rows(store, episode)] = infer_clip(model, frames).cpu().numpy()
            bar.advance(len(frames))
    return latents


@torch.no_grad()
def add_drafts(
    store: ClipStore, tokenizer: Tokenizer, latent_action: LatentActionModel, run: Path, device: str
) -> None:
    """Write the column `draft` (float16 [frames, N, F]), drafted from the tokens of the true frame before."""
    made_from = provenance(run / "tokenizer") | provenance(run / "latent_action")
    if store.column_provenance("draft") == made_from:
        return
    tokenizer.to(device).eval()
    latent_action.to(device).eval()
    tokens, latents = store.column("tokens"), store.column("latent_action")
    drafts = np.zeros((store.num_frames, tokenizer.num_tokens, 2 * tokenizer.fsq.dim), np.float16)
    with progress("drafts", store.num_frames, "frame") as bar:
        for episode in range(len(store.episodes)):
            rows = episode_rows(store, episode)
            token = torch.from_numpy(tokens[rows[:-1]].astype(np.int64)).to(device)
            latent = torch.from_numpy(np.array(latents[rows[:-1]])).to(device)
            frames = tokenizer.decode(token)
            drafts[rows[1:]] = draft_next(tokenizer, latent_action, token, frames, latent).cpu().numpy()
            bar.advance(len(rows))
    store.add_column("draft", drafts, made_from)


def save_model(out: Path, model: nn.Module, description: dict[str, Any]) -> None:
    save_tensors(prepare_folder(out) / "model.safetensors", model.state_dict())
    atomic_write_json(out / "model.json", description)


def provenance(out: Path) -> dict[str, str]:
    """What a column was made by: the hash of a stage's weights and configuration."""
    return {out.name: json_hash([file_hash(out / "model.safetensors"), file_hash(out / "model.json")])}


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
