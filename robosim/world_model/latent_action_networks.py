"""The latent action model's networks: an encoder that compares frames, and a forward model that predicts the next.

`network="conv"` reads pairs of frames and knows no other past. `network="transformer"` is the paper's (arXiv
2402.15391, section 2.1): spatiotemporal transformers over the clip's patches.

Legend of shape suffixes: B batch, P pairs of consecutive frames in a clip, T = P + 1 frames, I image channels, H/W
pixels, N patches of a frame, D channels, A latent action dimensions, O output channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robosim.world_model.st_transformer import STTransformer
from robosim.world_model.tokenizer_networks import ResidualConv

if TYPE_CHECKING:
    from robosim.world_model.latent_action import LatentActionConfig

DIFFERENCE = 3.0
"""The difference of two frames is small where arms move slowly: scaled up, it is learned from at once."""

FINE = 16
"""Channels of full resolution that the forward model's last convolutions see beside the frame itself."""

REFINED = 24
"""Channels between those two convolutions."""


class PairEncoder(nn.Module):
    """Clips [B, T, I, H, W], pair by pair → latent actions before their quantiser, [B, P, A]."""

    def __init__(self, config: LatentActionConfig, size: int) -> None:
        super().__init__()
        c = config.channels
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
            nn.Linear(128, config.dim),
        )
        # PyTorch's start shrinks the signal a thousandfold; its mean then drifts by more than its width from step to
        # step, and the running statistics of the batch norm behind it never catch up.
        for layer in self.body:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, clips_BTIHW: Tensor) -> Tensor:
        x, y = clips_BTIHW[:, :-1].flatten(0, 1), clips_BTIHW[:, 1:].flatten(0, 1)
        pairs = torch.cat([x, y, DIFFERENCE * (y - x)], 1).contiguous(memory_format=torch.channels_last)
        return self.body(pairs).float().unflatten(0, (len(clips_BTIHW), -1))


