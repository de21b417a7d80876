"""Dynamics: the tokens of the next frame from the past frames' tokens and latent actions.

MaskGIT over a spatiotemporal transformer (Genie, arXiv 2402.15391, section 2.1), with two changes. A share of the
frames is left unmasked in training, because at play every past frame is known. And with `draft=True` each frame's
input carries a draft of that frame (see `draft.py`); `draft=False` is the paper's form.

Legend of shape suffixes: B batch, T time, N tokens of a frame, D channels, C digits of a token, A latent action
dimensions, V vocabulary, F draft features, n some of a frame's tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robosim.checkpoint import ONLY_TRAINING
from robosim.world_model.draft_prior import DraftPrior
from robosim.world_model.noise import sample_uniform
from robosim.world_model.st_transformer import STConfig, STTransformer
from robosim.world_model.temporal_cache import TemporalCache


@dataclass
class DynamicsConfig:
    transformer: STConfig = field(default_factory=STConfig)
    draft: bool = True
    """Draft-and-correct; false is the paper's plain MaskGIT."""
    draft_prior: bool = False
    """With `draft`: logits start from it, the likelier a code the nearer it lies (see `draft_prior.py`)."""
    injection: Literal["add", "prepend", "modulate"] = "add"
    """How the latent action enters its frame. add: added to every token's vector (Genie); prepend: as one more
    location of the frame; modulate: scales and shifts what every norm gives out."""
    prediction: Literal["codes", "digits"] = "codes"
    """codes: one softmax over the vocabulary; digits: one softmax an FSQ digit."""
    mask_schedule: Literal["cosine", "uniform", "whole"] = field(default="cosine", metadata=ONLY_TRAINING)
    """Rate at which a frame's tokens are hidden. cosine: cos(π u / 2), u ~ U(0, 1) (MaskGIT); uniform: U(0.5, 1)
    (Genie); whole: 1, all that a single refinement step ever meets."""
    clean_share: float = field(default=0.35, metadata=ONLY_TRAINING)
    """Share of frames without a mask."""
    corruption: float = field(default=0.0, metadata=ONLY_TRAINING)
    """Up to this share of a frame's visible tokens is replaced, as errors at play would: by the draft's where there
    is one in FSQ digits, else by any."""

    @property
    def has_prior(self) -> bool:
        return self.draft and self.draft_prior


MASK_RATES = {
    "cosine": lambda u: torch.cos(u * torch.pi / 2),
    "uniform": lambda u: (1 + u) / 2,
    "whole": torch.ones_like,
}
"""`mask_schedule` → the rate at u ~ U(0, 1)."""


