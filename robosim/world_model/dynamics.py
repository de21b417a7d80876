"""Dynamics: the tokens of the next frame from the past frames' tokens and latent actions.

MaskGIT over a spatiotemporal transformer (Genie, arXiv 2402.15391, section 2.1), with two changes. A share of the
frames is left unmasked in training, because at play every past frame is known. And with `draft=True` each frame's
input carries a draft of that frame (see `draft.py`); `draft=False` is the paper's form.

Legend of shape suffixes: B batch, T time, N tokens of a frame, D channels, C code dimensions (digits), A latent
action dimensions, V vocabulary, F draft features.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robosim.world_model.noise import sample_uniform
from robosim.world_model.quantise import FSQ
from robosim.world_model.st_transformer import STConfig, STTransformer, TemporalCache


@dataclass
class DynamicsConfig:
    transformer: STConfig = field(default_factory=STConfig)
    draft: bool = True
    """Draft-and-correct; false is the paper's plain MaskGIT."""
    prediction: Literal["codes", "digits"] = "codes"
    """codes: one softmax over the vocabulary; digits: one softmax an FSQ digit."""
    clean_share: float = 0.35
    """Share of frames without a mask."""
    corruption: float = 0.0
    """Up to this share of a frame's visible tokens is replaced by its draft's, as errors at play would."""


