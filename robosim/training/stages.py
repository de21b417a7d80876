"""The three stages that learn the simulator, from video alone.

Each reads columns of the clip store and adds one: the tokenizer `tokens`, the latent action model `latent_action`
(row t describes x_t → x_{t+1}), the dynamics stage `draft` (row t drafts frame t). No action, state or reward is
read here.

Training starts from random weights, or with `init` from those of another simulator; `train.steps` = 0 then takes them
as they are.

Each function takes its configuration, the run folder, a seed and a device, and returns the stage's figures; its
folder then holds `model.json` (configuration) and `model.safetensors`, and still the last snapshots: whoever has
written the stage's manifest drops them. Under `torchrun` all processes train, and the first alone labels the store and
takes the figures.
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

from robosim.checkpoint import atomic_write_json, prepare_folder, save_tensors
from robosim.errors import ConfigError, DatasetError
from robosim.ranks import alone, shared_failure, world_size
from robosim.shipped import locate
from robosim.training.chains import GrowingChains
from robosim.training.columns import add_drafts, add_tokens, episode_rows, infer_store, provenance
from robosim.training.loop import TrainConfig, train
from robosim.training.starting_weights import start_from
from robosim.training.strips import save_strips
from robosim.world_model.decoding import SamplingConfig
from robosim.world_model.draft import check_draft
from robosim.world_model.dynamics import DynamicsConfig
from robosim.world_model.evaluate import evaluate_dynamics, measure_frames_per_second
from robosim.world_model.latent_action import (
    HORIZONS,
    LatentActionConfig,
    LatentActionModel,
    evaluate_latent_actions,
    evaluate_own_rollouts,
)
from robosim.world_model.tokenizer import Tokenizer, TokenizerConfig, evaluate_tokenizer
from robosim.world_model.world import WorldModel, load_latent_action, load_tokenizer, make_dynamics

HELD_OUT_CLIPS = 48
"""Clips of the validation episodes that the figures are taken on, at most."""

TOKENIZER_CLIP = 12
"""Frames of a held-out clip for the tokenizer, or all that there are; the latent actions get as many frames in all."""

STRIPS = 3
"""Held-out clips in the picture that the dynamics leave, about."""


@dataclass
class TokenizerTraining:
    model: TokenizerConfig = field(default_factory=TokenizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    clip_length: int = 1
    """Frames a training clip: 1 where each frame is coded alone, more for a tokenizer that sees the past."""
    init: str | None = None
    """A run, a saved simulator or a shipped name whose weights the training starts from; None: random ones."""

    def __post_init__(self) -> None:
        if self.clip_length < 1:
            raise ValueError(f"clip_length must be at least 1, got {self.clip_length}")


@dataclass
class LatentActionTraining:
    model: LatentActionConfig = field(default_factory=LatentActionConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    clip_length: int = 2
    """Frames a training clip: 2 are a pair, more show a model that sees the past its past."""
    chain_start: float | None = None
    """With `model.chain`: share of the steps before chains begin to grow; None: whole clips from the first step on."""
    chain_end: float = 0.0
    """With `chain_start`: share of a clip's frames that are predicted from true ones to the last step."""
    init: str | None = None
    """A run, a saved simulator or a shipped name whose weights the training starts from; None: random ones."""

    def __post_init__(self) -> None:
        if self.clip_length < 2:
            raise ValueError(f"clip_length must be at least 2, got {self.clip_length}")
        if self.chain_start is not None and not (0 <= self.chain_start < 1 and self.model.chain):
            raise ValueError(
                f"chain_start must be at least 0 and below 1, with model.chain=true, got {self.chain_start}"
            )
        if not 0 <= self.chain_end <= 1 or (self.chain_end and self.chain_start is None):
            raise ValueError(f"chain_end must lie between 0 and 1, with chain_start, got {self.chain_end}")


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
    init: str | None = None
    """A run, a saved simulator or a shipped name whose weights the training starts from; None: random ones."""


