"""MaskGIT decoding of one frame against the exact cache (Chang et al., arXiv 2202.04200; Genie, section 2.2).

K refinement steps reveal the frame's tokens little by little, each step seeing what is revealed; one commit pass
then stores the finished frame. The paper recomputes all frames at each of 25 steps; here a frame costs K + 1
passes over itself alone.

With `expected=True` the frame that is shown, and the next draft with it, is decoded from the *expected* code of each
token, Σ p(code) · code, where the dynamics' own past keeps the tokens. One code is a step of a grid, and what is
rounded to it at every frame walks away from where the motion led; the expectation keeps the part between the steps.

Legend of shape suffixes: B batch, N tokens of a frame, n some of them, K steps, C digits, V vocabulary, E dimensions of
a code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robosim.world_model.dynamics import Digits, Dynamics
from robosim.world_model.noise import row_uniform
from robosim.world_model.temporal_cache import TemporalCache


@dataclass
class SamplingConfig:
    steps: int = 4
    """K, refinement steps a frame; as many as the frame has tokens at most."""
    temperature: float = 0.5
    """Divides the logits; 0 takes the most likely token."""
    order: Literal["random", "confidence"] = "random"
    """Which tokens are revealed first."""
    expected: bool = False
    """Decode frames from each token's expected code; false decodes the tokens themselves, as the paper does."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.temperature < 0:
            raise ValueError(f"sampling needs steps ≥ 1 and temperature ≥ 0, got {self}")


def reveal_counts(num_tokens: int, steps: int) -> list[int]:
    """How many tokens each step reveals: MaskGIT's cosine, with at least one a step, so that no step is for nothing."""
    counts, hidden = [], num_tokens
    for k in range(1, steps + 1):
        left = int(num_tokens * math.cos(k / steps * math.pi / 2))
        left = max(0, min(left, hidden - 1))
        if hidden > left:
            counts.append(hidden - left)
        hidden = left
    return counts


