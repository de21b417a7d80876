"""The spatiotemporal transformer of Genie (arXiv 2402.15391, section 2.1), with an exact temporal cache.

A block is spatial attention within a frame → causal temporal attention at one location → one feed-forward.
Temporal attention is *banded*: a frame attends to itself and the `window − 1` frames before it, in training and
at play, so the cache of the last `window − 1` frames loses nothing.

Legend of shape suffixes: B batch, T time, N locations in a frame, D channels, H heads, K channels a head,
W window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
    """Normalise queries and keys (Genie, section 3): for stability in bfloat16, a tenth of the time at `nano`."""

    def __post_init__(self) -> None:
        if self.dim % self.heads or (self.dim // self.heads) % 2:
            raise ValueError(f"dim {self.dim} must split into {self.heads} heads of an even width")
        if min(self.layers, self.window, self.temporal_every) < 1:
            raise ValueError(f"layers, window and temporal_every must be at least 1, got {self}")


Angles = tuple[Tensor, Tensor]
"""Cosine and sine [T, K / 2] of the rotary angles of T positions."""


def rotary_angles(length: int, width: int, device: torch.device) -> Angles:
    """Angles of positions 0 … length − 1 for heads of `width` channels (Su et al., arXiv 2104.09864).

    Taken in float64: in float32 they drift by 4e-4 at position 10,000.
    """
    half = torch.arange(width // 2, dtype=torch.float64, device=device)
    angle = torch.arange(length, device=device)[:, None] * 10_000.0 ** (-half / (width // 2))
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, angles: Angles) -> Tensor:
    """Rotate the channel pairs of `x` [..., T, K] by the angles of their positions."""
    cos, sin = angles
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class Attention(nn.Module):
    """Multi-head attention."""

    def __init__(self, config: STConfig) -> None:
        super().__init__()
        dim, heads = config.dim, config.heads
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.norm_q = nn.RMSNorm(dim // heads) if config.qk_norm else nn.Identity()
        self.norm_k = nn.RMSNorm(dim // heads) if config.qk_norm else nn.Identity()

    def project(self, x_BND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values, each [B, H, N, K]."""
        batch, length, dim = x_BND.shape
        qkv = self.qkv(x_BND).view(batch, length, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.norm_q(q), self.norm_k(k), v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        y_BHNK = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y_BHNK.transpose(1, 2).flatten(2))

    def forward(self, x_BND: Tensor) -> Tensor:
        return self.attend(*self.project(x_BND))


class TemporalCache:
    """Keys and values of the last `window − 1` frames of every temporal layer, a count of valid frames a row.

    Keys are kept *unrotated*; their rotary position is their place in the band. Attention under rotary positions
    depends on differences alone, so this equals absolute positions, however long the rollout, and memory is flat.
    """

    def __init__(
        self, rows: int, config: STConfig, layers: int, locations: int, device: torch.device
    ) -> None:
        heads, width = config.heads, config.dim // config.heads
        shape = (layers, rows, locations, heads, config.window - 1, width)
        self.keys = torch.zeros(shape, device=device)
        self.values = torch.zeros(shape, device=device)
        self.count = torch.zeros(rows, dtype=torch.long, device=device)

    def append(self, keys: list[Tensor], values: list[Tensor]) -> None:
        """Take the committed frame's keys and values, one [rows, N, H, 1, K] a layer."""
        self.keys = torch.cat([self.keys[..., 1:, :], torch.stack(keys)], -2)
        self.values = torch.cat([self.values[..., 1:, :], torch.stack(values)], -2)
        self.count = (self.count + 1).clamp(max=self.keys.shape[-2])

    def copy(self) -> TemporalCache:
        twin = object.__new__(TemporalCache)
        twin.keys, twin.values, twin.count = self.keys.clone(), self.values.clone(), self.count.clone()
        return twin

    def take_rows(self, rows: Tensor) -> TemporalCache:
        """A cache of `rows` (int64) alone."""
        part = object.__new__(TemporalCache)
        part.keys, part.values, part.count = self.keys[:, rows], self.values[:, rows], self.count[rows]
        return part

    def put_rows(self, rows: Tensor, other: TemporalCache) -> None:
        """Overwrite `rows` (int64) by all the rows of `other`."""
        self.keys[:, rows], self.values[:, rows] = other.keys, other.values
        self.count[rows] = other.count