def train_tokenizer(config: TokenizerTraining, run: Path, seed: int, device: str) -> dict[str, Any]:
    """Train the tokenizer on clips of `clip_length` frames and write the column `tokens` (int16 [frames, N])."""
    store, out = ClipStore(run / "clips"), run / "tokenizer"
    episodes = train_episodes(store)
    length = min(TOKENIZER_CLIP, longest_held_out(store))
    held_out = held_out_places(store, length, HELD_OUT_CLIPS)
    torch.manual_seed(seed)
    model = Tokenizer(config.model, store.spec.size)
    started = start_from(model, config.init, "tokenizer", config.train.steps)
    # That of this video even where the weights are another's: only the loss looks at it, to weigh the pixels of its
    # own frames, and another camera's background would call everything foreground.
    model.background.copy_(median_frame(store, episodes))
    batches = ClipSampler(store, episodes, config.clip_length, config.train.batch, seed)
    identity = {
        "model": asdict(config.model),
        "clips": store.source,
        "clip": config.clip_length,
        "seed": seed,
        **started,
    }
    trained = train(model, batches, config.train, out, "tokenizer", identity, device)

    def conclude() -> dict[str, Any]:
        save_model(out, model, {"config": asdict(config.model), "size": store.spec.size})
        add_tokens(store, model, out, device)
        clips = read_clips(store, held_out, length)
        figures = evaluate_tokenizer(model, clips.to(device))
        return figures | {"num_codes": model.num_codes} | about(model, config.init, trained, device)

    return alone(conclude)


