"""Where the dynamics' logits start from: the draft, the likelier a code the nearer it lies to it.

A draft is a guess in the very space of the codes, but a head over the vocabulary has to learn from scratch which code
lies where. Here the logits are those of a Gaussian around the draft, whose width each token's features set, plus what
the head adds. Up to a constant log N(c; d, 1 / 2w) is w (2 c d − c²), so that two drafts of a token simply add up.

Legend of shape suffixes: V vocabulary, C code dimensions, D channels, F = 2C draft features (see `draft.py`).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHARPNESS = 4.0
"""w in the beginning: a standard deviation of 0.35, where codes lie in [−1, 1]."""


class DraftPrior(nn.Module):
    """Log-probabilities, up to a constant, of codes around a draft."""

    codes_VC: Tensor

    def __init__(self, codes_VC: Tensor, dim: int) -> None:
        super().__init__()
        # The tokenizer's own, which is frozen by now: not a weight of the dynamics.
        self.register_buffer("codes_VC", codes_VC.clone(), persistent=False)
        self.sharpness = nn.Linear(dim, 2 * codes_VC.shape[1])
        nn.init.zeros_(self.sharpness.weight)
        nn.init.constant_(self.sharpness.bias, math.log(math.expm1(SHARPNESS)))

    def forward(self, x: Tensor, draft: Tensor, levels: tuple[int, ...]) -> list[Tensor]:
        """Features [..., D] and drafts [..., F] → float32 [..., V], or one [..., level] for each of `levels`."""
        width = F.softplus(self.sharpness(x).float())
        pull = sum(w * d for w, d in zip(width.chunk(2, -1), draft.float().chunk(2, -1), strict=True))
        assert isinstance(pull, Tensor)
        stay, codes_VC = sum(width.chunk(2, -1)), self.codes_VC.float()
        assert isinstance(stay, Tensor)
        if len(levels) == 1:
            return [2 * pull @ codes_VC.T - stay @ codes_VC.square().T]
        logits, base = [], 1
        for digit, level in enumerate(levels):  # a digit alone decides on its dimension of the code
            values = codes_VC[base * torch.arange(level, device=codes_VC.device), digit]
            logits.append(2 * pull[..., digit, None] * values - stay[..., digit, None] * values.square())
            base *= level
        return logits
