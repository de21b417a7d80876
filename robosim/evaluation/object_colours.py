"""Which colours are the object's in the true frames of a task, found by where they lie.

Tool, object and goal are known in metres. Colours whose middle follows one of them in the picture tell where in the
picture all places on the table are. A colour is the object's if it is much denser around the object than elsewhere and
than around the goal, and doesn't follow the tool: those are the arm's. So a rope counts from end to end, though only
its end is labelled.

Legend of shape suffixes: N frames, H/W pixels or cells, K colours, F features of a place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from robosim.adapter.colours import colour_codebook, memberships
from robosim.adapter.labels import STATE_COLUMNS
from robosim.adapter.landmark import Landmark, neighbourhood
from robosim.world_model.metrics import unit

COLOURS = 32
"""Of a task's frames."""

AROUND = 0.14
"""Radius of the discs around object and goal, of half the picture's side."""

DENSER = 3.0
"""How many times as dense as in the whole picture an object's colour is around it."""

NEARER = 2.0
"""How many times as dense as around the goal."""

LEAST_DENSITY = 0.002
"""Share of the disc that a colour must have: less can't be told."""

FOLLOWS = 0.6
"""Share of its spread by which the middle of an arm's colour is missed, at most, if the tool's place predicts it."""

LOCATES = 0.35
"""The same of a colour that says where in the picture places are."""

OFTEN = 0.5
"""Share of the frames in which a colour must be seen for its middle to mean something."""

FAINT = 0.5
"""Cells of a colour that don't count as seeing it, at its median."""

RIDGE = 0.03
"""Of the regressions from places to the picture, times the number of frames."""

COMPANY = 3
"""Pixels of the 3 × 3 around one, itself included, that must be the object's: single ones elsewhere are noise."""


@dataclass(frozen=True)
class ObjectColours:
    """The colours of a task's frames, and which of them are the object's."""

    codebook_K3: Tensor
    is_object_K: Tensor
    """Bool [K]"""

    def mask(self, frames: Tensor) -> Tensor:
        """Bool [N,H,W]: the object's pixels in frames uint8 [N,H,W,3]."""
        masks = []
        for part in frames.split(64):
            mask_NHW = self.is_object_K[owners(part, self.codebook_K3)]
            around = F.avg_pool2d(mask_NHW[:, None].float(), 3, 1, 1, divisor_override=1)[:, 0]
            masks.append(mask_NHW & (around >= COMPANY))
        return torch.cat(masks)


def owners(frames: Tensor, codebook_K3: Tensor) -> Tensor:
    """The nearest colour of every pixel in frames uint8 [N,H,W,3], of equal ones the first: int64 [N,H,W]."""
    return (2 * unit(frames) @ codebook_K3.T - codebook_K3.square().sum(1)).argmax(-1)


def find_object_colours(frames: Tensor, places: np.ndarray, episode_N: np.ndarray) -> ObjectColours | None:
    """Of true `frames` uint8 [N,H,W,3] of one task, with `places` [N,9] (tool, object, goal; metres) and the episode of
    each. None where no colour is the object's, or none says where in the picture things are."""
    codebook_K3 = colour_codebook(frames, COLOURS, seed=0)
    middles = [middle(member_NHW) for member_NHW in memberships(frames, codebook_K3).unbind(1)]
    follows = {
        name: [follow(places[:, columns], *seen, episode_N) for seen in middles]
        for name, columns in STATE_COLUMNS.items()
    }
    error, name, k = min((follows[name][k], name, k) for name in ("object", "goal") for k in range(COLOURS))
    if error > LOCATES:
        return None
    weights = regress(place_features(places[:, STATE_COLUMNS[name]]), *middles[k])
    owner_NHW = torch.cat([owners(part, codebook_K3) for part in frames.split(64)]).numpy()
    discs = {
        name: disc(place_features(places[:, STATE_COLUMNS[name]]) @ weights, owner_NHW.shape[1:])
        for name in ("object", "goal")
    }
    everywhere_K = density(owner_NHW, np.ones_like(discs["goal"]))
    object_K = density(owner_NHW, discs["object"] & ~discs["goal"])
    goal_K = density(owner_NHW, discs["goal"] & ~discs["object"])
    tool, thing = np.array(follows["tool"]), np.array(follows["object"])
    is_object_K = (
        (object_K >= LEAST_DENSITY)
        & (object_K > DENSER * everywhere_K)
        & (object_K > NEARER * goal_K)
        & ~((tool < FOLLOWS) & (tool < thing))
    )
    return ObjectColours(codebook_K3, torch.from_numpy(is_object_K)) if is_object_K.any() else None


def middle(member_NHW: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Middle [N,2] of a colour in each picture (−1 to 1), and whether it is seen there: float64 [N], 0 or 1."""
    centre_N2, mass_N = Landmark(1).centroid(member_NHW, neighbourhood(member_NHW[:, None])[:, 0])
    seen_N = mass_N > 0.3 * mass_N.median().clamp_min(FAINT)
    return centre_N2.double().numpy(), seen_N.double().numpy()


def place_features(place_N3: np.ndarray) -> np.ndarray:
    """[1, x, y, z, x², y², xy] in units of 30 cm: a camera to second order; [N,3] metres → [N,7]."""
    x, y, z = ((place_N3 - [0.5, 0.0, 0.1]) / 0.3).T
    return np.stack([np.ones_like(x), x, y, z, x * x, y * y, x * y], axis=1)


def regress(x_NF: np.ndarray, centre_N2: np.ndarray, weight_N: np.ndarray) -> np.ndarray:
    """Weights [F,2] of a ridge regression; the constant is free."""
    penalty = np.diag([1e-9, *[RIDGE * len(x_NF)] * (x_NF.shape[1] - 1)]) / x_NF.shape[1]
    weighted = x_NF * weight_N[:, None]
    return np.linalg.solve(weighted.T @ x_NF + penalty, weighted.T @ centre_N2)


def follow(place_N3: np.ndarray, centre_N2: np.ndarray, seen_N: np.ndarray, episode_N: np.ndarray) -> float:
    """How badly a colour's middle follows a place: its error in left-out episodes / its own spread; infinite for a
    colour that is seldom seen or never moves."""
    if seen_N.mean() < OFTEN:
        return np.inf
    x_NF, predicted = place_features(place_N3), np.zeros_like(centre_N2)
    for episode in np.unique(episode_N):
        left_out = episode_N == episode
        predicted[left_out] = x_NF[left_out] @ regress(x_NF, centre_N2, seen_N * ~left_out)
    usual = (centre_N2 * seen_N[:, None]).sum(0) / seen_N.sum()
    error, spread = (
        (np.linalg.norm(centre_N2 - other, axis=1) * seen_N).sum() for other in (predicted, usual)
    )
    return float(error / spread) if spread > 1e-6 * seen_N.sum() else np.inf


def disc(centre_N2: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Bool [N,H,W]: the pixels around a point of each picture."""
    y, x = ((np.arange(side) + 0.5) / side * 2 - 1 for side in size)
    away = np.square(y[:, None] - centre_N2[:, 1, None, None]) + np.square(x - centre_N2[:, 0, None, None])
    return away < AROUND**2


def density(owner_NHW: np.ndarray, where_NHW: np.ndarray) -> np.ndarray:
    """Share [K] that each colour has of the pixels `where_NHW`."""
    return np.bincount(owner_NHW[where_NHW], minlength=COLOURS) / max(1, where_NHW.sum())