def train_latent_action(config: LatentActionTraining, run: Path, seed: int, device: str) -> dict[str, Any]:
    """Train the latent action model on clips and write the column `latent_action` (float32 [frames, A]).

    The playable codes are the codebook, or the k-means centres of the training video's latent actions.
    """
    store, out = ClipStore(run / "clips"), run / "latent_action"
    episodes = train_episodes(store)
    most = max(1, HELD_OUT_CLIPS * TOKENIZER_CLIP // config.clip_length)
    held_out = held_out_places(store, config.clip_length, most)
    torch.manual_seed(seed)
    model = LatentActionModel(config.model, store.spec.size)
    started = start_from(model, config.init, "latent_action", config.train.steps)
    batches = ClipSampler(store, episodes, config.clip_length, config.train.batch, seed)
    if config.chain_start is not None:
        batches = GrowingChains(batches, config.chain_start, config.chain_end, config.train.steps)
    identity = {
        "model": asdict(config.model),
        "clips": store.source,
        "clip": config.clip_length,
        "chain_start": config.chain_start,
        "chain_end": config.chain_end,
        "seed": seed,
        **started,
    }
    trained = train(model, batches, config.train, out, "latent actions", identity, device)

    def conclude() -> dict[str, Any]:
        latents = infer_store(store, model, device)
        rows = np.concatenate([episode_rows(store, episode)[:-1] for episode in episodes])
        model.choose_playable(torch.from_numpy(latents[rows]), seed)
        save_model(out, model, {"config": asdict(config.model), "size": store.spec.size})
        store.add_column("latent_action", latents, provenance(out))
        clips = read_clips(store, held_out, config.clip_length)
        figures: dict[str, Any] = dict(evaluate_latent_actions(model, clips.to(device), seed))
        if not config.model.sees_past:
            length = min(1 + max(HORIZONS), longest_held_out(store))
            longer = read_clips(store, held_out_places(store, length, HELD_OUT_CLIPS), length)
            figures["own_rollout_psnr_db"] = evaluate_own_rollouts(model, longer.to(device))
        return figures | about(model, config.init, trained, device)

    return alone(conclude)


def train_dynamics(config: DynamicsTraining, run: Path, seed: int, device: str) -> dict[str, Any]:
    """Train the dynamics on the columns `tokens`, `latent_action` and `draft`; roll out held-out clips.

    Leaves `strips.npz`: `true` and `predicted` uint8 [B, T, H, W, 3], the first `context` frames being true in
    both; and `strips.png`, to look at.
    """
    store, out = ClipStore(run / "clips"), run / "dynamics"
    episodes = train_episodes(store)
    length = config.context + config.horizon
    held_out = held_out_places(store, length, HELD_OUT_CLIPS)
    tokenizer, latent_action = load_tokenizer(run / "tokenizer"), load_latent_action(run / "latent_action")
    columns = ("tokens", "latent_action")
    if config.model.draft:
        try:
            check_draft(tokenizer, latent_action)
        except ValueError as error:
            raise shared_failure(ConfigError(str(error))) from error
        if config.train.steps:  # only training reads them, and they take long
            alone(lambda: add_drafts(store, tokenizer, latent_action, run, device))
            columns = (*columns, "draft")
    torch.manual_seed(seed)
    model = make_dynamics(config.model, tokenizer, latent_action)
    started = start_from(model, config.init, "dynamics", config.train.steps)
    batches = ClipSampler(store, episodes, config.clip_length, config.train.batch, seed, columns)
    sources = {name: store.column_provenance(name) for name in columns}
    identity = {
        "model": asdict(config.model),
        "columns": sources,
        "clip": config.clip_length,
        "seed": seed,
        **started,
    }
    trained = train(model, batches, config.train, out, "dynamics", identity, device)

    def conclude() -> dict[str, Any]:
        save_model(out, model, {"config": asdict(config.model), "sampling": asdict(config.sampling)})
        world = WorldModel(tokenizer.to(device), latent_action.to(device), model, config.sampling)
        clips = read_clips(store, held_out, length)
        figures, predicted = evaluate_dynamics(world, clips, config.context, seed)
        figures["frames_per_second"] = measure_frames_per_second(world, clips[:1, : config.context])
        shown = torch.cat([clips[:, : config.context], predicted.cpu()], 1)
        np.savez(out / "strips.npz", true=clips.numpy()[::4], predicted=shown.numpy()[::4])
        few = slice(None, None, max(1, len(clips) // STRIPS))
        coded = world.reconstruct_clips(clips[few]).cpu()
        save_strips(out / "strips.png", [part.numpy() for part in (clips[few], coded, shown[few])])
        return figures | about(model, config.init, trained, device)

    return alone(conclude)


def train_episodes(store: ClipStore) -> list[int]:
    episodes = store.select(split="train")
    if not episodes or not store.select(split="val"):
        raise shared_failure(
            DatasetError(
                f"{store.path}: a world model needs training and held-out episodes, this store has {len(episodes)} "
                f"and {len(store.select(split='val'))}; collect or import with val_fraction > 0, "
                "a single recording with cut=SECONDS"
            )
        )
    return episodes


def held_out_places(store: ClipStore, length: int, most: int) -> list[tuple[int, int]]:
    """(episode, first frame) of up to `most` clips of the validation episodes, evenly spread over all that fit.

    Asked for before the training, so that a `DatasetError` (no validation episode is so long) doesn't come after it.
    """
    places = [
        (episode, start)
        for episode in store.select(split="val")
        for start in range(0, store.episodes[episode].length - length + 1, max(1, length // 2))
    ]
    if not places:
        raise shared_failure(
            DatasetError(
                f"{store.path}: the figures are taken on clips of {length} frames, but the longest validation episode "
                f"has {longest_held_out(store)}; use shorter clips (for the dynamics dynamics.context= and "
                "dynamics.horizon=, together at most that many, and dynamics.clip_length=) or bring in longer episodes"
            )
        )
    chosen = np.linspace(0, len(places) - 1, min(most, len(places))).round().astype(int)
    return [places[i] for i in chosen]


def longest_held_out(store: ClipStore) -> int:
    """Frames of the longest validation episode."""
    return max(store.episodes[episode].length for episode in store.select(split="val"))


def read_clips(store: ClipStore, places: list[tuple[int, int]], length: int) -> Tensor:
    """The clips at `places`, uint8 [B, length, H, W, 3]."""
    return torch.from_numpy(np.stack([store.frames(e, first, first + length) for e, first in places]))


def median_frame(store: ClipStore, episodes: list[int], most: int = 200) -> Tensor:
    """The median of frames spread over the training video, float32 [H, W, 3]: its background."""
    picks = [
        store.frames(e)[store.episodes[e].length // 2] for e in episodes[:: max(1, len(episodes) // most)]
    ]
    return torch.from_numpy(np.median(np.stack(picks), 0).astype(np.float32) / 255)


def save_model(out: Path, model: nn.Module, description: dict[str, Any]) -> None:
    save_tensors(prepare_folder(out) / "model.safetensors", model.state_dict())
    atomic_write_json(out / "model.json", description)


def about(model: nn.Module, init: str | None, trained: dict[str, float], device: str) -> dict[str, Any]:
    """The figures that all three stages have: size, last metrics, where it was trained, and what it started from."""
    where = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    figures = {"parameters": count(model), "train": trained, "trained_on": f"{world_size()} × {where}"}
    return figures if init is None else figures | {"init": locate(init).resolve().name}


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
