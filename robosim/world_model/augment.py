"""Training frames seen a little otherwise: nearer, aside, mirrored, tinted. For a tokenizer with little video.

A dozen scenes are soon known by heart, each with its place and its colours; a new one then looks like all of them at
once. What is drawn for a row depends on its seed alone, so that a resumed run sees the same.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from robosim.world_model.noise import sample_uniform

ZOOM, TINT = 0.4, 0.3
"""At full strength: the share of a side that a crop leaves out, and the change of a colour channel's gain."""


def augment(
    frames_BTHWI: Tensor, weight_BTHW1: Tensor, noise_seed_B: Tensor, strength: float
) -> tuple[Tensor, Tensor]:
    """Frames float32 in [0, 1] and the loss weights of their pixels, changed alike in all frames of a clip.

    `strength` 0 changes nothing, 1 the most. Only the frames are tinted.
    """
    rows, time, height, width = frames_BTHWI.shape[:4]
    draws = sample_uniform(noise_seed_B, (7,), salt=8).to(frames_BTHWI)
    scale = 1 - strength * ZOOM * draws[:, 0]
    mirror = torch.where(draws[:, 1] < 0.5 * strength, -1.0, 1.0)
    shift = (2 * draws[:, 2:4] - 1) * (1 - scale)[:, None]
    affine = frames_BTHWI.new_zeros(rows, 2, 3)
    affine[:, 0, 0], affine[:, 1, 1], affine[:, :, 2] = scale * mirror, scale, shift
    grid = F.affine_grid(affine, [rows, 1, height, width], align_corners=False)
    planes = torch.cat([frames_BTHWI, weight_BTHW1], -1).permute(0, 1, 4, 2, 3)
    seen = F.grid_sample(
        planes.reshape(rows, time * 4, height, width), grid, padding_mode="border", align_corners=False
    )
    seen = seen.view(rows, time, 4, height, width).permute(0, 1, 3, 4, 2)
    gain = 1 + strength * TINT * (2 * draws[:, 4:7] - 1)
    return (seen[..., :3] * gain[:, None, None, None]).clamp(0, 1), seen[..., 3:]
