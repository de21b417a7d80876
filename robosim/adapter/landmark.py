"""Where a coloured thing lies: found by its colours in the picture, carried to the world by a small regression.

Ten labelled episodes hold ten places of the marker; a network learns them by heart. Here unlabelled video gives a
codebook of colours, the labels choose which of them are the thing's (those whose centroid predicts the positions of
*left-out* episodes), and six numbers a coordinate carry pixels to metres.

Legend of shape suffixes: N frames, K colours, H/W cells, S = HW, F features, E episodes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robosim.adapter.colours import cell_grid

LARGEST_SET = 4
"""Colours a thing may have: its lit and its shaded sides."""

LEAST_GAIN = 0.05
"""Share by which one more colour must lower the left-out error."""

ENOUGH = 0.3
"""Share of the typical visible area from which on a thing counts as fully seen."""

LEAST_DENSITY = 0.04
"""Mean of heat in the 5×5 cells around, from which on a cell is part of a thing and not a stray."""

LEAST_MEMBERSHIP = 0.1
"""Colours that never fill this share of a cell can't be a thing's."""

SMALLEST_AREA = 0.05
"""Cells."""

PENALTY = 0.3
"""Of the ridge from picture to world."""


class Landmark(nn.Module):
    """One thing: membership maps → its place in the world, and how much of it is seen."""

    uses_K: Tensor
    weight_F3: Tensor
    mean_3: Tensor
    area: Tensor
    grid_S2: Tensor

    def __init__(self, colours: int) -> None:
        super().__init__()
        self.register_buffer("uses_K", torch.zeros(colours))
        self.register_buffer("weight_F3", torch.zeros(6, 3))
        self.register_buffer("mean_3", torch.zeros(3))
        self.register_buffer("area", torch.ones(()))
        self.register_buffer("grid_S2", cell_grid(), persistent=False)

    def forward(self, member_NKHW: Tensor) -> tuple[Tensor, Tensor]:
        """Place [N,3] in metres and visibility [N] in 0…1; what isn't seen is put at the labels' mean."""
        heat_NHW = torch.einsum("nkhw,k->nhw", member_NKHW, self.uses_K)
        centre_N2, mass_N = self.centroid(heat_NHW, neighbourhood(heat_NHW[:, None])[:, 0])
        seen_N = self._seen(mass_N)
        return torch.lerp(self.mean_3, features(centre_N2) @ self.weight_F3, seen_N[:, None]), seen_N

    def centroid(self, heat_NHW: Tensor, around_NHW: Tensor) -> tuple[Tensor, Tensor]:
        """Centre [N,2] (picture from −1 to 1) and mass [N] (cells) of a map of how much of each cell is the thing.

        Cells are weighted by how much lies around: single stray ones elsewhere don't pull the centroid.
        """
        weight_NS = (heat_NHW * around_NHW.square()).flatten(1)
        centre_N2 = weight_NS @ self.grid_S2 / weight_NS.sum(1, keepdim=True).clamp_min(1e-8)
        return centre_N2, (heat_NHW * (around_NHW > LEAST_DENSITY)).flatten(1).sum(1)

    @torch.no_grad()
    def fit(
        self, member_NKHW: Tensor, place_N3: Tensor, episode_N: Tensor, like: Landmark | None = None
    ) -> Tensor:
        """Choose the colours and fit the regression; returns left-out places [N,3], one episode left out a time.

        `like`: a fitted landmark on about the same plane; the regression starts from its, which helps a thing that
        the labels show at few places.
        """
        start_F3 = torch.zeros_like(self.weight_F3) if like is None else like.weight_F3
        fold_EN = (episode_N.unique()[:, None] == episode_N).double()
        maps_K2NHW = torch.stack([member_NKHW, neighbourhood(member_NKHW)]).movedim(2, 0).contiguous()
        chosen_2NHW = torch.zeros_like(maps_K2NHW[0])
        best_N3, best_error = place_N3.mean(0).expand_as(place_N3), float("inf")
        uses_K = torch.zeros_like(self.uses_K)
        candidates = (member_NKHW.amax((0, 2, 3)) > LEAST_MEMBERSHIP).nonzero()[:, 0].tolist()
        for _ in range(LARGEST_SET):
            tried = []
            for k in candidates:
                place = self._left_out(chosen_2NHW + maps_K2NHW[k], place_N3, fold_EN, start_F3)
                tried.append(((place - place_N3).norm(dim=1).mean().item(), k, place))
            error, k, place = min(tried, key=lambda row: row[0], default=(float("inf"), 0, best_N3))
            if error > best_error * (1 - LEAST_GAIN):
                break
            uses_K[k], best_error, best_N3 = 1, error, place
            chosen_2NHW = chosen_2NHW + maps_K2NHW[k]
            candidates.remove(k)
        self.uses_K.copy_(uses_K)
        centre_N2, mass_N = self.centroid(*chosen_2NHW)
        self._scale(mass_N, place_N3)
        self.weight_F3.copy_(solve(features(centre_N2), place_N3, self._seen(mass_N)[None], start_F3)[0])
        return best_N3

    def _left_out(self, map_2NHW: Tensor, place_N3: Tensor, fold_EN: Tensor, start_F3: Tensor) -> Tensor:
        """Places [N,3], each from a fit without its episode; row e of `fold_EN` marks the frames of episode e."""
        centre_N2, mass_N = self.centroid(*map_2NHW)
        self._scale(mass_N, place_N3)
        seen_N, x_NF = self._seen(mass_N), features(centre_N2)
        weight_EF3 = solve(x_NF, place_N3, seen_N * (1 - fold_EN), start_F3).float()
        place_N3 = torch.einsum("nf,nfd->nd", x_NF, weight_EF3[fold_EN.argmax(0)])
        return torch.lerp(self.mean_3, place_N3, seen_N[:, None])

    def _scale(self, mass_N: Tensor, place_N3: Tensor) -> None:
        self.area.copy_(mass_N.median().clamp_min(SMALLEST_AREA))
        self.mean_3.copy_(place_N3.mean(0))

    def _seen(self, mass_N: Tensor) -> Tensor:
        return (mass_N / (ENOUGH * self.area)).clamp(max=1)


def neighbourhood(map_NKHW: Tensor) -> Tensor:
    """Mean of the 5×5 cells around each cell; linear, so that maps of colours can be added afterwards."""
    return F.avg_pool2d(map_NKHW, 5, stride=1, padding=2)


def solve(x_NF: Tensor, place_N3: Tensor, weight_EN: Tensor, start_F3: Tensor) -> Tensor:
    """Weighted ridge towards `start_F3`, once for every row of `weight_EN`: [E,F,3]."""
    x_NF, weight_EN, start_F3 = x_NF.double(), weight_EN.double(), start_F3.double()
    left_N3 = place_N3.double() - x_NF @ start_F3
    product = x_NF[:, :, None] * torch.cat([x_NF, left_N3], 1)[:, None]
    square_EFF, cross_EF3 = (
        (weight_EN @ product.flatten(1)).unflatten(1, product.shape[1:]).split([x_NF.shape[1], 3], dim=2)
    )
    penalty_F = torch.full((x_NF.shape[1],), PENALTY, dtype=torch.float64)
    penalty_F[0] = 1e-6  # the constant is free
    return start_F3 + torch.linalg.solve(square_EFF + torch.diag(penalty_F), cross_EF3)


def features(centre_N2: Tensor) -> Tensor:
    """[1, x, y, x², y², xy]: a plane seen by a camera, to second order; [N,2] → [N,6]."""
    x, y = centre_N2.unbind(1)
    return torch.stack([torch.ones_like(x), x, y, 0.5 * x * x, 0.5 * y * y, 0.5 * x * y], 1)
