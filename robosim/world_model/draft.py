"""Drafts: a first guess of the next frame, in the tokenizer's own space.

The frozen forward model of the latent action model moves the decoded frame; the tokenizer encodes the result. The
draft carries the motion, the dynamics' tokens keep the picture sharp and on the manifold.

Legend of shape suffixes: B batch, T time, N tokens of a frame, C code dimensions, A latent action dimensions, F = 2C
draft features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robosim.world_model.latent_action import LatentActionModel
from robosim.world_model.tokenizer import Tokenizer, TokenizerState


def check_draft(tokenizer: Tokenizer, latent_action: LatentActionModel) -> None:
    """Raise `ValueError` where drafts can't be made of these two: a draft knows one decoded frame, no more."""
    if tokenizer.size != latent_action.size:
        raise ValueError(
            f"a draft needs one frame size, got a tokenizer of {tokenizer.size} px and latent actions of "
            f"{latent_action.size} px"
        )
    if latent_action.config.sees_past:
        raise ValueError(
            "draft=true needs a latent action model that predicts from one frame: latent_action.model.network=conv "
            f"or latent_action.model.transformer.window=1, got {latent_action.config.transformer.window}; or set "
            "dynamics.model.draft=false"
        )


@torch.no_grad()
def draft_next(
    tokenizer: Tokenizer,
    latent_action: LatentActionModel,
    codes_BNC: Tensor,
    frames: Tensor,
    latent_BA: Tensor,
    state: TokenizerState,
) -> Tensor:
    """Draft features float32 [B, N, F] of the frame after the one with these codes, whose decoded pixels are `frames`.

    The first C numbers are the drafted frame's encoding. The second C are the present codes plus the *change* of
    the encoding: encoding a decoded frame doesn't return its own tokens, and this difference cancels that error
    wherever the draft left the picture alone. `frames` join the encoder's past in `state`, the draft doesn't: call
    it once a frame.
    """
    predicted = latent_action.predict(frames, latent_BA)
    if tokenizer.temporal:
        now = tokenizer.features_next(frames, state, commit=True)
        then = tokenizer.features_next(predicted, state, commit=False)
    else:  # both in one pass
        now, then = tokenizer.features_next(torch.cat([frames, predicted]), state, commit=False).chunk(2)
    return torch.cat([then, codes_BNC + then - now], -1)


@torch.no_grad()
def draft_clips(
    tokenizer: Tokenizer, latent_action: LatentActionModel, tokens_BTN: Tensor, latent_BTA: Tensor
) -> Tensor:
    """Draft features float32 [B, T, N, F] of whole clips, as `draft_next` makes them frame by frame.

    Row t drafts frame t, from frame t − 1 and `latent_BTA[:, t - 1]`; row 0 is zero.
    """
    batch, time = tokens_BTN.shape[:2]
    frames, codes_BTNC = tokenizer.decode_clips(tokens_BTN), tokenizer.codes(tokens_BTN)
    drafts = torch.zeros(
        *tokens_BTN.shape, 2 * tokenizer.code_dim, dtype=torch.float32, device=tokens_BTN.device
    )
    if time == 1:
        return drafts
    if tokenizer.temporal:
        state = tokenizer.new_state(batch)
        for t in range(time - 1):
            now = codes_BTNC[:, t], frames[:, t], latent_BTA[:, t]
            drafts[:, t + 1] = draft_next(tokenizer, latent_action, *now, state)
    else:
        codes, now, latents = (value[:, :-1].flatten(0, 1) for value in (codes_BTNC, frames, latent_BTA))
        rows = draft_next(tokenizer, latent_action, codes, now, latents, tokenizer.new_state(len(codes)))
        drafts[:, 1:] = rows.unflatten(0, (batch, time - 1))
    return drafts
