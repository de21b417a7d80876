"""Video tokenizer: a frame ↔ a small grid of discrete tokens.

With a window of one frame (and always with `kind="conv"`) each frame is coded alone, so that the tokens of a photo
equal those of the same picture in mid-episode. With longer windows, Genie's ST-ViViT, a frame is coded in the light
of the frames before it; the same band holds in training and at play, so that coding a video frame by frame against
a `TokenizerState` equals coding it at once.

Legend of shape suffixes: B batch, T time, H/W pixels, I image channels, N tokens of a frame, C code dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robosim.checkpoint import ONLY_TRAINING
from robosim.world_model.augment import augment
from robosim.world_model.batch_norm import BatchNorm
from robosim.world_model.metrics import moving_mask, pooled_psnr, unit
from robosim.world_model.quantise import FSQ, VectorQuantiser
from robosim.world_model.st_transformer import STConfig
from robosim.world_model.temporal_cache import TemporalCache
from robosim.world_model.tokenizer_networks import Decoder, Encoder

MOST_CODES = 2**15
"""Tokens are stored as int16."""

PATCHES = (4, 8, 16)


@dataclass
class TokenizerConfig:
    kind: Literal["conv", "vit"] = "conv"
    patch: int = 8
    """Pixels a token's side: 4, 8 or 16."""
    stem: Literal["linear", "conv"] = "linear"
    """How kind=vit makes vectors of patches and pixels of vectors: by one linear map, or by convolutions."""
    quantiser: Literal["fsq", "vq"] = "fsq"
    levels: tuple[int, ...] = (8, 6, 5, 5)
    """Levels of each code dimension, with quantiser=fsq; their product is the number of codes."""
    codes: int = 1024
    """Size of the codebook, with quantiser=vq."""
    code_dim: int = 32
    """Dimensions of a code, with quantiser=vq."""
    channels: int = 48
    """Width of the convolutions at a quarter of the resolution; kind=conv doubles it at each further halving."""
    encoder: STConfig = field(default_factory=lambda: STConfig(dim=128, heads=4, layers=4, window=1))
    """With kind=vit. A window of 1 encodes each frame alone; more is ST-ViViT, banded and causal."""
    decoder: STConfig = field(default_factory=lambda: STConfig(dim=128, heads=4, layers=4, window=1))
    foreground_weight: float = field(default=4.0, metadata=ONLY_TRAINING)
    """Extra loss weight on pixels that differ from the training video's median frame."""
    foreground_threshold: float = field(default=0.08, metadata=ONLY_TRAINING)
    augment: float = field(default=0.0, metadata=ONLY_TRAINING)
    """How much training frames are zoomed, shifted, mirrored and tinted, 0 to 1: for little video."""

    def __post_init__(self) -> None:
        if self.patch not in PATCHES:
            raise ValueError(f"patch must be one of {', '.join(map(str, PATCHES))}, got {self.patch}")
        if not self.levels or min(self.levels) < 2 or math.prod(self.levels) > MOST_CODES:
            raise ValueError(
                f"levels must be at least 2 each and {MOST_CODES} codes together, got {self.levels}"
            )
        if not 2 <= self.codes <= MOST_CODES or self.code_dim < 1:
            raise ValueError(
                f"codes must be 2 to {MOST_CODES} and code_dim at least 1, got {self.codes} and {self.code_dim}"
            )
        if not 0 <= self.augment <= 1:
            raise ValueError(f"augment must be between 0 and 1, got {self.augment}")
        if self.channels % 8:
            raise ValueError(f"channels must be a multiple of 8, got {self.channels}")

    @property
    def temporal(self) -> bool:
        """Whether a frame's coding depends on the frames before it."""
        return self.kind == "vit" and (sees_past(self.encoder) or sees_past(self.decoder))


def sees_past(config: STConfig) -> bool:
    return config.window > 1 and config.layers >= config.temporal_every


