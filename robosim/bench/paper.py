"""Genie's own way to decode, as the yardstick: in each of 25 steps all frames of the window go through the dynamics.

Same models, same sampling rule and the same single decoding to pixels as in `WorldModel.step`; no cache. (Re-encoding
the last W frames is another function than the cached one, which sees the whole history under the band: design.md.)

Legend of shape suffixes: B rows, W window, N tokens of a frame, A latent action dimensions, F draft features, n some
of a frame's tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robosim.world_model.decoding import SamplingConfig, frame_noise, refine
from robosim.world_model.draft import draft_clips
from robosim.world_model.dynamics import has_past_like, led_to, tokens_at
from robosim.world_model.world import WorldModel, seeded_generators, to_uint8

PAPER_STEPS = 25
"""Genie, arXiv 2402.15391, section 2.2: 25 MaskGIT steps a frame."""


class PaperRollout:
    """Rollouts without a cache, from a window of frames uint8 [B, W, S, S, 3] and its latent actions [B, W, A]."""

    @torch.no_grad()
    def __init__(self, world: WorldModel, frames: Tensor, latents_BWA: Tensor) -> None:
        self.world = world
        self.sampling = SamplingConfig(
            PAPER_STEPS, world.sampling.temperature, world.sampling.order, expected=False
        )
        self.state = world.start(frames, latents_BWA[:, :-1], seeded_generators(range(len(frames))))
        self.tokens_BWN = world.tokenizer.encode_clips(frames.to(world.device))
        self.actions_BWA = led_to(latents_BWA.to(world.device))
        self.drafts_BWNF = None
        if world.dynamics.config.draft:
            made = self.tokens_BWN, latents_BWA.to(world.device)
            self.drafts_BWNF = draft_clips(world.tokenizer, world.latent_action, *made)

    @torch.no_grad()
    def step(self, latent_BA: Tensor) -> Tensor:
        """Advance every row by one frame; returns the new frames uint8 [B, H, W, 3]."""
        latent_BA = self.world.latent_action.snap(latent_BA)
        draft_BNF = self.world.draft(self.state, latent_BA)
        self.actions_BWA = slide(self.actions_BWA, latent_BA)
        if self.drafts_BWNF is not None and draft_BNF is not None:
            self.drafts_BWNF = slide(self.drafts_BWNF, draft_BNF)
        self.tokens_BWN = slide(self.tokens_BWN, torch.zeros_like(self.tokens_BWN[:, 0]))
        dynamics = self.world.dynamics
        noise = frame_noise(dynamics, self.state.generators, self.sampling)
        tokens_BN, _ = refine(self.predict, dynamics.digits, noise, self.sampling)
        self.tokens_BWN[:, -1] = tokens_BN
        self.world.show(self.state, tokens_BN)
        return to_uint8(self.state.frames)

    def predict(self, tokens_BN: Tensor, hidden_BN: Tensor, at_Bn: Tensor) -> list[Tensor]:
        """Logits of the last frame's tokens `at_Bn`, from the whole window."""
        dynamics = self.world.dynamics
        tokens_BWN = torch.cat([self.tokens_BWN[:, :-1], tokens_BN[:, None]], 1)
        hidden_BWN = torch.zeros_like(tokens_BWN, dtype=torch.bool)
        hidden_BWN[:, -1] = hidden_BN
        has_past = has_past_like(tokens_BWN)
        x, condition = dynamics.embed(tokens_BWN, hidden_BWN, self.actions_BWA, self.drafts_BWNF, has_past)
        last_BND = dynamics.of_tokens(dynamics.body(x, condition))[:, -1]
        draft = None if self.drafts_BWNF is None else tokens_at(self.drafts_BWNF[:, -1], at_Bn)
        return dynamics.logits(tokens_at(last_BND, at_Bn), draft)


def slide(window_BW: Tensor, newest_B: Tensor) -> Tensor:
    """The window one frame later."""
    return torch.cat([window_BW[:, 1:], newest_B[:, None].to(window_BW)], 1)
