"""Chains of predicted frames that grow while the latent action model learns (`chain_start=`).

A model that can't yet move an arm by one frame learns little from its own ninth. So training begins with single pairs,
and from some step on ever fewer frames are predicted from true ones: a curriculum, as scheduled sampling (Bengio et
al., arXiv 1506.03099). Where some are left to the end (`chain_end=`), a latent action has to say how the arm moves: in
chains alone it pays to say where the arm will be.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Batch = dict[str, Tensor]


class GrowingChains:
    """Batches of `batches` with `restart` float32 [B]: the share of a clip's frames that are predicted from true ones.

    It is 1 up to the share `start` of all `steps`, then falls linearly to `end` at the last.
    """

    def __init__(self, batches: Callable[[int, slice], Batch], start: float, end: float, steps: int) -> None:
        self.batches, self.start, self.end, self.steps = batches, start, end, steps

    def __call__(self, step: int, rows: slice = slice(None)) -> Batch:
        batch = self.batches(step, rows)
        return batch | {"restart": torch.full((len(batch["noise_seed"]),), self.restart(step))}

    def restart(self, step: int) -> float:
        done = (step + 1) / self.steps
        return min(1.0, self.end + (1 - self.end) * (1 - done) / (1 - self.start))
