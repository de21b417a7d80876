"""Drafts: a first guess of the next frame, in the tokenizer's own space.

The frozen forward model of the latent action model moves the decoded frame; the tokenizer encodes the result. The
draft carries the motion, the dynamics' tokens keep the picture sharp and on the manifold.

Legend of shape suffixes: B batch, N tokens of a frame, C code dimensions, A latent action dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robosim.world_model.latent_action import LatentActionModel
from robosim.world_model.tokenizer import Tokenizer


@torch.no_grad()
def draft_next(
    tokenizer: Tokenizer,
    latent_action: LatentActionModel,
    tokens_BN: Tensor,
    frames: Tensor,
    latent_BA: Tensor,
) -> Tensor:
    """Draft features float32 [B, N, 2C] of the frame after `tokens_BN`, whose decoded pixels are `frames`.

    The first C numbers are the drafted frame's encoding. The second C are the present codes plus the *change* of
    the encoding: encoding a decoded frame doesn't return its own tokens, and this difference cancels that error
    wherever the draft left the picture alone.
    """
    predicted = latent_action.predict(frames, latent_BA)
    both = tokenizer.fsq.normalised(tokenizer.features(torch.cat([frames, predicted])))
    now, then = both.chunk(2)
    return torch.cat([then, tokenizer.fsq.codes(tokens_BN) + then - now], -1)
