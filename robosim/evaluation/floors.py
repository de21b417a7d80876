"""What a prediction has to beat without a model of motion: the still picture, and a training clip played again.

Legend of shape suffixes: N stretches, M training frames, A latent dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from robosim_datasets.clip_store import ClipStore
from torch import Tensor

from robosim.evaluation.stretches import Stretches
from robosim.training.columns import infer_store, provenance
from robosim.world_model.metrics import unit
from robosim.world_model.world import WorldModel

LOOK = 16
"""Pictures are compared as means over LOOK × LOOK cells: where arm and things are, not every pixel's noise."""

NEAREST = 32
"""Training frames nearest to the present one, among which the latent actions choose."""

MOST_FRAMES = 30_000
"""Training frames that are looked at, evenly spread."""


@dataclass(frozen=True)
class Library:
    """Training frames that can be played on from."""

    store: ClipStore
    episode_M: np.ndarray
    time_M: np.ndarray
    left_M: np.ndarray
    """Frames that follow in the episode."""
    look_M: Tensor
    """float32 [M, 3·LOOK²]"""
    latents: np.ndarray
    """float32 [frames of the store, A]"""

    def nearest(self, stretches: Stretches, latents_NTA: Tensor, horizon: int) -> Tensor | None:
        """The frame `horizon` steps into the training clip that fits each stretch best, uint8 [N,H,W,3].

        Of the `NEAREST` training frames that look most like the present one and have so many frames after them, it is
        the one whose next `horizon` latent actions are nearest to the stretch's. None where no training episode is
        so long.
        """
        able = np.flatnonzero(self.left_M >= horizon)
        if not len(able):
            return None
        distance_NM = torch.cdist(look(stretches.present), self.look_M[able])
        near = able[distance_NM.topk(min(NEAREST, len(able)), largest=False).indices.numpy()]
        now, camera = stretches.context - 1, self.store.spec.cameras[0]
        shown = []
        for candidates, wanted_TA in zip(near, latents_NTA[:, now : now + horizon].numpy(), strict=True):
            rows = np.array([self.store.episodes[e].start for e in self.episode_M[candidates]])
            rows = (rows + self.time_M[candidates])[:, None] + np.arange(horizon)
            off = np.square(self.latents[rows] - wanted_TA).sum((1, 2))
            best = candidates[int(off.argmin())]
            at = int(self.time_M[best]) + horizon
            shown.append(self.store.frames(int(self.episode_M[best]), at, at + 1, camera)[0])
        return torch.from_numpy(np.stack(shown))


def look(frames: Tensor) -> Tensor:
    """Frames uint8 [M,H,W,3] as float32 [M, 3·LOOK²]."""
    parts = [F.adaptive_avg_pool2d(unit(part).movedim(-1, 1), LOOK).flatten(1) for part in frames.split(1024)]
    return torch.cat(parts)


def make_library(store: ClipStore, world: WorldModel, run: Path, device: str) -> Library:
    """The training frames of `store`. Its latent actions are inferred again where this run's model didn't make them."""
    train = store.select(split="train")
    stride = max(1, -(-sum(store.episodes[e].length for e in train) // MOST_FRAMES))
    episode, time, left, looks = [], [], [], []
    for e in train:
        frames = torch.from_numpy(np.array(store.frames(e)[::stride]))
        times = np.arange(0, store.episodes[e].length, stride)
        episode.append(np.full(len(times), e))
        time.append(times)
        left.append(store.episodes[e].length - 1 - times)
        looks.append(look(frames))
    ours = store.column_provenance("latent_action") == provenance(run / "latent_action")
    latents = store.column("latent_action") if ours else infer_store(store, world.latent_action, device)
    episode_M, time_M, left_M = (np.concatenate(values) for values in (episode, time, left))
    return Library(store, episode_M, time_M, left_M, torch.cat(looks), np.asarray(latents))