def sample(logits: Tensor, uniform: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Draw from softmax(logits [..., V] / temperature) by inverting its distribution at `uniform` [...] in [0, 1).

    Returns the draw int64 [...] and its probability.
    """
    if temperature == 0:
        probability, draw = logits.softmax(-1).max(-1)
        return draw, probability
    probabilities = (logits / temperature).softmax(-1)
    draw = torch.searchsorted(probabilities.cumsum(-1), uniform[..., None].contiguous(), right=True)
    draw = draw.clamp(max=logits.shape[-1] - 1)
    return draw[..., 0], probabilities.gather(-1, draw)[..., 0]


def sample_tokens(
    digits: Digits, logits: list[Tensor], uniform_BnC: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Tokens int64 [B, n] and their probabilities from what `Dynamics.logits` returns."""
    draws = [sample(each, uniform_BnC[..., c], temperature) for c, each in enumerate(logits)]
    if len(draws) == 1:
        return draws[0]
    return digits.join([draw for draw, _ in draws]), torch.stack([p for _, p in draws]).prod(0)


Expect = Callable[[list[Tensor]], Tensor]
"""Logits of n tokens, as `Dynamics.logits` → their expected codes [B, n, E]."""

Predict = Callable[[Tensor, Tensor, Tensor], list[Tensor]]
"""(tokens [B, N], hidden bool [B, N], at int64 [B, n]) → logits of the tokens `at`, as `Dynamics.logits`."""


def refine(
    predict: Predict,
    digits: Digits,
    noise_BKNC: Tensor,
    sampling: SamplingConfig,
    expect: Expect | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The sampling rule by itself: K calls of `predict`, each seeing the tokens revealed before.

    `noise_BKNC`: uniform, one number a digit and one more for the order. Returns the tokens int64 [B, N] and, with
    `expect`, each token's expected code [B, N, E] at the time it was revealed; the temperature doesn't count for it.
    """
    rows, _, count, _ = noise_BKNC.shape
    tokens_BN = torch.zeros(rows, count, dtype=torch.long, device=noise_BKNC.device)
    hidden_BN = torch.ones_like(tokens_BN, dtype=torch.bool)
    # The hidden tokens, the next to be revealed in front; by confidence that is known only when they are drawn.
    rest_Bn = noise_BKNC[:, 0, :, -1].argsort(1)
    codes_BNE = None
    for k, revealed in enumerate(reveal_counts(count, sampling.steps)):
        at_Bn = rest_Bn if sampling.order == "confidence" else rest_Bn[:, :revealed]
        uniform_BnC = noise_BKNC[:, k].gather(1, at_Bn[..., None].expand(-1, -1, noise_BKNC.shape[-1]))
        logits = predict(tokens_BN, hidden_BN, at_Bn)
        drawn_Bn, probability_Bn = sample_tokens(digits, logits, uniform_BnC, sampling.temperature)
        if expect is not None:
            # The last call that asks for a token decides: with order=confidence that is the one which reveals it.
            codes_BnE = expect(logits)
            if codes_BNE is None:
                codes_BNE = codes_BnE.new_zeros(rows, count, codes_BnE.shape[-1])
            codes_BNE = codes_BNE.scatter(1, at_Bn[..., None].expand_as(codes_BnE), codes_BnE)
        if sampling.order == "confidence":
            surest = probability_Bn.argsort(1, descending=True)
            rest_Bn, drawn_Bn = at_Bn.gather(1, surest), drawn_Bn.gather(1, surest)
        now_Bn, rest_Bn = rest_Bn[:, :revealed], rest_Bn[:, revealed:]
        tokens_BN = tokens_BN.scatter(1, now_Bn, drawn_Bn[:, :revealed])
        hidden_BN = hidden_BN.scatter(1, now_Bn, False)
    return tokens_BN, codes_BNE


def frame_noise(
    dynamics: Dynamics, generators: Sequence[torch.Generator], sampling: SamplingConfig
) -> Tensor:
    """What `refine` needs for one frame, float32 [B, K, N, C + 1], each row from its own generator."""
    shape = sampling.steps, dynamics.num_tokens, len(dynamics.digits.levels) + 1
    return row_uniform(generators, shape).to(dynamics.mask_token.device)


@torch.no_grad()
def refine_frame(
    dynamics: Dynamics,
    cache: TemporalCache,
    latent_BA: Tensor,
    draft_BNF: Tensor | None,
    generators: Sequence[torch.Generator],
    sampling: SamplingConfig,
    expect: Expect | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The next frame after the past in `cache`, as `refine` returns it; one generator a row."""
    has_past = torch.ones(len(latent_BA), dtype=torch.bool, device=latent_BA.device)

    def predict(tokens_BN: Tensor, hidden_BN: Tensor, at_Bn: Tensor) -> list[Tensor]:
        frame = tokens_BN, hidden_BN, latent_BA, draft_BNF, has_past
        return dynamics.step(*frame, cache, commit=False, at_Bn=at_Bn)

    noise = frame_noise(dynamics, generators, sampling)
    return refine(predict, dynamics.digits, noise, sampling, expect if sampling.expected else None)


@torch.no_grad()
def commit_frame(
    dynamics: Dynamics,
    cache: TemporalCache,
    tokens_BN: Tensor,
    latent_BA: Tensor | None,
    draft_BNF: Tensor | None,
) -> None:
    """Add a finished frame to the past; `latent_BA` led to it, None for the first, which has no draft either."""
    rows, device = len(tokens_BN), tokens_BN.device
    has_past = torch.full((rows,), latent_BA is not None, device=device)
    if latent_BA is None:
        latent_BA = torch.zeros(rows, dynamics.latent_dim, device=device)
        draft_BNF = torch.zeros(*tokens_BN.shape, dynamics.draft_features, device=device)
    hidden_BN = torch.zeros_like(tokens_BN, dtype=torch.bool)
    dynamics.step(tokens_BN, hidden_BN, latent_BA, draft_BNF, has_past, cache, commit=True)
