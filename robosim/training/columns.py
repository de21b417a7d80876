"""What the trained parts say about every frame of the clip store, as columns: made once, read in every later step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from robosim_datasets.clip_store import ClipStore

from robosim.checkpoint import file_hash, json_hash
from robosim.progress import progress
from robosim.world_model.draft import draft_clips
from robosim.world_model.latent_action import LatentActionModel, infer_clip
from robosim.world_model.tokenizer import Tokenizer


def episode_rows(store: ClipStore, episode: int) -> np.ndarray:
    """The rows of an episode in every column."""
    row = store.episodes[episode]
    return np.arange(row.start, row.start + row.length)


def provenance(out: Path) -> dict[str, str]:
    """What a column was made by: the hash of a stage's weights and configuration."""
    return {out.name: json_hash([file_hash(out / "model.safetensors"), file_hash(out / "model.json")])}


@torch.no_grad()
def add_tokens(store: ClipStore, model: Tokenizer, out: Path, device: str) -> None:
    """Write the column `tokens` (int16 [frames, N]), each episode coded as one clip."""
    model.eval()
    tokens = np.zeros((store.num_frames, model.num_tokens), np.int16)
    with progress("tokens", store.num_frames, "frame") as bar:
        for episode in range(len(store.episodes)):
            frames = torch.from_numpy(np.array(store.frames(episode))).to(device)
            tokens[episode_rows(store, episode)] = model.encode_clips(frames[None])[0].cpu().numpy()
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
    drafts = np.zeros((store.num_frames, tokenizer.num_tokens, 2 * tokenizer.code_dim), np.float16)
    with progress("drafts", store.num_frames, "frame") as bar:
        for episode in range(len(store.episodes)):
            rows = episode_rows(store, episode)
            token = torch.from_numpy(tokens[rows].astype(np.int64)).to(device)[None]
            latent = torch.from_numpy(np.array(latents[rows])).to(device)[None]
            drafts[rows] = draft_clips(tokenizer, latent_action, token, latent)[0].cpu().numpy()
            bar.advance(len(rows))
    store.add_column("draft", drafts, made_from)
