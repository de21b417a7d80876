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

EDGES = (0.0, -0.4)
"""Heights in the picture (−1 top, 1 bottom) below which colours are measured once more: a tool hangs at the lower end
of its arm, and the arm shares its colours."""

EDGE_SLOPE = 6.0

PENALTIES = tuple(10.0 ** (k / 2) for k in range(-2, 7))


class MomentRegression(nn.Module):
    """Membership maps → outputs, by centroids and areas: of the whole picture, of its lower parts, and squared."""

    mean_F: Tensor
    spread_F: Tensor
    weight_FO: Tensor
    bias_O: Tensor
    grid_S2: Tensor

    def __init__(self, colours: int, outputs: int) -> None:
        super().__init__()
        features = (6 + 3 * len(EDGES)) * colours
        self.register_buffer("mean_F", torch.zeros(features))
        self.register_buffer("spread_F", torch.ones(features))
        self.register_buffer("weight_FO", torch.zeros(features, outputs))
        self.register_buffer("bias_O", torch.zeros(outputs))
        self.register_buffer("grid_S2", cell_grid(), persistent=False)

    def forward(self, member_NKHW: Tensor) -> Tensor:
        return self._scaled(self.features(member_NKHW)) @ self.weight_FO + self.bias_O

    def features(self, member_NKHW: Tensor) -> Tensor:
        """Of every colour: centroid x, y and root of its area in each part of the picture; x², y², xy of the whole."""
        member_NKS = member_NKHW.flatten(2)
        x, y, area = self._moments(member_NKS)
        parts = [x, y, area, x * x, y * y, x * y]
        for edge in EDGES:
            parts += self._moments(member_NKS * torch.sigmoid(EDGE_SLOPE * (self.grid_S2[:, 1] - edge)))
        return torch.cat(parts, 1)

    def _moments(self, member_NKS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        area_NK = member_NKS.sum(2)
        x_NK, y_NK = (member_NKS @ self.grid_S2 / (area_NK + EMPTY)[..., None]).unbind(-1)
        return x_NK, y_NK, area_NK.sqrt() / 10

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