class Digits:
    """Tokens as mixed-radix numbers, the first digit being the fastest; one level makes the token its own digit."""

    def __init__(self, levels: tuple[int, ...]) -> None:
        self.levels = levels
        self.bases = tuple(math.prod(levels[:c]) for c in range(len(levels)))
        self.num_codes = math.prod(levels)

    def split(self, tokens_B: Tensor) -> list[Tensor]:
        """Tokens int64 [...] → one int64 [...] a digit."""
        if len(self.levels) == 1:
            return [tokens_B]
        return [tokens_B // base % level for base, level in zip(self.bases, self.levels, strict=True)]

    def join(self, digits: list[Tensor]) -> Tensor:
        """The inverse of `split`."""
        return torch.stack([digit * base for digit, base in zip(digits, self.bases, strict=True)]).sum(0)


class Dynamics(nn.Module):
    """Predicts masked tokens. Frame t's input: its visible tokens, its draft, and the action that led to it."""

    def __init__(
        self,
        config: DynamicsConfig,
        levels: tuple[int, ...],
        num_tokens: int,
        latent_dim: int,
        codes_VC: Tensor,
    ) -> None:
        """`levels`: of the tokenizer's digits, (V,) where it has none; `codes_VC`: all its codes, in order."""
        super().__init__()
        dim, code_dim = config.transformer.dim, codes_VC.shape[1]
        self.config, self.num_tokens, self.latent_dim = config, num_tokens, latent_dim
        self.digits, self.draft_features = Digits(levels), 2 * code_dim
        self.embed_digits = nn.ModuleList(nn.Embedding(level, dim) for level in levels)
        self.mask_token = nn.Parameter(torch.randn(dim) * 0.02)
        self.embed_latent = nn.Linear(latent_dim, dim)
        self.no_action = nn.Parameter(torch.randn(dim) * 0.02)
        if config.draft:
            self.embed_draft = nn.Linear(self.draft_features, dim)
        locations = num_tokens + (config.injection == "prepend")
        self.body = STTransformer(config.transformer, locations, modulated=config.injection == "modulate")
        self.head = nn.Linear(dim, self.digits.num_codes if config.prediction == "codes" else sum(levels))
        if config.has_prior:
            self.draft_prior = DraftPrior(codes_VC, dim)
            for parameter in self.head.parameters():  # the draft alone, to begin with
                nn.init.zeros_(parameter)

    def embed(
        self,
        tokens_BTN: Tensor,
        mask_BTN: Tensor,
        latent_BTA: Tensor,
        draft_BTNF: Tensor | None,
        has_past_BT: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        """The body's input [B, T, N, D] (with `prepend` N + 1 locations) and its condition [B, T, D] if it takes one.

        `latent_BTA[:, t]` and the draft are those that led to frame t. Where `has_past_BT` is false (the first frame
        of a clip or an episode) neither is looked at.
        """
        dtype, has_past = self.mask_token.dtype, has_past_BT[..., None]
        digits = zip(self.embed_digits, self.digits.split(tokens_BTN), strict=True)
        x = torch.stack([embed(digit) for embed, digit in digits]).sum(0)
        x = torch.where(mask_BTN[..., None], self.mask_token, x)
        if self.config.draft:
            assert draft_BTNF is not None
            x = x + self.embed_draft(draft_BTNF.to(dtype)) * has_past[..., None]
        action_BTD = torch.where(has_past, self.embed_latent(latent_BTA.to(dtype)), self.no_action)
        if self.config.injection == "modulate":
            return x, F.silu(action_BTD)
        if self.config.injection == "prepend":
            return torch.cat([action_BTD[:, :, None].to(x.dtype), x], 2), None
        return x + action_BTD[:, :, None], None

    def of_tokens(self, hidden: Tensor) -> Tensor:
        """The body's output [..., N or N + 1, D] without the location of the action."""
        return hidden[..., -self.num_tokens :, :]

    def logits(self, x: Tensor, draft: Tensor | None) -> list[Tensor]:
        """[..., D] and the tokens' drafts [..., F] → one float32 [..., V] for prediction=codes, one [..., level] a
        digit for prediction=digits."""
        out = self.head(x).float()
        levels = self.digits.levels if self.config.prediction == "digits" else (self.digits.num_codes,)
        logits = list(out.split(levels, -1))
        if not self.config.has_prior:
            return logits
        assert draft is not None
        return [a + b for a, b in zip(logits, self.draft_prior(x, draft, levels), strict=True)]

    def targets(self, tokens: Tensor) -> list[Tensor]:
        return [tokens] if self.config.prediction == "codes" else self.digits.split(tokens)

    def training_mask(self, noise_seed_B: Tensor, time: int) -> Tensor:
        """Bool [B, T, N]: hidden tokens. The first frame is always visible."""
        kind_rate = sample_uniform(noise_seed_B, (2, time, 1), salt=2)
        rate_BT1 = MASK_RATES[self.config.mask_schedule](kind_rate[:, 1])
        rate_BT1 = torch.where(kind_rate[:, 0] < self.config.clean_share, 0.0, rate_BT1)
        mask = sample_uniform(noise_seed_B, (time, self.num_tokens), salt=3) < rate_BT1
        mask[:, 0] = False
        return mask

    def corrupt(self, tokens_BTN: Tensor, draft_BTNF: Tensor | None, noise_seed_B: Tensor) -> Tensor:
        """Replace a few visible tokens, at a rate of its own for every frame; the first frame stays as it is."""
        time = tokens_BTN.shape[1]
        rate = sample_uniform(noise_seed_B, (time, 1), salt=4) * self.config.corruption
        hit = sample_uniform(noise_seed_B, (time, self.num_tokens), salt=5) < rate
        hit[:, 0] = False
        levels = self.digits.levels
        if draft_BTNF is not None and len(levels) > 1:
            drafted = draft_BTNF[..., len(levels) :].unbind(-1)
            wrong = self.digits.join(
                [
                    (value * (level // 2) + level // 2).round().clamp(0, level - 1).long()
                    for value, level in zip(drafted, levels, strict=True)
                ]
            )
        else:
            any_token = sample_uniform(noise_seed_B, (time, self.num_tokens), salt=6) * self.digits.num_codes
            wrong = any_token.long().clamp(max=self.digits.num_codes - 1)
        return torch.where(hit, wrong, tokens_BTN)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """Mean cross-entropy of the masked tokens, 0 where none is; `weight` in the metrics is their number.

        `tokens` int64 [B, T, N]; `latent_action` [B, T, A], row t describes frame t → t + 1; `draft` [B, T, N, F],
        row t drafts frame t (only with `draft=True`); `noise_seed` int64 [B].
        """
        tokens, noise_seed = batch["tokens"].long(), batch["noise_seed"]
        draft = batch["draft"].float() if self.config.draft else None
        mask = self.training_mask(noise_seed, tokens.shape[1])
        seen = self.corrupt(tokens, draft, noise_seed) if self.config.corruption > 0 else tokens
        x, condition = self.embed(seen, mask, led_to(batch["latent_action"]), draft, has_past_like(tokens))
        hidden = self.of_tokens(self.body(x, condition))[mask]
        weight = mask.sum()
        losses = [
            F.cross_entropy(logits, target, reduction="sum")
            for logits, target in zip(
                self.logits(hidden, None if draft is None else draft[mask]),
                self.targets(tokens[mask]),
                strict=True,
            )
        ]
        loss = torch.stack(losses).sum() / weight.clamp(min=1)
        return loss, {"cross_entropy": loss.detach(), "masked": mask.float().mean(), "weight": weight}

    def step(
        self,
        tokens_BN: Tensor,
        mask_BN: Tensor,
        latent_BA: Tensor,
        draft_BNF: Tensor | None,
        has_past_B: Tensor,
        cache: TemporalCache,
        commit: bool,
        at_Bn: Tensor | None = None,
    ) -> list[Tensor]:
        """Logits of one frame against the cache, as `logits`; with `commit` the frame joins the past instead.

        `at_Bn` int64: the tokens whose logits are wanted; all by default.
        """
        draft = None if draft_BNF is None else draft_BNF[:, None]
        x, condition = self.embed(
            tokens_BN[:, None], mask_BN[:, None], latent_BA[:, None], draft, has_past_B[:, None]
        )
        hidden = self.body.step(x[:, 0], cache, commit, None if condition is None else condition[:, 0])
        if commit:
            return []
        hidden = self.of_tokens(hidden)
        if at_Bn is not None:
            hidden, draft_BNF = (
                tokens_at(hidden, at_Bn),
                None if draft_BNF is None else tokens_at(draft_BNF, at_Bn),
            )
        return self.logits(hidden, draft_BNF)


def tokens_at(values_BND: Tensor, at_Bn: Tensor) -> Tensor:
    """The rows `at_Bn` int64 of every frame's tokens: [B, N, D] → [B, n, D]."""
    return values_BND.gather(1, at_Bn[..., None].expand(-1, -1, values_BND.shape[-1]))


def led_to(latent_BTA: Tensor) -> Tensor:
    """Shift latent actions by one frame: row t is then the action that led to frame t (row 0: zeros)."""
    return torch.cat([torch.zeros_like(latent_BTA[:, :1]), latent_BTA[:, :-1]], 1)


def has_past_like(tokens_BTN: Tensor) -> Tensor:
    """Bool [B, T], false at the first frame."""
    has_past = torch.ones(tokens_BTN.shape[:2], dtype=torch.bool, device=tokens_BTN.device)
    has_past[:, 0] = False
    return has_past
