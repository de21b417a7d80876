"""Quantisers: finite scalar quantisation and vector quantisation.

Legend of shape suffixes: B any leading axes, C code dimensions, K codes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FSQ(nn.Module):
    """Finite scalar quantisation (Mentzer et al., arXiv 2309.15505): round each of a few bounded dimensions.

    No codebook is learned, so none can collapse. A code is a mixed-radix number of its digits, the first
    dimension being the fastest.
    """

    levels: Tensor
    basis: Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise ValueError(f"FSQ levels must all be at least 2, got {levels}")
        sizes = torch.tensor(levels)
        self.register_buffer("levels", sizes, persistent=False)
        self.register_buffer("basis", torch.cumprod(sizes, 0) // sizes, persistent=False)
        self.num_codes = int(sizes.prod())
        self.dim = len(levels)

    def bound(self, z_BC: Tensor) -> Tensor:
        """Squash to a range that rounds to exactly `levels[c]` integers, centred for odd counts."""
        half = (self.levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        return torch.tanh(z_BC + torch.atanh(offset / half)) * half - offset

    def forward(self, z_BC: Tensor) -> Tensor:
        """Quantise to values in [−1, 1]; the gradient passes straight through the rounding."""
        bounded = self.bound(z_BC)
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / (self.levels // 2)

    def normalised(self, z_BC: Tensor) -> Tensor:
        """The bounded value before rounding, on the scale of the codes."""
        return self.bound(z_BC) / (self.levels // 2)

    def digits(self, codes_BC: Tensor) -> Tensor:
        """Quantised values → digits int64 [..., C], digit c in [0, levels[c])."""
        half = self.levels // 2
        return (codes_BC * half + half).round().long()

    def index(self, codes_BC: Tensor) -> Tensor:
        """Quantised values → token int64 [...]."""
        return (self.digits(codes_BC) * self.basis).sum(-1)

    def token_digits(self, tokens_B: Tensor) -> Tensor:
        """Tokens int64 [...] → digits int64 [..., C]."""
        return (tokens_B[..., None] // self.basis) % self.levels

    def codes(self, tokens_B: Tensor) -> Tensor:
        """Tokens int64 [...] → quantised values float32 [..., C]."""
        half = self.levels // 2
        return (self.token_digits(tokens_B) - half) / half


class VectorQuantiser(nn.Module):
    """VQ (van den Oord et al., arXiv 1711.00937) with the commitment loss, as in Genie.

    `forward` returns the nearest codes (straight-through), their indices and the loss.
    """

    def __init__(self, num_codes: int, dim: int, commitment: float = 0.25) -> None:
        super().__init__()
        self.codebook = nn.Embedding(num_codes, dim)
        nn.init.uniform_(self.codebook.weight, -1.0, 1.0)
        self.commitment = commitment

    def forward(self, z_BC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        index_B = torch.cdist(z_BC.flatten(0, -2), self.codebook.weight).argmin(-1).view(z_BC.shape[:-1])
        code_BC = self.codebook(index_B)
        loss = F.mse_loss(code_BC, z_BC.detach()) + self.commitment * F.mse_loss(z_BC, code_BC.detach())
        return z_BC + (code_BC - z_BC).detach(), index_B, loss


def kmeans(points_BC: Tensor, num_codes: int, seed: int, iterations: int = 30) -> Tensor:
    """Lloyd's algorithm from k-means++ starts; returns centres [K, C].

    The eight playable codes of a continuous latent action are such centres.
    """
    generator = torch.Generator().manual_seed(seed)
    centres = points_BC[torch.randint(len(points_BC), (1,), generator=generator)]
    while len(centres) < num_codes:
        distance = torch.cdist(points_BC, centres).min(1).values.square()
        nxt = torch.multinomial(distance + 1e-12, 1, generator=generator)
        centres = torch.cat([centres, points_BC[nxt]])
    for _ in range(iterations):
        nearest = torch.cdist(points_BC, centres).argmin(1)
        member = F.one_hot(nearest, num_codes).to(points_BC.dtype)
        count = member.sum(0)[:, None]
        centres = torch.where(count > 0, member.T @ points_BC / count.clamp(min=1), centres)
    return centres