class Dynamics(nn.Module):
    """Predicts masked tokens. Frame t's input: its visible tokens, its draft, and the action that led to it."""

    def __init__(
        self, config: DynamicsConfig, levels: tuple[int, ...], num_tokens: int, latent_dim: int
    ) -> None:
        super().__init__()
        dim = config.transformer.dim
        self.config, self.num_tokens, self.latent_dim = config, num_tokens, latent_dim
        self.fsq = FSQ(levels)
        self.embed_digits = nn.ModuleList(nn.Embedding(level, dim) for level in levels)
        self.mask_token = nn.Parameter(torch.randn(dim) * 0.02)
        self.embed_latent = nn.Linear(latent_dim, dim)
        self.no_action = nn.Parameter(torch.randn(dim) * 0.02)
        if config.draft:
            self.embed_draft = nn.Linear(self.draft_features, dim)
        self.body = STTransformer(config.transformer, num_tokens)
        outputs = self.fsq.num_codes if config.prediction == "codes" else sum(levels)
        self.head = nn.Linear(dim, outputs)

    @property
    def draft_features(self) -> int:
        return 2 * self.fsq.dim

    def embed(
        self,
        tokens_BTN: Tensor,
        mask_BTN: Tensor,
        latent_BTA: Tensor,
        draft_BTNF: Tensor | None,
        has_past_BT: Tensor,
    ) -> Tensor:
        """Input vectors [B, T, N, D]. `latent_BTA[:, t]` and the draft are those that led to frame t.

        Where `has_past_BT` is false (the first frame of a clip or an episode) neither is looked at.
        """
        digits = self.fsq.token_digits(tokens_BTN)
        x = torch.stack([embed(digits[..., c]) for c, embed in enumerate(self.embed_digits)]).sum(0)
        x = torch.where(mask_BTN[..., None], self.mask_token, x)
        has_past = has_past_BT[..., None]
        x = x + torch.where(has_past, self.embed_latent(latent_BTA), self.no_action)[:, :, None]
        if self.config.draft:
            assert draft_BTNF is not None
            x = x + self.embed_draft(draft_BTNF) * has_past[..., None]
        return x

    def logits(self, x_BTND: Tensor) -> list[Tensor]:
        """One [..., V] for prediction=codes, one [..., level] a digit for prediction=digits."""
        out = self.head(x_BTND).float()
        if self.config.prediction == "codes":
            return [out]
        return list(out.split(self.fsq.levels.tolist(), -1))

    def targets(self, tokens: Tensor) -> list[Tensor]:
        if self.config.prediction == "codes":
            return [tokens]
        return list(self.fsq.token_digits(tokens).unbind(-1))

    def training_mask(self, noise_seed_B: Tensor, time: int) -> Tensor:
        """Bool [B, T, N]: hidden tokens. The first frame is always visible; rates follow MaskGIT's cosine."""
        kind_rate = sample_uniform(noise_seed_B, (2, time, 1), salt=2)
        rate_BT1 = torch.cos(kind_rate[:, 1] * torch.pi / 2)
        rate_BT1 = torch.where(kind_rate[:, 0] < self.config.clean_share, 0.0, rate_BT1)
        mask = sample_uniform(noise_seed_B, (time, self.num_tokens), salt=3) < rate_BT1
        mask[:, 0] = False
        return mask

    def corrupt(self, tokens_BTN: Tensor, draft_BTNF: Tensor, noise_seed_B: Tensor) -> Tensor:
        """Replace a few visible tokens by the draft's, at a rate of its own for every frame."""
        time = tokens_BTN.shape[1]
        rate = sample_uniform(noise_seed_B, (time, 1), salt=4) * self.config.corruption
        hit = sample_uniform(noise_seed_B, (time, self.num_tokens), salt=5) < rate
        half = self.fsq.levels // 2
        digits = (draft_BTNF[..., self.fsq.dim :] * half + half).round()
        digits = torch.minimum(digits.clamp(min=0), self.fsq.levels - 1).long()
        hit[:, 0] = False
        return torch.where(hit, (digits * self.fsq.basis).sum(-1), tokens_BTN)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """Cross-entropy on the masked tokens.

        `tokens` int64 [B, T, N]; `latent_action` [B, T, A], row t describes frame t → t + 1; `draft` [B, T, N, F],
        row t drafts frame t (only with `draft=True`); `noise_seed` int64 [B].
        """
        tokens, noise_seed = batch["tokens"].long(), batch["noise_seed"]
        draft = batch["draft"].float() if self.config.draft else None
        mask = self.training_mask(noise_seed, tokens.shape[1])
        seen = tokens
        if draft is not None and self.config.corruption > 0:
            seen = self.corrupt(tokens, draft, noise_seed)
        x = self.embed(seen, mask, led_to(batch["latent_action"]), draft, has_past_like(tokens))
        hidden = self.body(x)[mask]
        losses = [
            F.cross_entropy(logits, target)
            for logits, target in zip(self.logits(hidden), self.targets(tokens[mask]), strict=True)
        ]
        loss = torch.stack(losses).sum()
        return loss, {"cross_entropy": loss.detach(), "masked": mask.float().mean()}

    def step(
        self,
        tokens_BN: Tensor,
        mask_BN: Tensor,
        latent_BA: Tensor,
        draft_BNF: Tensor | None,
        has_past_B: Tensor,
        cache: TemporalCache,
        commit: bool,
    ) -> list[Tensor]:
        """Logits of one frame against the cache, as `logits`; with `commit` the frame joins the cache."""
        draft = None if draft_BNF is None else draft_BNF[:, None]
        x = self.embed(tokens_BN[:, None], mask_BN[:, None], latent_BA[:, None], draft, has_past_B[:, None])
        hidden = self.body.step(x[:, 0], cache, commit)
        return [] if commit else self.logits(hidden)


def led_to(latent_BTA: Tensor) -> Tensor:
    """Shift latent actions by one frame: row t is then the action that led to frame t (row 0: zeros)."""
    return torch.cat([torch.zeros_like(latent_BTA[:, :1]), latent_BTA[:, :-1]], 1)


def has_past_like(tokens_BTN: Tensor) -> Tensor:
    """Bool [B, T], false at the first frame."""
    has_past = torch.ones(tokens_BTN.shape[:2], dtype=torch.bool, device=tokens_BTN.device)
    has_past[:, 0] = False
    return has_past