class ClipEncoder(nn.Module):
    """The same by a transformer over the clip.

    A frame's patches carry the difference to the frame before, so the second frame's tokens know both of a pair.
    """

    def __init__(self, config: LatentActionConfig, size: int) -> None:
        super().__init__()
        dim, patch = config.transformer.dim, config.patch
        self.stem = nn.Conv2d(6, dim, patch, patch)
        self.body = STTransformer(config.transformer, (size // patch) ** 2)
        self.read = nn.Sequential(nn.Linear(dim, dim), nn.SiLU())
        self.out = nn.Linear(dim, config.dim)

    def forward(self, clips_BTIHW: Tensor) -> Tensor:
        before = torch.cat([clips_BTIHW[:, :1], clips_BTIHW[:, :-1]], 1)
        x = torch.cat([clips_BTIHW, DIFFERENCE * (clips_BTIHW - before)], 2)
        second_BPND = self.body(patches(self.stem, x))[:, 1:]
        return self.out(self.read(second_BPND).mean(2)).float()


class NextFrame(nn.Module):
    """A network's output → the next frame. `warp`: x̂ = x + g · (warp(x, flow) + residual − x); `direct`: sigmoid."""

    grid: Tensor

    def __init__(self, config: LatentActionConfig, size: int) -> None:
        super().__init__()
        self.warp, self.max_flow = config.forward_model == "warp", config.max_flow
        self.channels = 6 if self.warp else 3
        axis = torch.linspace(-1, 1, size)
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        self.register_buffer("grid", torch.stack([x, y], -1)[None], persistent=False)

    def forward(self, x_BIHW: Tensor, out_BOHW: Tensor) -> Tensor:
        if not self.warp:
            return torch.sigmoid(out_BOHW)
        flow, residual, gate = out_BOHW[:, :2], out_BOHW[:, 2:5], torch.sigmoid(out_BOHW[:, 5:] + 1)
        where = self.grid + flow.permute(0, 2, 3, 1) * self.max_flow
        warped = F.grid_sample(x_BIHW.float(), where, align_corners=True, padding_mode="border")
        return x_BIHW + gate * (warped + residual - x_BIHW)


class ConvForwardModel(nn.Module):
    """Frames [B, P, I, H, W], each alone, and latent actions [B, P, A] → the next frames [B, P, I, H, W].

    The latent action modulates every block. One layer sees the whole frame at once, and what it sees is added to every
    patch and modulates the blocks after it. Two convolutions at full resolution then mend what patches of 4 × 4
    pixels leave coarse: the outlines.
    """

    def __init__(self, config: LatentActionConfig, size: int) -> None:
        super().__init__()
        c = config.channels
        self.stem = nn.Conv2d(5, c, 4, 4)
        self.blocks = nn.ModuleList(ResidualConv(c) for _ in range(config.blocks))
        self.modulation = nn.ModuleList(nn.Linear(config.dim, 2 * c) for _ in range(config.blocks))
        self.shrink = nn.Conv2d(c, c, 4, 4)
        self.whole = nn.Sequential(
            nn.Linear(c * (size // 16) ** 2 + config.dim, 256), nn.SiLU(), nn.Linear(256, c)
        )
        self.by_whole = nn.ModuleList(zeroed(nn.Linear(c, 2 * c)) for _ in range(config.blocks - 1))
        self.next_frame = NextFrame(config, size)
        self.head = zeroed(nn.Conv2d(c, 16 * self.next_frame.channels, 1))
        self.fine = nn.Conv2d(c, 16 * FINE, 1)
        self.refine = nn.Sequential(
            nn.Conv2d(FINE + 3, REFINED, 3, padding=1),
            nn.SiLU(),
            zeroed(nn.Conv2d(REFINED, self.next_frame.channels, 3, padding=1)),
        )

    def forward(self, frames_BPIHW: Tensor, latent_BPA: Tensor) -> Tensor:
        x, latent = frames_BPIHW.flatten(0, 1), latent_BPA.flatten(0, 1)
        place = self.next_frame.grid.permute(0, 3, 1, 2).expand(len(x), -1, -1, -1)
        h = self.stem(torch.cat([x, place], 1).contiguous(memory_format=torch.channels_last))
        h = modulated(self.blocks[0], h, self.modulation[0](latent))
        # The flow of one patch depends on the whole arm.
        whole_BD = self.whole(torch.cat([self.shrink(h).flatten(1), latent], 1))
        h = h + whole_BD[:, :, None, None]
        later = zip(self.blocks[1:], self.modulation[1:], self.by_whole, strict=True)
        for block, modulation, by_whole in later:
            h = modulated(block, h, modulation(latent) + by_whole(F.silu(whole_BD)))
        fine = torch.cat([F.pixel_shuffle(self.fine(h), 4), x], 1)
        out = F.pixel_shuffle(self.head(h), 4) + self.refine(
            fine.contiguous(memory_format=torch.channels_last)
        )
        return self.next_frame(x, out.float()).unflatten(0, frames_BPIHW.shape[:2])


def modulated(block: nn.Module, x_BDHW: Tensor, by_BD: Tensor) -> Tensor:
    """A residual step of `block`, whose input is scaled and shifted by the halves of `by_BD` [B, 2 D]."""
    scale, shift = by_BD[:, :, None, None].chunk(2, 1)
    return x_BDHW + block(x_BDHW * (1 + scale) + shift)


class ClipForwardModel(nn.Module):
    """The same by a transformer, which sees the frames before as well where its window is longer than one."""

    def __init__(self, config: LatentActionConfig, size: int) -> None:
        super().__init__()
        dim, self.patch = config.transformer.dim, config.patch
        self.stem = nn.Conv2d(3, dim, self.patch, self.patch)
        self.embed_latent = nn.Linear(config.dim, dim)
        self.body = STTransformer(config.transformer, (size // self.patch) ** 2)
        self.next_frame = NextFrame(config, size)
        self.head = zeroed(nn.Conv2d(dim, self.patch**2 * self.next_frame.channels, 1))

    def forward(self, frames_BPIHW: Tensor, latent_BPA: Tensor) -> Tensor:
        side = frames_BPIHW.shape[-1] // self.patch
        x_BPND = patches(self.stem, frames_BPIHW) + self.embed_latent(latent_BPA)[:, :, None]
        h = self.body(x_BPND).flatten(0, 1).transpose(1, 2).unflatten(2, (side, side))
        out = F.pixel_shuffle(self.head(h), self.patch).float()
        return self.next_frame(frames_BPIHW.flatten(0, 1), out).unflatten(0, frames_BPIHW.shape[:2])


def patches(stem: nn.Conv2d, x_BTIHW: Tensor) -> Tensor:
    """Pictures [B, T, I, H, W] → vectors of their patches [B, T, N, D]."""
    return stem(x_BTIHW.flatten(0, 1)).flatten(2).transpose(1, 2).unflatten(0, x_BTIHW.shape[:2])


def zeroed[Layer: nn.Module](layer: Layer) -> Layer:
    """The layer gives zero. For heads this is zero flow and zero residual: training starts from "repeat the last"."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
