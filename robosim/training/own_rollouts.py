"""Training the dynamics on what they show themselves, so that they learn to put their own errors right.

Taught on true frames alone, a model meets at play a past that it has never seen: its own, a little off, and the next
frame is further off. Here, from some step on, a share of each batch's clips is rolled out by the present model: the
frames after a true beginning, and their drafts, are the model's own, the targets stay the true tokens (DAgger, Ross et
al., arXiv 1011.0686; for video "self forcing", Huang et al., arXiv 2506.08009).

Legend of shape suffixes: B clips, T time, N tokens of a frame, A latent action dimensions, F draft features.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robosim.world_model.decoding import SamplingConfig
from robosim.world_model.dynamics import Dynamics
from robosim.world_model.latent_action import LatentActionModel
from robosim.world_model.noise import sample_uniform
from robosim.world_model.tokenizer import Tokenizer
from robosim.world_model.world import Precision, WorldModel, seeded_generators

Batch = dict[str, Tensor]

LONGEST_CONTEXT = 4
"""True frames that a rollout to the end of a clip begins with, at most."""


@dataclass
class OwnRolloutsConfig:
    share: float = 0.0
    """Share of a batch's clips that the model rolls out itself; 0: none."""
    start: float = 0.5
    """Share of the steps after which that begins: a model that has learned little shows nothing to learn from."""
    length: int | None = None
    """Frames of such a rollout, after which the clip's true ones go on; None: to the end of the clip. After a long one
    the true tokens can't be told any more from what the model sees, and it learns to paint a mean: the arm fades."""

    def __post_init__(self) -> None:
        if not (0 <= self.share <= 1 and 0 <= self.start <= 1):
            raise ValueError(f"share and start lie between 0 and 1, got {self}")
        if self.length is not None and self.length < 1:
            raise ValueError(f"length must be at least 1, or null for the whole clip, got {self.length}")


class OwnRollouts:
    """Batches of `batches` with, from `first_step` on, a share of the clips rolled out by the present model.

    A pure function of the step and the model's weights: a resumed training draws the same.
    """

    def __init__(
        self,
        batches: Callable[[int, slice], Batch],
        dynamics: Dynamics,
        tokenizer: Tokenizer,
        latent_action: LatentActionModel,
        share: float,
        first_step: int,
        length: int | None = None,
        precision: Precision = "float32",
    ) -> None:
        self.batches, self.dynamics = batches, dynamics
        self.share, self.first_step, self.length = share, first_step, length
        self.precision: Precision = precision
        self._parts = tokenizer, latent_action
        self._world: WorldModel | None = None

    def __call__(self, step: int, rows: slice = slice(None)) -> Batch:
        batch = self.batches(step, rows)
        batch["seen"] = batch["tokens"].to(torch.long, copy=True)
        own_B = sample_uniform(batch["noise_seed"], (1,), salt=7)[:, 0] < self.share
        if step >= self.first_step and own_B.any():
            self._roll_out(batch, own_B.nonzero()[:, 0], *self._span(step, batch["tokens"].shape[1]))
        return batch

    def _span(self, step: int, frames: int) -> tuple[int, int]:
        """The first frame of a clip of so many that the model makes itself, and the first after those."""
        if self.length is None:
            return 1 + step % LONGEST_CONTEXT, frames
        first = 1 + step % max(1, frames - self.length)
        return first, min(frames, first + self.length)

    @torch.no_grad()
    def _roll_out(self, batch: Batch, own_B: Tensor, context: int, end: int) -> None:
        """Replace `seen` and `draft` of these clips after the first `context` frames, up to frame `end`."""
        world = self._present()
        device = world.device
        tokens_BTN, latent_BTA = (batch[name][own_B].to(device) for name in ("tokens", "latent_action"))
        latent_BTA = latent_BTA.float()
        generators = seeded_generators(batch["noise_seed"][own_B].tolist())
        state = world.start_tokens(tokens_BTN[:, :context].long(), latent_BTA, generators)
        for t in range(context, end):
            latent_BA = latent_BTA[:, t - 1]
            draft_BNF = world.draft(state, latent_BA)
            world.advance(state, latent_BA, draft_BNF)
            batch["seen"][own_B, t] = state.tokens_BN.cpu()
            if draft_BNF is not None:
                batch["draft"][own_B, t] = draft_BNF.to(batch["draft"])

    def _present(self) -> WorldModel:
        """The model as it is now, frozen: a copy, because training goes on with the original."""
        if self._world is None:
            # One pass a frame: the likeliest tokens, which is also what expected codes are best from.
            sampling = SamplingConfig(steps=1, temperature=0)
            tokenizer, latent_action = self._parts
            device = self.dynamics.mask_token.device
            twin = copy.deepcopy(self.dynamics).to(getattr(torch, self.precision))
            self._world = WorldModel(tokenizer.to(device), latent_action.to(device), twin, sampling)
        self._world.dynamics.load_state_dict(self.dynamics.state_dict())
        return self._world
