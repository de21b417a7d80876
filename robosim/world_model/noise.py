"""Random numbers that belong to a sample, not to a batch.

A training mask comes from (seed, sample, step) and a rollout's noise from its row's own generator. So the same
sample sees the same noise whatever stands beside it, on however many devices.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sample_uniform(noise_seed_B: Tensor, shape: Sequence[int], salt: int) -> Tensor:
    """Uniform noise in [0, 1), float32 [B, *shape], row b drawn from `noise_seed_B[b]` and `salt` alone."""
    generator = torch.Generator()
    rows = []
    for seed in noise_seed_B.tolist():
        generator.manual_seed((seed * 1_000_003 + salt) % 2**63)
        rows.append(torch.rand(*shape, generator=generator))
    return torch.stack(rows).to(noise_seed_B.device)


def row_uniform(generators: Sequence[torch.Generator], shape: Sequence[int]) -> Tensor:
    """Uniform noise in [0, 1), float32 [N, *shape], row n drawn from `generators[n]`."""
    return torch.stack([torch.rand(*shape, generator=generator) for generator in generators])
