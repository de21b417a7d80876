"""Picture metrics that need no rollout of their own. Frames are uint8 or float in [0, 1], [..., H, W, 3]."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MOVING_THRESHOLD = 0.04
"""A pixel moves where any channel differs by more than this (of 1)."""


def unit(frames: Tensor) -> Tensor:
    """uint8 frames as float32 in [0, 1]; float frames unchanged."""
    return frames.float() / 255 if frames.dtype == torch.uint8 else frames


def moving_mask(frame: Tensor, reference: Tensor) -> Tensor:
    """Bool [..., H, W]: where `frame` differs from `reference` (same shapes) by more than the threshold."""
    return (unit(frame) - unit(reference)).abs().amax(-1) > MOVING_THRESHOLD


def pooled_psnr(predicted: Tensor, true: Tensor, mask: Tensor | None = None) -> float:
    """PSNR in dB of the mean squared error pooled over all frames and pixels, or over those under `mask`.

    A mean of single frames' PSNRs can differ from it by 5 dB. NaN when the mask is empty.
    """
    error = (unit(predicted) - unit(true)).square().mean(-1)
    if mask is not None:
        error = error[mask]
    if error.numel() == 0:
        return math.nan
    return -10 * math.log10(max(float(error.double().mean()), 1e-10))
