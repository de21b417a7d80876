"""Ridge regression, its penalty chosen on left-out episodes; and one on products of a motion and a posture.

Legend of shape suffixes: M samples, D motion features, P posture coordinates, F = all features, O outputs,
L penalties.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

PENALTIES = tuple(10.0 ** (k / 2) for k in range(-6, 7))
"""Ridge penalties to choose from: 10⁻³ … 10³, for features of about unit size."""


class BilinearRidge(nn.Module):
    """outputs = bias + W [motion, posture, motion ⊗ posture], with `speed` also [motion², |motion|].

    Inputs are expected at about unit size. A joint's motion moves the tool by a Jacobian that depends on the
    posture, so the products carry most of what a linear map lacks, and 200 labels suffice for them. `speed` is for
    outputs that depend on how far, not only where to. Weight and bias are parameters: `fit` sets them in closed
    form, gradients may tune them further.
    """

    def __init__(self, motion: int, posture: int, outputs: int, speed: bool = False) -> None:
        super().__init__()
        self.speed = speed
        features = (1 + motion) * (1 + posture) - 1
        if speed:
            features += motion * (motion + 1) // 2 + 1
        self.weight_FO = nn.Parameter(torch.zeros(features, outputs))
        self.bias_O = nn.Parameter(torch.zeros(outputs))

    def forward(self, motion_MD: Tensor, posture_MP: Tensor) -> Tensor:
        return self.features(motion_MD, posture_MP) @ self.weight_FO + self.bias_O

    def features(self, motion_MD: Tensor, posture_MP: Tensor) -> Tensor:
        one_M1 = motion_MD.new_ones(len(motion_MD), 1)
        left, right = torch.cat([one_M1, motion_MD], 1), torch.cat([one_M1, posture_MP], 1)
        products = (left[:, :, None] * right[:, None, :]).flatten(1)[:, 1:]
        if not self.speed:
            return products
        i, j = torch.triu_indices(motion_MD.shape[1], motion_MD.shape[1])
        # Rounded at zero, so that the gradient stays finite.
        length_M1 = (motion_MD.square().sum(1, keepdim=True) + 0.1).sqrt()
        return torch.cat([products, 0.5 * motion_MD[:, i] * motion_MD[:, j], length_M1], 1)

    @torch.no_grad()
    def fit(
        self,
        motion_MD: Tensor,
        posture_MP: Tensor,
        target_MO: Tensor,
        group_M: Tensor,
        shared_penalty: bool = True,
    ) -> Tensor:
        """Set weight and bias; returns predictions [M, O] for each group made without that group."""
        x_MF = self.features(motion_MD, posture_MP)
        weight_FO, bias_O, held_out_MO = ridge(x_MF, target_MO, group_M, shared_penalty=shared_penalty)
        self.weight_FO.copy_(weight_FO)
        self.bias_O.copy_(bias_O)
        return held_out_MO


def ridge(
    x_MF: Tensor,
    y_MO: Tensor,
    group_M: Tensor,
    penalties: Sequence[float] = PENALTIES,
    shared_penalty: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Weight [F, O], bias [O] and predictions [M, O] for each group made without that group.

    The penalty, one for all outputs or one for each, is that with the least squared error on left-out groups:
    whole episodes, because neighbouring frames are too alike to count as held out. With a single group nothing can
    be left out: the predictions are then those of the fit itself, and the penalty is the middle one.
    """
    x_MF, y_MO = x_MF.double(), y_MO.double()
    groups, outputs = group_M.unique(), torch.arange(y_MO.shape[1])
    weight_LFO, bias_LO = _solutions(x_MF, y_MO, penalties)
    if len(groups) == 1:
        weight_FO, bias_O = weight_LFO[len(penalties) // 2], bias_LO[len(penalties) // 2]
        return weight_FO.float(), bias_O.float(), (x_MF @ weight_FO + bias_O).float()
    held_out_LMO = y_MO.new_empty(len(penalties), *y_MO.shape)
    for group in groups:
        out_M = group_M == group
        without_LFO, without_LO = _solutions(x_MF[~out_M], y_MO[~out_M], penalties)
        held_out_LMO[:, out_M] = x_MF[out_M] @ without_LFO + without_LO[:, None]
    error_LO = (held_out_LMO - y_MO).square().sum(1)
    if shared_penalty:
        error_LO = error_LO.sum(1, keepdim=True).expand_as(error_LO)
    best_O = error_LO.argmin(0)
    weight_FO, bias_O = weight_LFO[best_O, :, outputs].T, bias_LO[best_O, outputs]
    return weight_FO.float(), bias_O.float(), held_out_LMO[best_O, :, outputs].T.float()


def _solutions(x_MF: Tensor, y_MO: Tensor, penalties: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Weights [L,F,O] and biases [L,O] for L penalties, from one eigendecomposition; biases aren't penalised."""
    x_mean_F, y_mean_O = x_MF.mean(0), y_MO.mean(0)
    centred_MF = x_MF - x_mean_F
    size_F, basis_FF = torch.linalg.eigh(centred_MF.T @ centred_MF)
    cross_FO = basis_FF.T @ (centred_MF.T @ (y_MO - y_mean_O))
    shrunk_LF = 1 / (size_F.clamp_min(0) + torch.tensor(penalties, dtype=size_F.dtype)[:, None])
    weight_LFO = basis_FF @ (shrunk_LF[:, :, None] * cross_FO)
    return weight_LFO, y_mean_O - x_mean_F @ weight_LFO
