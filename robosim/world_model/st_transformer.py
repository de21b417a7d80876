"""The spatiotemporal transformer of Genie (arXiv 2402.15391, section 2.1), with an exact temporal cache.

A block is spatial attention within a frame → causal temporal attention at one location → one feed-forward.
Temporal attention is *banded*: a frame attends to itself and the `window − 1` frames before it, in training and
at play, so the cache of the last `window` frames loses nothing.

Legend of shape suffixes: B batch, T time, N locations in a frame, D channels, H heads, K channels a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from robosim.world_model.temporal_cache import LayerMemory, TemporalCache


@dataclass
class STConfig:
    dim: int = 128
    heads: int = 4
    layers: int = 4
    window: int = 8
    """Frames that temporal attention sees, the present one included; 1 leaves temporal attention out."""
    temporal_every: int = 1
    """Temporal attention in every n-th block."""
    feedforward: float = 4.0
    """Width of the feed-forward over `dim`."""
    qk_norm: bool = True
    """Normalise queries and keys (Genie, section 3; Dehghani et al., arXiv 2302.05442): for stability in bfloat16."""

    def __post_init__(self) -> None:
        if self.dim % self.heads or (self.dim // self.heads) % 2:
            raise ValueError(f"dim {self.dim} must split into {self.heads} heads of an even width")
        if min(self.layers, self.window, self.temporal_every) < 1:
            raise ValueError(f"layers, window and temporal_every must be at least 1, got {self}")


Angles = tuple[Tensor, Tensor]
"""Cosine and sine of the rotary angles of some positions, [..., K] each; the sine's first half is negative."""


