"""A small network from how joints move to the latent action, where products of motion and posture are too few.

How a motion of joints looks to a camera bends with the posture more than a bilinear map can say: of four tasks'
held-out latent actions that map told 65 % of the variance from 200 labels and 79 % from 800, this one 84 % and 94 %
(docs/results/quality.md).

Legend of shape suffixes: M samples, F features, A latent dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 64
STEPS = 1000
STEPS_A_LABEL = 4
MOST_STEPS = 4000
"""Many labels take more steps to be learned; few are only learned by heart by more (of 200 in 3000 steps: 0.80 of the
variance instead of 0.84)."""

ROWS = 256
"""Rows of a step."""
RATE = 3e-3
DECAY = 0.05
NOISE = 0.05
"""Standard deviation of the noise on features of unit size, which keeps few labels from being learned by heart."""

FOLDS = 4
"""Groups of episodes that are left out in turn."""

SMALLEST_SPREAD = 1e-2
"""Features that vary less in the labels aren't blown up to unit size."""


class MotionNetwork(nn.Module):
    """Features → latent actions before they are bounded. Those further out than the labels' count as at their edge."""

    mean_F: Tensor
    spread_F: Tensor
    limit_F: Tensor

    def __init__(self, features: int, latent: int) -> None:
        super().__init__()
        for name, value in (("mean", 0.0), ("spread", 1.0), ("limit", 3.0)):
            self.register_buffer(f"{name}_F", torch.full((features,), value))
        self.body = nn.Sequential(
            nn.Linear(features, WIDTH),
            nn.SiLU(),
            nn.Linear(WIDTH, WIDTH),
            nn.SiLU(),
            nn.Linear(WIDTH, latent),
        )

    def forward(self, x_MF: Tensor) -> Tensor:
        return self.body(self._scaled(x_MF))

    def fit(self, x_MF: Tensor, latent_MA: Tensor, group_M: Tensor, bound: float, margin: float) -> Tensor:
        """Train on labels; returns bounded latent actions [M, A], those of each episode from a training without it.

        Latent actions lie in [−bound, bound]; `margin` times the labels' largest features are the edge. A single
        episode can't be left out: the returned ones are then those of the training itself.
        """
        self.mean_F.copy_(x_MF.mean(0))
        self.spread_F.copy_(x_MF.std(0) + SMALLEST_SPREAD)
        self.limit_F.copy_(margin * ((x_MF - self.mean_F) / self.spread_F).abs().amax(0))
        scaled_MF, found_MA = self._scaled(x_MF), torch.zeros_like(latent_MA)
        episodes = group_M.unique()
        folds = episodes.chunk(FOLDS) if len(episodes) > 1 else []
        for fold in folds:
            out_M = torch.isin(group_M, fold)
            self._train(scaled_MF[~out_M], latent_MA[~out_M], bound)
            found_MA[out_M] = self._bounded(scaled_MF[out_M], bound)
        self._train(scaled_MF, latent_MA, bound)
        return found_MA if folds else self._bounded(scaled_MF, bound)

    def _scaled(self, x_MF: Tensor) -> Tensor:
        scaled_MF = (x_MF - self.mean_F) / self.spread_F
        return torch.clamp(scaled_MF, -self.limit_F, self.limit_F)

    def _bounded(self, scaled_MF: Tensor, bound: float) -> Tensor:
        with torch.no_grad():
            return torch.tanh(self.body(scaled_MF)) * bound

    @torch.enable_grad()
    def _train(self, x_MF: Tensor, latent_MA: Tensor, bound: float) -> None:
        """From the same start every time, whatever was drawn before."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for layer in self.body:
                if isinstance(layer, nn.Linear):
                    layer.reset_parameters()
            optimiser = torch.optim.AdamW(self.body.parameters(), RATE, weight_decay=DECAY)
            steps = min(max(STEPS, STEPS_A_LABEL * len(x_MF)), MOST_STEPS)
            rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps)
            for _ in range(steps):
                rows = torch.randint(len(x_MF), (ROWS,))
                noisy = x_MF[rows] + NOISE * torch.randn(ROWS, x_MF.shape[1])
                loss = (torch.tanh(self.body(noisy)) * bound - latent_MA[rows]).square().mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                rate.step()
