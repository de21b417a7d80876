"""Examples for behaviour cloning on latent actions, mixed and augmented: pure functions of (seed, step)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Examples:
    """F frames, the latent action wanted at each, and how much each counts (mean 1)."""

    frames: Tensor
    """uint8 [F, H, W, 3]"""
    latents: Tensor
    """float32 [F, A]"""
    weights: Tensor
    """float32 [F]"""

    @classmethod
    def equal(cls, frames: Tensor, latents: Tensor) -> Examples:
        """Every example counts the same."""
        return cls(frames, latents, torch.ones(len(frames)))

    def __len__(self) -> int:
        return len(self.frames)


class MixedBatches:
    """Batches that draw each row from one of several sources, with `shares` as the probabilities.

    `shift` is the largest move of the picture in pixels (edges repeat), `colour` the largest relative change of
    brightness and of each colour. Both are small: they stand for the camera's and the renderer's inaccuracy, not
    for another scene.
    """

    def __init__(
        self,
        sources: Sequence[Examples],
        shares: Sequence[float],
        image_key: str,
        batch: int,
        seed: int,
        shift: int = 2,
        colour: float = 0.1,
    ) -> None:
        self.sources, self.image_key = sources, image_key
        self.shares = torch.tensor(shares, dtype=torch.float32)
        self.batch, self.seed, self.shift, self.colour = batch, seed, shift, colour

    def __call__(self, step: int, rows: slice = slice(None)) -> dict[str, Tensor]:
        """These `rows` of the batch of `step`: image [B, 3, H, W] in 0…1, "latent_action" [B, A], "weight" [B]."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        chosen = torch.multinomial(self.shares, self.batch, replacement=True, generator=generator)
        place = torch.rand(self.batch, generator=generator)
        frames, latents, weights = [], [], []
        for source, fraction in zip(chosen.tolist(), place.tolist(), strict=True):
            examples = self.sources[source]
            row = min(int(fraction * len(examples)), len(examples) - 1)
            frames.append(examples.frames[row])
            latents.append(examples.latents[row])
            weights.append(examples.weights[row])
        image = images(torch.stack(frames))
        image = _colour(_shift(image, self.shift, generator), self.colour, generator)
        batch = {self.image_key: image, "latent_action": torch.stack(latents), "weight": torch.stack(weights)}
        return {name: value[rows] for name, value in batch.items()}


@torch.no_grad()
def cloning_error(policy: Any, examples: Examples) -> dict[str, float]:
    """Mean squared error of the policy's latent actions, and that of the best constant."""
    frames = images(examples.frames).split(256)
    key, device = policy.config.image_key, policy.config.device
    latents = torch.cat([policy.predict_latent({key: x.to(device)}).cpu() for x in frames])
    return {
        "bc_loss": (latents - examples.latents).square().mean().item(),
        "bc_constant_loss": examples.latents.var(dim=0, correction=0).mean().item(),
    }


def images(frames: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] → float32 [N, 3, H, W] in 0…1, as LeRobot hands pictures to a policy."""
    return frames.permute(0, 3, 1, 2).float() / 255


def _shift(image: Tensor, most: int, generator: torch.Generator) -> Tensor:
    if most == 0:
        return image
    height, width = image.shape[-2:]
    padded = torch.nn.functional.pad(image, (most,) * 4, mode="replicate")
    corner = torch.randint(0, 2 * most + 1, (len(image), 2), generator=generator).tolist()
    return torch.stack(
        [row[:, y : y + height, x : x + width] for row, (y, x) in zip(padded, corner, strict=True)]
    )


def _colour(image: Tensor, most: float, generator: torch.Generator) -> Tensor:
    brightness = torch.rand(len(image), 1, 1, 1, generator=generator)
    tint = torch.rand(len(image), 3, 1, 1, generator=generator)
    gain = 1 + most * (brightness + tint - 1)
    return (image * gain).clamp(0, 1)
