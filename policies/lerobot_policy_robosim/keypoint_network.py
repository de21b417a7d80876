"""Frame → latent action through the expected positions of a few learned keypoints.

Legend: N batch, C channels, H, W pixels, h, w cells of the feature map, K keypoints, A latent dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SHARPNESS = 5.0
"""Of the softmax at the start. An unsharpened one looks at the whole picture at once: every keypoint begins at its
centre, and training stands still for hundreds of steps."""


def coordinate_planes(height: int, width: int, like: Tensor) -> Tensor:
    """x and y of each cell's centre in -1…1: [2, height, width]."""
    y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) * (2 / height) - 1
    x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) * (2 / width) - 1
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])


def soft_argmax(scores_NKhw: Tensor) -> Tensor:
    """Expected cell position under the softmax of each score map, in -1…1: [N, K, 2].

    The spatial softmax of Levine et al., "End-to-End Training of Deep Visuomotor Policies" (2016), section 4.2:
    it says *where* something is, more finely than a cell, and from few demonstrations.
    """
    weights = scores_NKhw.flatten(2).softmax(-1)
    planes = coordinate_planes(*scores_NKhw.shape[-2:], like=scores_NKhw).flatten(1)
    return torch.einsum("nks,cs->nkc", weights, planes)


class KeypointNetwork(nn.Module):
    """Image [N, 3, H, W] in 0…1 → bounded vector [N, A] in (-bound, bound). `channels` is a multiple of 8."""

    def __init__(
        self, outputs: int, bound: float, channels: int = 32, keypoints: int = 32, hidden: int = 256
    ):
        super().__init__()
        self.bound = bound
        self.features = nn.Sequential(
            nn.Conv2d(5, channels // 2, 5, stride=2, padding=2),
            nn.GroupNorm(4, channels // 2),
            nn.ReLU(),
            nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1),
            nn.GroupNorm(4, channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(4, channels),
            nn.ReLU(),
            nn.Conv2d(channels, keypoints, 1),
        )
        self.sharpness = nn.Parameter(torch.full((keypoints, 1, 1), SHARPNESS))
        self.head = nn.Sequential(
            nn.Linear(2 * keypoints, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, outputs),
        )

    def forward(self, image_NCHW: Tensor) -> Tensor:
        planes = coordinate_planes(*image_NCHW.shape[-2:], like=image_NCHW)
        x = torch.cat([image_NCHW * 2 - 1, planes.expand(len(image_NCHW), -1, -1, -1)], dim=1)
        points_NKc = soft_argmax(self.sharpness * self.features(x))
        return self.bound * torch.tanh(self.head(points_NKc.flatten(1)))
