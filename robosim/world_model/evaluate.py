"""How well the dynamics predicts held-out video, driven by the latent actions inferred from that video.

Definitions: PSNR is pooled over clips; *moving* pixels at horizon h are those where the true frame at h differs
from the last context frame. Repeat-last copies the background exactly on all pixels, and no model can beat its
own tokenizer, so both are printed beside the model: repeat-last through the tokenizer, and the ceiling.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from robosim.world_model.metrics import moving_mask, pooled_psnr
from robosim.world_model.world import WorldModel, seeded_generators

HORIZONS = (1, 4, 8, 16)
DELTA_HORIZON = 4
"""t of ΔPSNR (Genie, arXiv 2402.15391, section 3)."""


def evaluate_dynamics(
    world: WorldModel, clips: Tensor, context: int, seed: int = 0, batch: int = 32
) -> tuple[dict[str, Any], Tensor]:
    """Roll out from the first `context` frames of held-out `clips` uint8 [B, T, H, W, 3].

    Returns the figures (a dict by horizon each) and the predictions uint8 [B, T − context, H, W, 3].
    `delta_psnr_db` = PSNR with inferred − PSNR with random latent actions, which are those of other clips.
    """
    latents = torch.cat([world.infer_latents(part) for part in clips.split(batch)])[:, context - 1 :]
    start, true = clips[:, :context], clips[:, context:]
    predicted = rollout_batches(world, start, latents, seed, batch)
    # Shifted by half the set: no clip keeps its own, as some would under a random permutation, nor its neighbour's.
    random = rollout_batches(world, start, latents.roll(max(1, len(latents) // 2), 0), seed, batch)
    last = clips[:, context - 1]
    reconstructed = torch.cat([world.reconstruct_clips(part).cpu() for part in clips.split(batch)])
    horizons = [h for h in HORIZONS if h <= true.shape[1]]
    figures: dict[str, Any] = {"horizons": horizons}
    curves: dict[str, Tensor] = {
        "": predicted,
        "random_latents_": random,
        "repeat_last_": reconstructed[:, context - 1 : context].expand_as(true),
        "repeat_last_raw_": last[:, None].expand_as(true),
        "ceiling_": reconstructed[:, context:],
    }
    for name, frames in curves.items():
        moving, whole = {}, {}
        for h in horizons:
            pair = frames[:, h - 1], true[:, h - 1]
            moving[str(h)] = pooled_psnr(*pair, mask=moving_mask(true[:, h - 1], last))
            whole[str(h)] = pooled_psnr(*pair)
        figures[f"{name}moving_psnr_db"], figures[f"{name}psnr_db"] = moving, whole
    at = str(max(h for h in horizons if h <= DELTA_HORIZON))
    figures["delta_psnr_db"] = figures["psnr_db"][at] - figures["random_latents_psnr_db"][at]
    figures["clips"] = len(clips)
    return figures, predicted


def rollout_batches(world: WorldModel, start: Tensor, latents: Tensor, seed: int, batch: int) -> Tensor:
    """`WorldModel.rollout` in batches; a clip's noise depends on its position alone."""
    parts = []
    for first in range(0, len(start), batch):
        rows = slice(first, first + batch)
        parts.append(world.rollout(start[rows], latents[rows], seed=seed + first).cpu())
    return torch.cat(parts)


def measure_frames_per_second(world: WorldModel, start: Tensor, frames: int = 20) -> float:
    """Frames a second of one rollout (batch 1), pixel decoding included. `start` uint8 [1, C, H, W, 3]."""
    state = world.start(start, generators=seeded_generators([0]))
    latent = world.playable[:1]
    world.step(state, latent)
    begun = time.perf_counter()
    for _ in range(frames):
        world.step(state, latent).cpu()  # a frame counts once it can be shown
    return frames / (time.perf_counter() - begun)
