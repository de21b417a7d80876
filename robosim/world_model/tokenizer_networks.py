"""The tokenizer's two networks: frames → features of the token grid, and codes → frames.

`kind="conv"` is a small convolutional autoencoder, `kind="vit"` a spatiotemporal transformer on patches: the ViT of
Genie's ablation (arXiv 2402.15391, table 2) with a window of one frame, its ST-ViViT with a longer one.

Legend of shape suffixes: B batch, T time, I image channels, H/W pixels, h/w token grid, N = h·w tokens, D channels,
C code dimensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robosim.world_model.st_transformer import STTransformer
from robosim.world_model.temporal_cache import TemporalCache

if TYPE_CHECKING:
    from robosim.world_model.tokenizer import TokenizerConfig

STEM = 4
"""Pixels a side that the first convolution takes at once."""


def norm(channels: int) -> nn.Module:
    return nn.GroupNorm(8, channels)


class ResidualConv(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            norm(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            norm(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x_BDHW: Tensor) -> Tensor:
        return x_BDHW + self.body(x_BDHW)


def widths(config: TokenizerConfig) -> list[int]:
    """Channels at a quarter of the resolution, and at each halving from there to the token grid."""
    return [config.channels * 2**i for i in range((config.patch // STEM).bit_length())]


def conv_encoder(config: TokenizerConfig) -> nn.Sequential:
    first, *rest = widths(config)
    layers = [nn.Conv2d(3, first, STEM, STEM), ResidualConv(first)]
    width = first
    for wider in rest:
        layers += [nn.Conv2d(width, wider, 2, 2), ResidualConv(wider)]
        width = wider
    return nn.Sequential(*layers, ResidualConv(width), norm(width), nn.SiLU())


def conv_decoder(config: TokenizerConfig, code_dim: int) -> nn.Sequential:
    *rest, width = widths(config)
    layers = [nn.Conv2d(code_dim, width, 3, padding=1), ResidualConv(width), ResidualConv(width)]
    for narrower in reversed(rest):
        layers += [nn.Conv2d(width, 4 * narrower, 1), nn.PixelShuffle(2)]
        layers += [ResidualConv(narrower), ResidualConv(narrower)]
        width = narrower
    return nn.Sequential(*layers, nn.Conv2d(width, 3 * STEM**2, 1), nn.PixelShuffle(STEM))


def patch_stem(config: TokenizerConfig) -> nn.Module:
    """Pixels → vectors of the transformer's width: one linear map a patch, or convolutions that look around it."""
    dim, patch, channels = config.encoder.dim, config.patch, config.channels
    if config.stem == "linear":
        return nn.Conv2d(3, dim, patch, patch)
    return nn.Sequential(
        nn.Conv2d(3, channels, STEM, STEM),
        ResidualConv(channels),
        nn.Conv2d(channels, dim, patch // STEM, patch // STEM),
    )


def patch_head(config: TokenizerConfig) -> nn.Module:
    """The stem's mirror: vectors → pixels."""
    dim, patch, channels = config.decoder.dim, config.patch, config.channels
    if config.stem == "linear":
        return nn.Sequential(nn.Conv2d(dim, 3 * patch**2, 1), nn.PixelShuffle(patch))
    scale = patch // STEM
    return nn.Sequential(
        nn.Conv2d(dim, channels * scale**2, 1),
        nn.PixelShuffle(scale),
        ResidualConv(channels),
        ResidualConv(channels),
        nn.Conv2d(channels, 3 * STEM**2, 1),
        nn.PixelShuffle(STEM),
    )


class Encoder(nn.Module):
    """Frames float [B, T, H, W, I] → features float32 [B, T, N, C]: a stem on each frame, a transformer on the clip."""

    def __init__(self, config: TokenizerConfig, grid: int, code_dim: int) -> None:
        super().__init__()
        if config.kind == "conv":
            self.stem, self.body, width = conv_encoder(config), None, widths(config)[-1]
        else:
            self.stem, self.body = patch_stem(config), STTransformer(config.encoder, grid * grid)
            width = config.encoder.dim
        self.out = nn.Linear(width, code_dim)

    def forward(self, frames_BTHWI: Tensor) -> Tensor:
        x_BTND = self.patches(frames_BTHWI.flatten(0, 1)).unflatten(0, frames_BTHWI.shape[:2])
        if self.body is not None:
            x_BTND = self.body(x_BTND)
        return self.out(x_BTND).float()

    def step(self, frames_BHWI: Tensor, cache: TemporalCache, commit: bool) -> Tensor:
        """The frame after those in the cache → [B, N, C]."""
        assert self.body is not None
        return self.out(self.body.step(self.patches(frames_BHWI), cache, commit)).float()

    def patches(self, frames_BHWI: Tensor) -> Tensor:
        x_BIHW = frames_BHWI.permute(0, 3, 1, 2).to(self.out.weight.dtype, memory_format=torch.channels_last)
        return self.stem(x_BIHW).flatten(2).transpose(1, 2)


class Decoder(nn.Module):
    """Codes [B, T, N, C] → frames float32 [B, T, H, W, I], not clipped."""

    def __init__(self, config: TokenizerConfig, grid: int, code_dim: int) -> None:
        super().__init__()
        self.grid = grid
        if config.kind == "conv":
            self.into, self.body, self.head = nn.Identity(), None, conv_decoder(config, code_dim)
        else:
            self.into = nn.Linear(code_dim, config.decoder.dim)
            self.body, self.head = STTransformer(config.decoder, grid * grid), patch_head(config)

    def forward(self, codes_BTNC: Tensor) -> Tensor:
        x_BTND = self.into(codes_BTNC)
        if self.body is not None:
            x_BTND = self.body(x_BTND)
        return self.pixels(x_BTND.flatten(0, 1)).unflatten(0, codes_BTNC.shape[:2])

    def step(self, codes_BNC: Tensor, cache: TemporalCache) -> Tensor:
        """The frame after those in the cache, which it joins → [B, H, W, I]."""
        assert self.body is not None
        return self.pixels(self.body.step(self.into(codes_BNC), cache, commit=True))

    def pixels(self, x_BND: Tensor) -> Tensor:
        x_BDhw = x_BND.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        y_BIHW = self.head(x_BDhw.contiguous(memory_format=torch.channels_last)).float()
        return y_BIHW.permute(0, 2, 3, 1)
