"""A frame as areas of colour: a codebook learned from unlabelled video, and where each colour lies.

Legend of shape suffixes: N frames, H/W pixels or cells, K colours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 2 * 0.05**2
"""Squared colour distance (colours in 0…1) over which a pixel's membership of a colour fades."""

MAP_SIZE = 32
"""Memberships are averaged to this many cells a side: a cell's mean keeps a centroid's sub-pixel place."""

FOREGROUND = 0.08
"""Difference from the median frame (in 0…1) from which on a pixel counts as foreground."""


@torch.no_grad()
def colour_codebook(frames: Tensor, colours: int, seed: int, pixels: int = 6000) -> Tensor:
    """k-means of pixel colours in `frames` uint8 [N,H,W,3]: float32 [K,3] in 0…1.

    Half of the pixels differ from the median frame, so that small things that move from episode to episode get
    colours of their own; seeding by squared distance (k-means++) finds the rare ones.
    """
    generator = torch.Generator().manual_seed(seed)
    x_NHW3 = frames.float() / 255
    moved_NHW = (x_NHW3 - x_NHW3.median(0).values).abs().amax(-1) > FOREGROUND
    sample = []
    for rows in (x_NHW3[moved_NHW], x_NHW3.flatten(0, 2)):
        if len(rows):
            sample.append(rows[torch.randint(len(rows), (pixels // 2,), generator=generator)])
    sample_S3 = torch.cat(sample)
    centres_K3 = sample_S3[:1]
    for _ in range(colours - 1):
        nearest = torch.cdist(sample_S3, centres_K3).amin(1).square()
        pick = torch.multinomial(nearest + 1e-9, 1, generator=generator)
        centres_K3 = torch.cat([centres_K3, sample_S3[pick]])
    for _ in range(10):
        owner = torch.cdist(sample_S3, centres_K3).argmin(1)
        count_K = torch.bincount(owner, minlength=colours)
        total_K3 = torch.zeros_like(centres_K3).index_add_(0, owner, sample_S3)
        mean_K3 = total_K3 / count_K.clamp_min(1)[:, None]
        centres_K3 = torch.where(count_K[:, None] > 0, mean_K3, centres_K3)
    return centres_K3


def memberships(frames: Tensor, codebook_K3: Tensor) -> Tensor:
    """How much of each cell has each colour: uint8 [N,H,W,3] → float32 [N,K,MAP_SIZE,MAP_SIZE], summing to 1."""
    x_NHW3 = frames.float() / 255
    similarity = 2 * x_NHW3 @ codebook_K3.T - codebook_K3.square().sum(1)
    member_NKHW = torch.softmax(similarity / TEMPERATURE, -1).movedim(-1, 1)
    return F.adaptive_avg_pool2d(member_NKHW, MAP_SIZE)


def cell_grid() -> Tensor:
    """x and y of every cell, −1 to 1: float32 [MAP_SIZE², 2], row by row."""
    axis = torch.linspace(-1, 1, MAP_SIZE)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)
