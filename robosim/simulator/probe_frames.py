"""A few held-out pairs of frames that travel with a shipped simulator, to see that it still predicts as it did.

Legend of shape suffixes: P pairs, H/W pixels, A latent action dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from robosim_datasets.folders import write_errors

from robosim.errors import CheckpointError
from robosim.world_model.metrics import moving_mask, pooled_psnr
from robosim.world_model.world import WorldModel

FILE = "probe_frames.npz"

SEED = 0
"""Of the noise under which the pairs are predicted."""


@dataclass(frozen=True)
class ProbeFrames:
    """Frames, what followed them, and the latent actions that led there."""

    context: np.ndarray
    """uint8 [P, 1, H, W, 3]"""
    following: np.ndarray
    """uint8 [P, H, W, 3]"""
    latents: np.ndarray
    """float32 [P, A], as the simulator's own latent action model infers them"""

    @classmethod
    def of_clips(cls, world: WorldModel, clips: np.ndarray) -> ProbeFrames:
        """From clips of two frames, uint8 [P, 2, H, W, 3]."""
        latents = world.infer_latents(torch.from_numpy(clips))[:, 0]
        return cls(clips[:, :1], clips[:, 1], latents.cpu().numpy())

    @classmethod
    def read(cls, folder: Path) -> ProbeFrames:
        """Read a folder's `FILE`. Raises `CheckpointError` where it is missing or damaged."""
        path = folder / FILE
        try:
            with np.load(path, allow_pickle=False) as archive:
                return cls(archive["context"], archive["following"], archive["latents"])
        except Exception as error:  # zipfile, zlib and NumPy each raise their own classes on a damaged file
            raise CheckpointError(
                f"{path} is missing or damaged ({error}); ship the simulator again: robosim ship"
            ) from error

    def write(self, folder: Path) -> None:
        arrays = {"context": self.context, "following": self.following, "latents": self.latents}
        with write_errors(folder / FILE):
            np.savez_compressed(folder / FILE, allow_pickle=False, **arrays)


def one_step_psnr(world: WorldModel, pairs: ProbeFrames) -> dict[str, float]:
    """How well the frame after each pair's first is predicted, dB: on all pixels and on those that move."""
    latents = torch.from_numpy(pairs.latents)[:, None]
    predicted = world.rollout(torch.from_numpy(pairs.context), latents, SEED)[:, 0].cpu()
    true, before = torch.from_numpy(pairs.following), torch.from_numpy(pairs.context)[:, 0]
    moving = moving_mask(true, before)
    return {
        "one_step_psnr_db": pooled_psnr(predicted, true),
        "one_step_moving_psnr_db": pooled_psnr(predicted, true, moving),
    }
