"""Batch normalisation over the batch of all processes: features that are quantised next can't shrink, drift or die.

Legend of shape suffixes: B any leading axes, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robosim.ranks import sum_over_ranks


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy, arXiv 1502.03167) over the batch of all processes, without weights."""

    mean: Tensor
    variance: Tensor

    def __init__(self, dim: int, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.epsilon = momentum, epsilon
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))

    def forward(self, x_BD: Tensor, counts_B: Tensor | None = None) -> Tensor:
        """Normalise [..., D]; `counts_B`, bool [...], says in training whose statistics are taken."""
        mean, variance = self.mean, self.variance
        if self.training:
            weight_B1 = torch.ones_like(x_BD[..., :1]) if counts_B is None else counts_B[..., None].float()
            axes = tuple(range(x_BD.ndim - 1))
            total = sum_over_ranks(weight_B1.sum()).clamp(min=1)
            mean = sum_over_ranks((weight_B1 * x_BD).sum(axes)) / total
            variance = sum_over_ranks((weight_B1 * (x_BD - mean).square()).sum(axes)) / total
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                self.variance.lerp_(variance * total / (total - 1).clamp(min=1), self.momentum)
        return (x_BD - mean) * (variance + self.epsilon).rsqrt()
