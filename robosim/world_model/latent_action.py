"""Latent action model: what changed between two frames, as a few bounded numbers, learned from pixels alone.

The paper's decoder (arXiv 2402.15391, section 2.1) predicts the next frame directly, and for a long time does so
without its code. Here the forward model *warps* the frame by a flow and *corrects* it, both from the code, which
starts as "nothing moves" and has to use the code to gain anything: x̂ = x + g · (warp(x, flow) + residual − x),
where the gate g leaves the background alone. The direct decoder stays as `forward_model="direct"`.

Legend of shape suffixes: B batch, C channels, H/W pixels, A latent action dimensions, K codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robosim.world_model.metrics import MOVING_THRESHOLD, moving_mask, pooled_psnr, unit
from robosim.world_model.noise import sample_uniform
from robosim.world_model.quantise import FSQ, VectorQuantiser
from robosim.world_model.tokenizer import ResidualConv

BOUND = 1.5
"""Bounded latent actions lie in [−BOUND, BOUND]."""


@dataclass
class LatentActionConfig:
    code: Literal["noise", "fsq", "vq"] = "noise"
    """noise: bounded, noise-quantised; vq: the paper's few discrete codes."""
    dim: int = 5
    levels: tuple[int, ...] = (9, 9, 9, 9, 9)
    """Levels a dimension, with code=fsq."""
    codes: int = 8
    """Codebook size with code=vq, and the number of playable codes (k-means centres) otherwise."""
    noise: float = 0.5
    """Width of the uniform training noise, with code=noise."""
    forward_model: Literal["warp", "direct"] = "warp"
    """warp: warp and correct; direct: the paper's decoder."""
    channels: int = 64
    blocks: int = 3
    moving_weight: float = 30.0
    """Extra loss weight on moving pixels: they are few."""
    max_flow: float = 0.5
    """Scale of the flow, in half frame widths."""
    keep_pairs: float = 0.75
    """Share of a batch's pairs, those that move most, which the loss looks at."""

    def __post_init__(self) -> None:
        if self.code == "fsq" and len(self.levels) != self.dim:
            raise ValueError(f"code=fsq needs one level a dimension: dim {self.dim}, levels {self.levels}")
        if self.channels % 8 or self.dim < 1 or self.blocks < 1:
            raise ValueError(f"channels must be a multiple of 8, dim and blocks at least 1, got {self}")