class Block(nn.Module):
    def __init__(self, config: STConfig, temporal: bool) -> None:
        super().__init__()
        dim, hidden = config.dim, int(config.dim * config.feedforward)
        self.norm_space, self.space = nn.LayerNorm(dim), Attention(config)
        self.temporal = temporal
        if temporal:
            self.norm_time, self.time = nn.LayerNorm(dim), Attention(config)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def mix_space(self, x_BTND: Tensor) -> Tensor:
        y = self.space(self.norm_space(x_BTND).flatten(0, 1))
        return x_BTND + y.view_as(x_BTND)

    def forward(self, x_BTND: Tensor, band_TT: Tensor, angles: Angles) -> Tensor:
        x_BTND = self.mix_space(x_BTND)
        batch, time, locations, dim = x_BTND.shape
        if self.temporal:
            x_t = self.norm_time(x_BTND).transpose(1, 2).reshape(batch * locations, time, dim)
            q, k, v = self.time.project(x_t)
            y = self.time.attend(rotate(q, angles), rotate(k, angles), v, band_TT)
            x_BTND = x_BTND + y.view(batch, locations, time, dim).transpose(1, 2)
        return x_BTND + self.mlp(self.norm_mlp(x_BTND))

    def step(
        self, x_BND: Tensor, past_k: Tensor, past_v: Tensor, count_B: Tensor, angles: Angles
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One frame against the cache; returns its output, keys and values [B, N, H, 1, K]."""
        x_BND = self.mix_space(x_BND[:, None])[:, 0]
        batch, locations, dim = x_BND.shape
        q, k, v = self.time.project(self.norm_time(x_BND).reshape(batch * locations, 1, dim))
        past = past_k.shape[-2]
        keys = torch.cat([past_k.flatten(0, 1), k], 2)
        values = torch.cat([past_v.flatten(0, 1), v], 2)
        slot = torch.arange(past + 1, device=x_BND.device)
        seen_BW = slot[None] >= past - count_B[:, None]
        mask = seen_BW.repeat_interleave(locations, 0)[:, None, None]
        now = angles[0][-1:], angles[1][-1:]
        y = self.time.attend(rotate(q, now), rotate(keys, angles), values, mask)
        x_BND = x_BND + y.view(batch, locations, dim)
        shape = (batch, locations, *k.shape[1:])
        return x_BND + self.mlp(self.norm_mlp(x_BND)), k.view(shape), v.view(shape)


class STTransformer(nn.Module):
    """Blocks over frames of `locations` vectors, with a learned place embedding and rotary time positions."""

    def __init__(self, config: STConfig, locations: int) -> None:
        super().__init__()
        self.config, self.locations = config, locations
        self.place = nn.Parameter(torch.randn(locations, config.dim) * 0.02)
        self.blocks = nn.ModuleList(
            Block(config, config.window > 1 and (i + 1) % config.temporal_every == 0)
            for i in range(config.layers)
        )
        self.temporal_layers = sum(block.temporal for block in self.stack)
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, x_BTND: Tensor) -> Tensor:
        """Whole clips, under the band; returns [B, T, N, D]."""
        time = torch.arange(x_BTND.shape[1], device=x_BTND.device)
        angles = self.angles(len(time))
        age = time[:, None] - time[None]
        band_TT = (age >= 0) & (age < self.config.window)
        x_BTND = x_BTND + self.place
        for block in self.stack:
            x_BTND = block(x_BTND, band_TT, angles)
        return self.norm(x_BTND)

    @property
    def stack(self) -> list[Block]:
        return cast(list[Block], list(self.blocks))

    def angles(self, length: int) -> Angles:
        return rotary_angles(length, self.config.dim // self.config.heads, self.place.device)

    def new_cache(self, rows: int) -> TemporalCache:
        return TemporalCache(rows, self.config, self.temporal_layers, self.locations, self.place.device)

    def step(self, x_BND: Tensor, cache: TemporalCache, commit: bool) -> Tensor:
        """One frame [B, N, D] against the cache; with `commit` its keys and values join the cache."""
        x_BND = x_BND + self.place
        angles = self.angles(self.config.window)
        keys, values, layer = [], [], 0
        for block in self.stack:
            if block.temporal:
                past = cache.keys[layer], cache.values[layer]
                x_BND, k, v = block.step(x_BND, *past, cache.count, angles)
                keys.append(k)
                values.append(v)
                layer += 1
            else:
                x_BND = block.mix_space(x_BND[:, None])[:, 0]
                x_BND = x_BND + block.mlp(block.norm_mlp(x_BND))
        if commit and keys:
            cache.append(keys, values)
        return self.norm(x_BND)