@dataclass
class TokenizerState:
    """What a temporal tokenizer remembers of its rows' past frames; empty where each frame is coded alone."""

    encoder: TemporalCache | None = None
    decoder: TemporalCache | None = None

    def copy(self) -> TokenizerState:
        return TokenizerState(*(cache and cache.copy() for cache in (self.encoder, self.decoder)))

    def take_rows(self, rows: Tensor) -> TokenizerState:
        """A state of `rows` (int64) alone."""
        return TokenizerState(*(cache and cache.take_rows(rows) for cache in (self.encoder, self.decoder)))

    def put_rows(self, rows: Tensor, other: TokenizerState) -> None:
        """Overwrite `rows` (int64) by all the rows of `other`."""
        if self.encoder and other.encoder:
            self.encoder.put_rows(rows, other.encoder)
        if self.decoder and other.decoder:
            self.decoder.put_rows(rows, other.decoder)


class Tokenizer(nn.Module):
    """Frames [..., H, W, 3] ↔ tokens int64 [..., N], N = (H / patch)²; the frames must be square."""

    background: Tensor

    def __init__(self, config: TokenizerConfig, size: int) -> None:
        super().__init__()
        if size % config.patch:
            raise ValueError(f"frame size {size} must be a multiple of the tokenizer's patch {config.patch}")
        self.config, self.size, self.grid = config, size, size // config.patch
        if config.quantiser == "fsq":
            self.quantiser: FSQ | VectorQuantiser = FSQ(config.levels)
        else:
            self.quantiser = VectorQuantiser(config.codes, config.code_dim)
        self.encoder = Encoder(config, self.grid, self.code_dim)
        # Else a transformer paints the mean frame for so long that its features all fall onto one code.
        self.norm = BatchNorm(self.code_dim)
        self.decoder = Decoder(config, self.grid, self.code_dim)
        self.register_buffer("background", torch.zeros(size, size, 3))

    @property
    def num_tokens(self) -> int:
        return self.grid * self.grid

    @property
    def num_codes(self) -> int:
        return self.quantiser.num_codes

    @property
    def code_dim(self) -> int:
        return self.quantiser.dim

    @property
    def digit_levels(self) -> tuple[int, ...]:
        """The FSQ levels; one digit of all codes for VQ."""
        return self.quantiser.digit_levels

    @property
    def temporal(self) -> bool:
        return self.config.temporal

    def codes(self, tokens: Tensor) -> Tensor:
        """Tokens int64 [...] → quantised vectors float32 [..., C]."""
        return self.quantiser.codes(tokens)

    def expected_codes(self, logits: list[Tensor]) -> Tensor:
        """The mean of the codes under softmax(logits), float32 [..., C].

        `logits`: one [..., number of codes], or one [..., level] a digit.
        """
        if len(logits) == 1:
            return logits[0].softmax(-1) @ self.codes(torch.arange(self.num_codes, device=logits[0].device))
        base, means = 1, []
        for digit, each in enumerate(logits):  # a digit alone decides on its dimension of the code
            level = each.shape[-1]
            values = self.codes(base * torch.arange(level, device=each.device))[:, digit]
            means.append(each.softmax(-1) @ values)
            base *= level
        return torch.stack(means, -1)

    def encode(self, frames: Tensor) -> Tensor:
        """Frames (uint8 or float in [0, 1]) [..., H, W, 3], each alone → tokens int64 [..., N]."""
        tokens = self.encode_clips(frames.reshape(-1, 1, *frames.shape[-3:]))
        return tokens.view(*frames.shape[:-3], self.num_tokens)

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens int64 [..., N], each frame's alone → frames float32 in [0, 1], [..., H, W, 3]."""
        frames = self.decode_clips(tokens.reshape(-1, 1, self.num_tokens))
        return frames.view(*tokens.shape[:-1], *frames.shape[-3:])

    def encode_clips(self, frames_BTHWI: Tensor) -> Tensor:
        """Clips uint8 or float [B, T, H, W, 3] → tokens int64 [B, T, N]."""
        return self.quantiser.tokens(self.norm(self.encoder(self.checked(frames_BTHWI))))

    def decode_clips(self, tokens_BTN: Tensor) -> Tensor:
        """Tokens int64 [B, T, N] → clips float32 in [0, 1], [B, T, H, W, 3]."""
        return self.decoder(self.codes(tokens_BTN)).clamp(0, 1)

    def new_state(self, rows: int) -> TokenizerState:
        """The state before the first frame of `rows` rows."""
        encoder, decoder = self.encoder.body, self.decoder.body
        if not self.temporal or encoder is None or decoder is None:
            return TokenizerState()
        return TokenizerState(encoder.new_cache(rows), decoder.new_cache(rows))

    def features_next(self, frames_BHWI: Tensor, state: TokenizerState, commit: bool) -> Tensor:
        """The next frames of rows in `state` → features before quantisation, on the scale of codes, [B, N, C].

        With `commit` the frames join the encoder's past.
        """
        frames = self.checked(frames_BHWI)
        if state.encoder is None:
            z_BNC = self.encoder(frames[:, None])[:, 0]
        else:
            z_BNC = self.encoder.step(frames, state.encoder, commit)
        return self.quantiser.normalised(self.norm(z_BNC))

    def encode_next(self, frames_BHWI: Tensor, state: TokenizerState, commit: bool) -> Tensor:
        """The next frames of rows in `state` → tokens int64 [B, N]; with `commit` they join the encoder's past."""
        frames = self.checked(frames_BHWI)
        if state.encoder is None:
            return self.encode(frames)
        return self.quantiser.tokens(self.norm(self.encoder.step(frames, state.encoder, commit)))

    def decode_next(self, codes_BNC: Tensor, state: TokenizerState) -> Tensor:
        """The next frames' codes → frames float32 in [0, 1], [B, H, W, 3]; they join the decoder's past."""
        if state.decoder is None:
            return self.decoder(codes_BNC[:, None])[:, 0].clamp(0, 1)
        return self.decoder.step(codes_BNC, state.decoder).clamp(0, 1)

    def checked(self, frames: Tensor) -> Tensor:
        """Frames as float32 in [0, 1]. Raises `ValueError` for a size that the tokenizer wasn't made for."""
        if frames.shape[-3:] != (self.size, self.size, 3):
            found = "×".join(str(n) for n in frames.shape[-3:])
            raise ValueError(f"the tokenizer reads frames of {self.size}×{self.size}×3, got {found}")
        return unit(frames)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """`batch["frames"]` uint8 [B, T, H, W, 3], and with `augment` `noise_seed` int64 [B].

        The loss is a squared error, heavier on the foreground.
        """
        frames = self.checked(batch["frames"])
        difference = (frames - self.background).abs().mean(-1, keepdim=True)
        weight = 1 + self.config.foreground_weight * (difference > self.config.foreground_threshold).float()
        if self.config.augment and self.training:
            frames, weight = augment(frames, weight, batch["noise_seed"], self.config.augment)
        codes, quantiser_loss = self.quantiser(self.norm(self.encoder(frames)))
        error = (self.decoder(codes) - frames).square()
        return (weight * error).mean() + quantiser_loss, {
            "psnr_db": -10 * torch.log10(error.detach().mean()),
            "weight": torch.tensor(float(frames.shape[0] * frames.shape[1]), device=frames.device),
        }


@torch.no_grad()
def evaluate_tokenizer(tokenizer: Tokenizer, clips: Tensor, horizon: int = 8) -> dict[str, float]:
    """Reconstruction of held-out `clips` uint8 [B, T, H, W, 3].

    `moving_psnr_db` counts the pixels that differ from the frame `horizon` steps before, or as many steps as the clips
    have. A temporal tokenizer's `cold_psnr_db` is that of the clips' first frames, which are coded without a past.
    """
    tokenizer.eval()
    horizon = min(horizon, clips.shape[1] - 1)
    tokens = torch.cat([tokenizer.encode_clips(clip) for clip in clips.split(1)])
    decoded = torch.cat([tokenizer.decode_clips(token) for token in tokens.split(1)])
    moving = moving_mask(clips[:, horizon:], clips[:, :-horizon])
    figures = {
        "psnr_db": pooled_psnr(decoded, clips),
        "moving_psnr_db": pooled_psnr(decoded[:, horizon:], clips[:, horizon:], moving),
        "codes_used": int(tokens.unique().numel()),
    }
    if tokenizer.temporal:
        figures["cold_psnr_db"] = pooled_psnr(decoded[:, 0], clips[:, 0])
    return figures
