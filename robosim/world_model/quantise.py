"""Quantisers: finite scalar quantisation and vector quantisation.

Both turn features into codes and codes into tokens by the same methods: `forward` (codes with a straight-through
gradient, and the quantiser's loss), `tokens`, `codes` and `normalised`.

Legend of shape suffixes: B any leading axes, M rows, C code dimensions, K codes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robosim.ranks import gather_over_ranks, sum_over_ranks


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
        self.num_codes, self.dim = math.prod(levels), len(levels)
        self.digit_levels = tuple(levels)

    def bound(self, z_BC: Tensor) -> Tensor:
        """Squash to a range that rounds to exactly `levels[c]` integers, centred for odd counts."""
        half = (self.levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        return torch.tanh(z_BC + torch.atanh(offset / half)) * half - offset

    def forward(self, z_BC: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise to values in [−1, 1]; the gradient passes straight through the rounding. The loss is zero."""
        bounded = self.bound(z_BC)
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / (self.levels // 2), z_BC.new_zeros(())

    def tokens(self, z_BC: Tensor) -> Tensor:
        """Features → tokens int64 [...]."""
        return self.index(self(z_BC)[0])

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


FAIR_SHARE = 0.1
"""A code that stands for less than this share of its fair part of the features, 1 / K, is dead."""


class VectorQuantiser(nn.Module):
    """Vector quantisation (van den Oord et al., arXiv 1711.00937), with codes that can't collapse.

    A code is the moving average of the features that it stands for (there, appendix A.1), so no gradient moves it.
    A dead code is put onto one of the features of the batch that are coded worst. At first all codes are dead: the
    first batch places them. Everything follows from the buffers and the whole batch of all processes.
    """

    codebook: Tensor
    usage: Tensor
    total: Tensor

    def __init__(
        self,
        num_codes: int,
        dim: int,
        normalise: bool = True,
        commitment: float = 0.02,
        decay: float = 0.9,
    ) -> None:
        """With `normalise` features are scaled to a mean square of 1, so that only their direction counts.

        The paper's commitment of 0.25 outweighs pixel errors of a few thousandths by far and freezes the features;
        slower codes (0.98) lag behind them, and half of them fall out of use.
        """
        super().__init__()
        self.num_codes, self.dim, self.digit_levels = num_codes, dim, (num_codes,)
        self.normalise, self.commitment, self.decay = normalise, commitment, decay
        self.register_buffer("codebook", torch.randn(num_codes, dim))
        self.register_buffer("usage", torch.zeros(num_codes))
        self.register_buffer("total", torch.zeros(num_codes, dim))

    def forward(self, z_BC: Tensor, counts_B: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Codes with a straight-through gradient, and the commitment loss.

        `counts_B`, bool: which features the loss and the codebook look at; all by default.
        """
        z_BC = self.normalised(z_BC)
        counted_MC = (z_BC if counts_B is None else z_BC[counts_B]).reshape(-1, self.dim)
        if self.training:
            self._revive(counted_MC.detach())
        tokens_B = self._nearest(z_BC)
        code_BC = self.codebook[tokens_B]
        error_B = (z_BC - code_BC).square().mean(-1)
        if counts_B is not None:
            error_B = error_B * counts_B
        loss = self.commitment * error_B.sum() / max(1, len(counted_MC))
        if self.training:
            counted = tokens_B if counts_B is None else tokens_B[counts_B]
            self._follow(counted_MC.detach(), counted.flatten())
        return z_BC + (code_BC - z_BC).detach(), loss

    def normalised(self, z_BC: Tensor) -> Tensor:
        """Features on the scale of the codes."""
        return F.rms_norm(z_BC.float(), (self.dim,)) if self.normalise else z_BC.float()

    def tokens(self, z_BC: Tensor) -> Tensor:
        """Features → tokens int64 [...]."""
        return self._nearest(self.normalised(z_BC))

    def codes(self, tokens_B: Tensor) -> Tensor:
        """Tokens int64 [...] → codes float32 [..., C]."""
        return self.codebook[tokens_B]

    @torch.no_grad()
    def _nearest(self, z_BC: Tensor) -> Tensor:
        # In bfloat16 the distances of near codes are equal.
        with torch.autocast(z_BC.device.type, enabled=False):
            product = z_BC @ self.codebook.T
            return (self.codebook.square().sum(-1) - 2 * product).argmin(-1)

    @torch.no_grad()
    def _revive(self, z_MC: Tensor) -> None:
        """Move dead codes onto the worst-coded features, each at another one."""
        features = sum_over_ranks(torch.tensor(float(len(z_MC)), device=z_MC.device))
        fair = features / self.num_codes
        dead = self.usage < FAIR_SHARE * fair
        if features == 0 or not dead.any():
            return
        error_M = (z_MC - self.codebook[self._nearest(z_MC)]).square().sum(-1)
        worst = error_M.argsort(descending=True)[: self.num_codes]
        # Each process offers as many, so that the offers can be gathered; −1 marks those that are none.
        offers = torch.full((self.num_codes, 1 + self.dim), -1.0, device=z_MC.device)
        offers[: len(worst)] = torch.cat([error_M[worst, None], z_MC[worst]], 1)
        offers = gather_over_ranks(offers)
        offers = offers[offers[:, 0] >= 0]
        offers = offers[offers[:, 0].argsort(descending=True, stable=True)][: self.num_codes]
        places = dead.nonzero()[:, 0][: len(offers)]
        # Spread over the offers: the very worst features may all be alike.
        spread = torch.arange(len(places), device=z_MC.device) * len(offers) // max(1, len(places))
        self.codebook[places] = offers[spread, 1:]
        self.usage[places] = fair
        self.total[places] = fair * self.codebook[places]

    @torch.no_grad()
    def _follow(self, z_MC: Tensor, tokens_M: Tensor) -> None:
        """Move each code towards the mean of the features that chose it."""
        chosen_MK = F.one_hot(tokens_M, self.num_codes).to(z_MC.dtype)
        with torch.autocast(z_MC.device.type, enabled=False):
            sums = chosen_MK.T @ torch.cat([torch.ones_like(z_MC[:, :1]), z_MC], 1)
        sums = sum_over_ranks(sums)
        self.usage.lerp_(sums[:, 0], 1 - self.decay)
        self.total.lerp_(sums[:, 1:], 1 - self.decay)
        self.codebook.copy_(self.total / self.usage.clamp(min=1e-6)[:, None])


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
