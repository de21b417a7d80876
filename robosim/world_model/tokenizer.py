"""Video tokenizer: a frame ↔ a small grid of discrete tokens.

Each frame is encoded alone, so that the tokens of a photo equal those of the same picture in mid-episode.
`kind="conv"` is a small convolutional autoencoder, which beats a transformer in the first minutes on a CPU;
`kind="vit"` is the transformer of Genie's ablation (arXiv 2402.15391, table 2) on patches.

Legend of shape suffixes: B batch, I image channels, H/W pixels, h/w token grid, N tokens of a frame, C code
dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robosim.world_model.metrics import moving_mask, pooled_psnr, unit
from robosim.world_model.quantise import FSQ
from robosim.world_model.st_transformer import STConfig, STTransformer

PATCH = 8
"""Pixels a token's side."""

MOST_CODES = 2**15
"""Tokens are stored as int16."""


@dataclass
class TokenizerConfig:
    kind: Literal["conv", "vit"] = "conv"
    levels: tuple[int, ...] = (8, 6, 5, 5)
    """FSQ levels; their product is the number of codes."""
    channels: int = 48
    """Width of the convolutional tokenizer at a quarter of the resolution (double at an eighth)."""
    transformer: STConfig = field(default_factory=lambda: STConfig(dim=128, heads=4, layers=4, window=1))
    foreground_weight: float = 4.0
    """Extra loss weight on pixels that differ from the training video's median frame."""
    foreground_threshold: float = 0.08

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 2 or math.prod(self.levels) > MOST_CODES:
            raise ValueError(
                f"levels must be at least 2 each and {MOST_CODES} codes together, got {self.levels}"
            )
        if self.channels % 8:
            raise ValueError(f"channels must be a multiple of 8, got {self.channels}")


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

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.body(x_BCHW)


def conv_encoder(channels: int, code_dim: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, channels, 4, 4),
        ResidualConv(channels),
        nn.Conv2d(channels, 2 * channels, 2, 2),
        ResidualConv(2 * channels),
        ResidualConv(2 * channels),
        norm(2 * channels),
        nn.SiLU(),
        nn.Conv2d(2 * channels, code_dim, 1),
    )


def conv_decoder(channels: int, code_dim: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(code_dim, 2 * channels, 3, padding=1),
        ResidualConv(2 * channels),
        ResidualConv(2 * channels),
        nn.Conv2d(2 * channels, 4 * channels, 1),
        nn.PixelShuffle(2),
        ResidualConv(channels),
        ResidualConv(channels),
        nn.Conv2d(channels, 48, 1),
        nn.PixelShuffle(4),
    )


class GridTransformer(nn.Module):
    """A transformer over the grid of one frame: [B, c_in, h, w] → [B, c_out, h, w]."""

    def __init__(self, config: STConfig, grid: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.into = nn.Conv2d(inputs, config.dim, 1)
        self.body = STTransformer(config, grid * grid)
        self.out = nn.Conv2d(config.dim, outputs, 1)

    def forward(self, x_BChw: Tensor) -> Tensor:
        x = self.into(x_BChw)
        y_BND = self.body(x.flatten(2).transpose(1, 2)[:, None])[:, 0]
        return self.out(y_BND.transpose(1, 2).reshape(x.shape))


class Tokenizer(nn.Module):
    """Frames [..., H, W, 3] ↔ tokens int64 [..., N], N = (H / 8)²; the frames must be square."""

    background: Tensor

    def __init__(self, config: TokenizerConfig, size: int) -> None:
        super().__init__()
        if size % PATCH:
            raise ValueError(f"frame size {size} must be a multiple of {PATCH}")
        self.config, self.size, self.grid = config, size, size // PATCH
        self.fsq = FSQ(config.levels)
        patch = 3 * PATCH * PATCH
        if config.kind == "conv":
            self.encoder = conv_encoder(config.channels, self.fsq.dim)
            self.decoder = conv_decoder(config.channels, self.fsq.dim)
        else:
            grid = GridTransformer
            self.encoder = nn.Sequential(
                nn.PixelUnshuffle(PATCH), grid(config.transformer, self.grid, patch, self.fsq.dim)
            )
            self.decoder = nn.Sequential(
                grid(config.transformer, self.grid, self.fsq.dim, patch), nn.PixelShuffle(PATCH)
            )
        self.register_buffer("background", torch.zeros(size, size, 3))

    @property
    def num_tokens(self) -> int:
        return self.grid * self.grid

    @property
    def num_codes(self) -> int:
        return self.fsq.num_codes

    def features(self, frames: Tensor) -> Tensor:
        """Encoder output before quantisation, float32 [..., N, C]."""
        if frames.shape[-3:] != (self.size, self.size, 3):
            found = "×".join(str(n) for n in frames.shape[-3:])
            raise ValueError(f"the tokenizer reads frames of {self.size}×{self.size}×3, got {found}")
        x_BIHW = unit(frames).reshape(-1, self.size, self.size, 3).permute(0, 3, 1, 2)
        z_BChw = self.encoder(x_BIHW.contiguous(memory_format=torch.channels_last)).float()
        return z_BChw.permute(0, 2, 3, 1).reshape(*frames.shape[:-3], self.num_tokens, self.fsq.dim)

    def pixels(self, codes: Tensor) -> Tensor:
        """Quantised codes [..., N, C] → frames float32 [..., H, W, 3], not clipped."""
        x_BChw = codes.reshape(-1, self.grid, self.grid, self.fsq.dim).permute(0, 3, 1, 2)
        y_BIHW = self.decoder(x_BChw.contiguous(memory_format=torch.channels_last)).float()
        return y_BIHW.permute(0, 2, 3, 1).reshape(*codes.shape[:-2], self.size, self.size, 3)

    def encode(self, frames: Tensor) -> Tensor:
        """Frames (uint8 or float in [0, 1]) [..., H, W, 3] → tokens int64 [..., N]."""
        return self.fsq.index(self.fsq(self.features(frames)))

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens int64 [..., N] → frames float32 in [0, 1], [..., H, W, 3]."""
        return self.pixels(self.fsq.codes(tokens)).clamp(0, 1)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """`batch["frames"]` uint8 [B, T, H, W, 3]. The loss is a squared error, heavier on the foreground."""
        frames = unit(batch["frames"]).flatten(0, 1)
        codes = self.fsq(self.features(frames))
        decoded = self.pixels(codes)
        foreground = (frames - self.background).abs().mean(
            -1, keepdim=True
        ) > self.config.foreground_threshold
        weight = 1 + self.config.foreground_weight * foreground
        loss = (weight * (decoded - frames).square()).mean()
        return loss, {"psnr_db": -10 * torch.log10((decoded - frames).square().mean().detach())}


@torch.no_grad()
def evaluate_tokenizer(tokenizer: Tokenizer, clips: Tensor, horizon: int = 8) -> dict[str, float]:
    """Reconstruction of held-out `clips` uint8 [B, T, H, W, 3].

    `moving_psnr_db` counts the pixels that differ from the frame `horizon` steps before.
    """
    tokenizer.eval()
    tokens = torch.cat([tokenizer.encode(clip) for clip in clips.split(1)])
    decoded = torch.cat([tokenizer.decode(token) for token in tokens.split(1)])
    moving = moving_mask(clips[:, horizon:], clips[:, :-horizon])
    return {
        "psnr_db": pooled_psnr(decoded, clips),
        "moving_psnr_db": pooled_psnr(decoded[:, horizon:], clips[:, horizon:], moving),
        "codes_used": int(tokens.unique().numel()),
    }
