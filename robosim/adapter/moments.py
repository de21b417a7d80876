"""The arm's posture from where its colours lie, by ridge regression: exact enough from 200 labels, and at once.

Legend of shape suffixes: N frames, K colours, H/W cells, S = HW, F features, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robosim.adapter.colours import cell_grid
from robosim.adapter.ridge import ridge

EMPTY = 0.1
"""Cells: the centroid of a colour that covers less than about this drifts to the middle."""

SMALLEST_SPREAD = 0.02
"""Features that vary less than this in the labels aren't blown up to unit size."""

PENALTIES = tuple(10.0 ** (k / 2) for k in range(-2, 7))


class MomentRegression(nn.Module):
    """Membership maps → outputs, by centroids, areas and their squares."""

    mean_F: Tensor
    spread_F: Tensor
    weight_FO: Tensor
    bias_O: Tensor
    grid_S2: Tensor

    def __init__(self, colours: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("mean_F", torch.zeros(6 * colours))
        self.register_buffer("spread_F", torch.ones(6 * colours))
        self.register_buffer("weight_FO", torch.zeros(6 * colours, outputs))
        self.register_buffer("bias_O", torch.zeros(outputs))
        self.register_buffer("grid_S2", cell_grid(), persistent=False)

    def forward(self, member_NKHW: Tensor) -> Tensor:
        return self._scaled(self.features(member_NKHW)) @ self.weight_FO + self.bias_O

    def features(self, member_NKHW: Tensor) -> Tensor:
        """Of every colour: centroid x, y, root of its area, x², y², xy."""
        member_NKS = member_NKHW.flatten(2)
        area_NK = member_NKS.sum(2)
        x, y = (member_NKS @ self.grid_S2 / (area_NK + EMPTY)[..., None]).unbind(-1)
        return torch.cat([x, y, area_NK.sqrt() / 10, x * x, y * y, x * y], 1)

    @torch.no_grad()
    def fit(self, member_NKHW: Tensor, target_NO: Tensor, episode_N: Tensor) -> Tensor:
        """Fit in closed form; returns predictions [N, O], each made with its episode left out."""
        x_NF = self.features(member_NKHW)
        self.mean_F.copy_(x_NF.mean(0))
        self.spread_F.copy_(x_NF.std(0) + SMALLEST_SPREAD)
        weight_FO, bias_O, held_out_NO = ridge(self._scaled(x_NF), target_NO, episode_N, PENALTIES)
        self.weight_FO.copy_(weight_FO)
        self.bias_O.copy_(bias_O)
        return held_out_NO

    def _scaled(self, x_NF: Tensor) -> Tensor:
        return (x_NF - self.mean_F) / self.spread_F
