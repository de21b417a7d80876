"""MaskGIT decoding of one frame against the exact cache (Chang et al., arXiv 2202.04200; Genie, section 2.2).

K refinement steps reveal the frame's tokens little by little, each step seeing what is revealed; one commit pass
then stores the finished frame. The paper recomputes all frames at each of 25 steps; here a frame costs K + 1
passes over itself alone.

Legend of shape suffixes: B batch, N tokens of a frame, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robosim.world_model.dynamics import Dynamics
from robosim.world_model.noise import row_uniform
from robosim.world_model.st_transformer import TemporalCache


@dataclass
class SamplingConfig:
    steps: int = 4
    """K, refinement steps a frame."""
    temperature: float = 0.5
    """Divides the logits; 0 takes the most likely token."""
    order: Literal["random", "confidence"] = "random"
    """Which tokens are revealed first."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.temperature < 0:
            raise ValueError(f"sampling needs steps ≥ 1 and temperature ≥ 0, got {self}")


def sample(logits: Tensor, uniform: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Draw from softmax(logits [..., V] / temperature) by inverting its distribution at `uniform` [...].

    Returns the draw int64 [...] and its probability.
    """
    if temperature == 0:
        probability, draw = logits.softmax(-1).max(-1)
        return draw, probability
    probabilities = (logits / temperature).softmax(-1)
    draw = torch.searchsorted(probabilities.cumsum(-1), uniform[..., None].contiguous())
    draw = draw.clamp(max=logits.shape[-1] - 1)
    return draw[..., 0], probabilities.gather(-1, draw)[..., 0]


def sample_tokens(
    dynamics: Dynamics, logits: list[Tensor], uniform_BNC: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Tokens int64 [B, N] and their probabilities from what `Dynamics.logits` returns."""
    draws = [sample(each, uniform_BNC[..., c], temperature) for c, each in enumerate(logits)]
    confidence = torch.stack([probability for _, probability in draws]).prod(0)
    if len(draws) == 1:
        return draws[0][0], confidence
    digits = torch.stack([draw for draw, _ in draws], -1)
    return (digits * dynamics.fsq.basis).sum(-1), confidence


@torch.no_grad()
def decode_frame(
    dynamics: Dynamics,
    cache: TemporalCache,
    latent_BA: Tensor,
    draft_BNF: Tensor | None,
    generators: Sequence[torch.Generator],
    sampling: SamplingConfig,
) -> Tensor:
    """Decode the next frame's tokens int64 [B, N] and commit them to `cache`; one generator a row."""
    rows, count = len(latent_BA), dynamics.num_tokens
    device = latent_BA.device
    tokens = torch.zeros(rows, count, dtype=torch.long, device=device)
    hidden = torch.ones(rows, count, dtype=torch.bool, device=device)
    has_past = torch.ones(rows, dtype=torch.bool, device=device)
    digits = dynamics.fsq.dim
    for k in range(sampling.steps):
        noise = row_uniform(generators, (count, digits + 1)).to(device)
        logits = dynamics.step(tokens, hidden, latent_BA, draft_BNF, has_past, cache, commit=False)
        drawn, confidence = sample_tokens(dynamics, logits, noise[..., :digits], sampling.temperature)
        tokens = torch.where(hidden, drawn, tokens)
        left = int(count * math.cos((k + 1) / sampling.steps * math.pi / 2))
        rank = noise[..., -1] if sampling.order == "random" else confidence
        # Revealed tokens stay; of the hidden ones, the lowest ranks are hidden again.
        rank = rank.masked_fill(~hidden, 2.0)
        again = torch.zeros_like(hidden).scatter_(1, rank.argsort(1)[:, :left], True)
        hidden = hidden & again
    dynamics.step(tokens, torch.zeros_like(hidden), latent_BA, draft_BNF, has_past, cache, commit=True)
    return tokens