class PairEncoder(nn.Module):
    """(x_t, x_{t+1}) → latent action before its quantiser."""

    def __init__(self, size: int, channels: int, dim: int) -> None:
        super().__init__()
        c = channels
        self.body = nn.Sequential(
            nn.Conv2d(9, c // 2, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(c // 2, c, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(c, c, 3, 2, 1),
            nn.SiLU(),
            nn.Conv2d(c, c, 3, 1, 1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(c * (size // 8) ** 2, 128),
            nn.SiLU(),
            nn.Linear(128, dim),
        )

    def forward(self, x_BCHW: Tensor, y_BCHW: Tensor) -> Tensor:
        # The difference is small where arms move slowly: scaled up, it is learned from at once.
        return self.body(torch.cat([x_BCHW, y_BCHW, 3 * (y_BCHW - x_BCHW)], 1)).float()


class ForwardModel(nn.Module):
    """(x_t, latent action) → x̂_{t+1}. The code modulates every block; one layer sees the whole frame at once."""

    grid: Tensor

    def __init__(self, config: LatentActionConfig, size: int) -> None:
        super().__init__()
        c, self.config = config.channels, config
        self.stem = nn.Conv2d(5, c, 4, 4)
        self.blocks = nn.ModuleList(ResidualConv(c) for _ in range(config.blocks))
        self.modulation = nn.ModuleList(nn.Linear(config.dim, 2 * c) for _ in range(config.blocks))
        self.shrink = nn.Conv2d(c, c, 4, 4)
        self.whole = nn.Sequential(
            nn.Linear(c * (size // 16) ** 2 + config.dim, 256), nn.SiLU(), nn.Linear(256, c)
        )
        outputs = 6 if config.forward_model == "warp" else 3
        self.head = nn.Conv2d(c, 16 * outputs, 1)
        # Zero flow and zero residual: training starts from "repeat the last frame".
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)
        axis = torch.linspace(-1, 1, size)
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        self.register_buffer("grid", torch.stack([x, y], -1)[None], persistent=False)

    def forward(self, x_BCHW: Tensor, latent_BA: Tensor) -> Tensor:
        place = self.grid.permute(0, 3, 1, 2).expand(len(x_BCHW), -1, -1, -1)
        h = self.stem(torch.cat([x_BCHW, place], 1))
        for i, (block, modulation) in enumerate(zip(self.blocks, self.modulation, strict=True)):
            scale, shift = modulation(latent_BA)[:, :, None, None].chunk(2, 1)
            h = h + block(h * (1 + scale) + shift)
            if i == 0:  # the flow of one patch depends on the whole arm
                h = h + self.whole(torch.cat([self.shrink(h).flatten(1), latent_BA], 1))[:, :, None, None]
        out = F.pixel_shuffle(self.head(h), 4).float()
        if self.config.forward_model == "direct":
            return torch.sigmoid(out)
        flow, residual, gate = out[:, :2], out[:, 2:5], torch.sigmoid(out[:, 5:] + 1)
        where = self.grid + flow.permute(0, 2, 3, 1) * self.config.max_flow
        warped = F.grid_sample(x_BCHW.float(), where, align_corners=True, padding_mode="border")
        return x_BCHW + gate * (warped + residual - x_BCHW)


class LatentActionModel(nn.Module):
    """Infers the latent action between two frames, and predicts the second frame from the first and the action."""

    playable: Tensor

    def __init__(self, config: LatentActionConfig, size: int) -> None:
        super().__init__()
        self.config, self.size = config, size
        self.encoder = PairEncoder(size, config.channels, config.dim)
        self.forward_model = ForwardModel(config, size)
        # Normalised before it is bounded, so that no dimension can saturate or die.
        self.norm = nn.BatchNorm1d(config.dim, affine=False)
        if config.code == "fsq":
            self.quantiser: nn.Module = FSQ(config.levels)
        elif config.code == "vq":
            self.quantiser = VectorQuantiser(config.codes, config.dim)
        else:
            self.quantiser = nn.Identity()
        self.register_buffer("playable", torch.zeros(config.codes, config.dim))

    def quantise(self, z_BA: Tensor, noise_seed_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """Bound and quantise; returns the latent action [B, A] and the quantiser's loss."""
        z_BA = self.norm(z_BA)
        none = z_BA.new_zeros(())
        if self.config.code == "fsq":
            return self.quantiser(z_BA), none
        if self.config.code == "vq":
            code, _, loss = self.quantiser(z_BA)
            return code, loss
        latent = torch.tanh(z_BA) * BOUND
        if noise_seed_B is not None:
            latent = (
                latent + (sample_uniform(noise_seed_B, latent.shape[1:], salt=1) - 0.5) * self.config.noise
            )
        return latent, none

    def infer(self, frames: Tensor, next_frames: Tensor) -> Tensor:
        """Latent actions float32 [B, A] between `frames` and `next_frames`, [B, H, W, 3] uint8 or float."""
        return self.quantise(self.encoder(channels_first(frames), channels_first(next_frames)), None)[0]

    def predict(self, frames: Tensor, latent_BA: Tensor) -> Tensor:
        """x̂_{t+1} float32 in [0, 1], [B, H, W, 3]: the draft of the next frame."""
        predicted = self.forward_model(channels_first(frames), latent_BA)
        return predicted.permute(0, 2, 3, 1).clamp(0, 1)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """`batch["frames"]` uint8 [B, 2, H, W, 3]: pairs. Squared error, heavier on moving pixels."""
        pairs = unit(batch["frames"])
        moved = (pairs[:, 1] - pairs[:, 0]).abs().amax(-1, keepdim=True) > MOVING_THRESHOLD
        keep = moved.flatten(1).float().mean(1).argsort(descending=True)
        keep = keep[: max(2, round(len(keep) * self.config.keep_pairs))]
        x, y = channels_first(pairs[keep, 0]), channels_first(pairs[keep, 1])
        latent, quantiser_loss = self.quantise(self.encoder(x, y), batch["noise_seed"][keep])
        predicted = self.forward_model(x, latent)
        weight = 1 + self.config.moving_weight * moved[keep].permute(0, 3, 1, 2)
        error = (predicted - y).square()
        mask = moved[keep].permute(0, 3, 1, 2).expand_as(error)
        return (weight * error).mean() + quantiser_loss, {
            "moving_psnr_db": -10 * torch.log10(error.detach()[mask].mean() + 1e-10)
        }


def channels_first(frames: Tensor) -> Tensor:
    """[B, H, W, 3] of uint8 or float → float32 [B, 3, H, W]."""
    return unit(frames).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def infer_clip(model: LatentActionModel, frames: Tensor) -> Tensor:
    """Latent actions of one clip: uint8 [T, H, W, 3] → float32 [T, A]; the last row, after the clip, is zero."""
    latent = model.infer(frames[:-1], frames[1:])
    return torch.cat([latent, latent.new_zeros(1, latent.shape[1])])


@torch.no_grad()
def evaluate_latent_actions(model: LatentActionModel, pairs: Tensor, seed: int = 0) -> dict[str, float]:
    """One-step prediction of held-out `pairs` uint8 [B, 2, H, W, 3], PSNR on moving pixels.

    `shuffled_psnr_db` uses latent actions permuted among the pairs: if it is as good, they carry nothing.
    """
    model.eval()
    x, y = pairs[:, 0], pairs[:, 1]
    latent = torch.cat([model.infer(a, b) for a, b in zip(x.split(64), y.split(64), strict=True)])
    order = torch.randperm(len(latent), generator=torch.Generator().manual_seed(seed))
    moving = moving_mask(y, x)
    figures = {}
    for name, code in (("psnr_db", latent), ("shuffled_psnr_db", latent[order])):
        predicted = torch.cat([model.predict(a, z) for a, z in zip(x.split(64), code.split(64), strict=True)])
        figures[name] = pooled_psnr(predicted, y, moving)
    figures["repeat_last_psnr_db"] = pooled_psnr(x, y, moving)
    return figures