def rotary_angles(position: Tensor, width: int) -> Angles:
    """Angles of the positions int64 [...] for heads of `width` channels (Su et al., arXiv 2104.09864).

    Taken in float64: in float32 they drift by 4e-4 at position 10,000.
    """
    half = torch.arange(width // 2, dtype=torch.float64, device=position.device)
    angle = position[..., None] * 10_000.0 ** (-half / (width // 2))
    cos, sin = angle.cos().float(), angle.sin().float()
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def rotate(x: Tensor, angles: Angles) -> Tensor:
    """Rotate the channel pairs (i, i + K / 2) of `x` [..., K] by the angles of their positions."""
    cos, sin = angles
    return x * cos + x.roll(x.shape[-1] // 2, -1) * sin


def attend(q: Tensor, k: Tensor, v: Tensor, band_TT: Tensor | None = None, causal: bool = False) -> Tensor:
    """Scaled dot-product attention of [B, H, T, K] each, under a band (bool, true where seen) or causal or neither."""
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=band_TT, is_causal=causal)
    # torch's kernel for the CPU takes four times as long in bfloat16, forward and backward together.
    score = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if causal:
        band_TT = torch.ones(score.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if band_TT is not None:
        score = score.masked_fill(~band_TT, -torch.inf)
    return score.softmax(-1).to(v.dtype) @ v


class Attention(nn.Module):
    """Multi-head attention within a frame."""

    def __init__(self, config: STConfig) -> None:
        super().__init__()
        dim, heads = config.dim, config.heads
        self.heads, self.width = heads, dim // heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        # One norm for both: of its two scales only the product would count.
        self.norm_qk = nn.LayerNorm(self.width, bias=False) if config.qk_norm else None

    def project(self, x: Tensor, angles: Angles | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values [..., H, K] of `x` [..., D]; `angles`, which must broadcast, rotate the first two."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, self.width))
        qk, v = qkv[..., :2, :, :], qkv[..., 2, :, :]
        if self.norm_qk is not None:
            qk = self.norm_qk(qk)
        if angles is not None:
            qk = rotate(qk, angles)
        q, k = qk.to(v.dtype).unbind(-3)
        return q, k, v

    def forward(self, x_BTND: Tensor) -> Tensor:
        q, k, v = (part.transpose(1, 2) for part in self.project(x_BTND.flatten(0, 1)))
        y_BHNK = attend(q, k, v)
        return self.out(y_BHNK.transpose(1, 2).reshape(x_BTND.shape))


class TemporalAttention(Attention):
    """Multi-head attention of each location over time."""

    def forward(
        self, x_BTND: Tensor, angles: Angles, band_TT: Tensor | None, memory: LayerMemory | None
    ) -> Tensor:
        """Whole clips under the band (None: all of the past), or one frame (T = 1) against its memory."""
        if memory is not None:
            return self.out(memory.attend(*self.project(x_BTND[:, 0], angles)).flatten(-2))[:, None]
        x_BNTD = x_BTND.transpose(1, 2)
        q, k, v = (part.flatten(0, 1).transpose(1, 2) for part in self.project(x_BNTD, angles))
        y_BHTK = attend(q, k, v, band_TT, causal=band_TT is None)
        return self.out(y_BHTK.transpose(1, 2).reshape(x_BNTD.shape)).transpose(1, 2)


class Norm(nn.Module):
    """Layer norm; with `modulated` scaled and shifted by a condition of the frame (Peebles and Xie, arXiv 2212.09748).

    Its modulation is zero at first, so that training starts from the plain transformer. It works once a frame,
    where the other parameters work once a location.
    """

    def __init__(self, dim: int, modulated: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.modulation = nn.Linear(dim, 2 * dim) if modulated else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(self, x_BTND: Tensor, condition_BTD: Tensor | None) -> Tensor:
        x_BTND = self.norm(x_BTND)
        if self.modulation is None or condition_BTD is None:
            return x_BTND
        scale, shift = self.modulation(condition_BTD)[:, :, None].chunk(2, -1)
        return x_BTND * (1 + scale) + shift


class Block(nn.Module):
    def __init__(self, config: STConfig, temporal: bool, modulated: bool) -> None:
        super().__init__()
        dim, hidden = config.dim, int(config.dim * config.feedforward)
        self.norm_space, self.space = Norm(dim, modulated), Attention(config)
        self.temporal = temporal
        if temporal:
            self.norm_time, self.time = Norm(dim, modulated), TemporalAttention(config)
        self.norm_mlp = Norm(dim, modulated)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(
        self,
        x_BTND: Tensor,
        angles: Angles,
        band_TT: Tensor | None,
        condition_BTD: Tensor | None,
        memory: LayerMemory | None = None,
    ) -> Tensor:
        x_BTND = x_BTND + self.space(self.norm_space(x_BTND, condition_BTD))
        if self.temporal:
            x_BTND = x_BTND + self.time(self.norm_time(x_BTND, condition_BTD), angles, band_TT, memory)
        return x_BTND + self.mlp(self.norm_mlp(x_BTND, condition_BTD))


class STTransformer(nn.Module):
    """Blocks over frames of `locations` vectors, with a learned place embedding and rotary time positions.

    With `modulated` every norm takes a condition of the frame, a vector [D].
    """

    recompute_every: int = 0
    """Every n-th block is recomputed in the backward pass instead of kept; 0: none."""

    def __init__(self, config: STConfig, locations: int, modulated: bool = False) -> None:
        super().__init__()
        self.config, self.locations, self.modulated = config, locations, modulated
        self.place = nn.Parameter(torch.randn(locations, config.dim) * 0.02)
        self.blocks = nn.ModuleList(
            Block(config, config.window > 1 and (i + 1) % config.temporal_every == 0, modulated)
            for i in range(config.layers)
        )
        self.norm = Norm(config.dim, modulated)

    @property
    def stack(self) -> list[Block]:
        return cast(list[Block], list(self.blocks))

    @property
    def temporal_layers(self) -> int:
        return sum(block.temporal for block in self.stack)

    @property
    def head_width(self) -> int:
        return self.config.dim // self.config.heads

    def forward(self, x_BTND: Tensor, condition_BTD: Tensor | None = None) -> Tensor:
        """Whole clips, under the band; returns [B, T, N, D]."""
        assert (condition_BTD is not None) == self.modulated
        time = torch.arange(x_BTND.shape[1], device=x_BTND.device)
        angles = rotary_angles(time[:, None, None], self.head_width)
        band_TT = None
        if len(time) > self.config.window:
            age = time[:, None] - time[None]
            band_TT = (age >= 0) & (age < self.config.window)
        x_BTND = x_BTND + self.place
        for i, block in enumerate(self.stack):
            given = x_BTND, angles, band_TT, condition_BTD
            if self.training and self.recompute_every and (i + 1) % self.recompute_every == 0:
                x_BTND = cast(Tensor, checkpoint(block, *given, use_reentrant=False))
            else:
                x_BTND = block(*given)
        return self.norm(x_BTND, condition_BTD)

    def new_cache(self, rows: int) -> TemporalCache:
        shape = self.locations, self.config.heads, self.config.window, self.head_width
        return TemporalCache(self.temporal_layers, rows, *shape, like=self.place.detach())

    def step(
        self, x_BND: Tensor, cache: TemporalCache, commit: bool, condition_BD: Tensor | None = None
    ) -> Tensor:
        """One frame [B, N, D] against the cache; with `commit` it joins the past, else it may be worked on again."""
        assert (condition_BD is not None) == self.modulated
        condition_B1D = None if condition_BD is None else condition_BD[:, None]
        angles = rotary_angles(cache.position[:, None, None, None], self.head_width)
        x_B1ND = (x_BND + self.place)[:, None]
        memories = iter(cache.memories(self.play_dtype(x_BND)))
        for block in self.stack:
            memory = next(memories) if block.temporal else None
            x_B1ND = block(x_B1ND, angles, None, condition_B1D, memory)
        if commit:
            cache.commit()
        return self.norm(x_B1ND, condition_B1D)[:, 0]

    def play_dtype(self, x: Tensor) -> torch.dtype:
        """The number type of queries, keys and values: autocast's where it is on."""
        kind = x.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.place.dtype
