"""Latent action model: what changed between two frames, as a few numbers, learned from pixels alone.

The paper's decoder (arXiv 2402.15391, section 2.1) predicts the next frame directly, and for a long time does so
without its code. Here the forward model *warps* the frame by a flow and *corrects* it, both from the code, which
starts as "nothing moves" and has to use the code to gain anything. The direct decoder stays as
`forward_model="direct"`, the paper's eight discrete actions as `kind="discrete"`.

Legend of shape suffixes: B batch, T frames of a clip, P = T − 1 pairs of consecutive frames, I image channels, H/W
pixels, A latent action dimensions, K codes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robosim.checkpoint import ONLY_TRAINING
from robosim.ranks import gather_over_ranks
from robosim.world_model.batch_norm import BatchNorm
from robosim.world_model.latent_action_networks import (
    ClipEncoder,
    ClipForwardModel,
    ConvForwardModel,
    PairEncoder,
)
from robosim.world_model.metrics import moving_mask, pooled_psnr, unit
from robosim.world_model.noise import sample_uniform
from robosim.world_model.quantise import FSQ, VectorQuantiser, kmeans
from robosim.world_model.st_transformer import STConfig

BOUND = 1.5
"""Latent actions lie in [−BOUND, BOUND]."""

CHUNK = 64
"""Clips that are evaluated at once."""

HORIZONS = (1, 4, 8, 16)
"""Frames after which `evaluate_own_rollouts` looks."""


@dataclass
class LatentActionConfig:
    kind: Literal["bounded", "discrete"] = "bounded"
    """bounded: a few bounded dimensions; discrete: one of `codes` vectors, the paper's."""
    quantise: Literal["noise", "fsq"] = "noise"
    """How much kind=bounded can carry: uniform noise in training, or rounding."""
    dim: int = 5
    levels: tuple[int, ...] = (9, 9, 9, 9, 9)
    """Levels a dimension, with quantise=fsq."""
    codes: int = 8
    """Playable latent actions: the codebook with kind=discrete, k-means centres with kind=bounded."""
    noise: float = field(default=0.5, metadata=ONLY_TRAINING)
    """Width of the uniform training noise, with quantise=noise."""
    network: Literal["conv", "transformer"] = "conv"
    patch: int = 16
    """Pixels a patch's side, with network=transformer."""
    transformer: STConfig = field(default_factory=lambda: STConfig(dim=128, heads=4, layers=4, window=1))
    """Of the encoder and of the forward model each; a window of more than 1 sees the past."""
    forward_model: Literal["warp", "direct"] = "warp"
    """warp: warp and correct; direct: the paper's decoder."""
    channels: int = 64
    """Width of the convolutions, with network=conv."""
    blocks: int = 3
    moving_weight: float = field(default=30.0, metadata=ONLY_TRAINING)
    """Extra loss weight on moving pixels: they are few."""
    max_flow: float = 0.5
    """Scale of the flow, in half frame widths."""
    keep_pairs: float = field(default=0.75, metadata=ONLY_TRAINING)
    """Share of a batch's pairs, those that move most, which the loss looks at; with `chain` of its clips."""
    chain: bool = field(default=False, metadata=ONLY_TRAINING)
    """Predict each frame of a training clip from the prediction before it, not from the true frame: errors of motion
    add up over the clip, as they do at play, so that the latent actions learn to be exact. Not where the model sees
    the past."""

    def __post_init__(self) -> None:
        if self.kind == "bounded" and self.quantise == "fsq" and len(self.levels) != self.dim:
            raise ValueError(
                f"quantise=fsq needs one level a dimension: dim {self.dim}, levels {self.levels}"
            )
        if self.channels % 8 or min(self.dim, self.blocks, self.patch) < 1 or self.codes < 2:
            raise ValueError(
                "channels must be a multiple of 8, dim, blocks and patch at least 1, codes at least 2; "
                f"got {self}"
            )
        if not 0 < self.keep_pairs <= 1:
            raise ValueError(f"keep_pairs must be above 0 and at most 1, got {self.keep_pairs}")
        if self.chain and self.sees_past:
            raise ValueError(
                "chain=true needs a model that predicts from one frame: network=conv or transformer.window=1, "
                f"got a window of {self.transformer.window}"
            )

    @property
    def sees_past(self) -> bool:
        """Whether a prediction depends on frames before the last."""
        return self.network == "transformer" and self.transformer.window > 1


class LatentActionModel(nn.Module):
    """Infers the latent action between two frames, and predicts the second frame from the first and the action."""

    playable: Tensor

    def __init__(self, config: LatentActionConfig, size: int) -> None:
        super().__init__()
        unit_size = 16 if config.network == "conv" else config.patch
        if size % unit_size:
            raise ValueError(
                f"frame size {size} must be a multiple of {unit_size} for network={config.network}"
            )
        self.config, self.size = config, size
        conv = config.network == "conv"
        self.encoder = (PairEncoder if conv else ClipEncoder)(config, size)
        self.forward_model = (ConvForwardModel if conv else ClipForwardModel)(config, size)
        # Normalised before it is bounded, so that no dimension can saturate or die.
        self.norm = BatchNorm(config.dim)
        self.quantiser: FSQ | VectorQuantiser | None = None
        if config.kind == "discrete":
            self.quantiser = VectorQuantiser(config.codes, config.dim, normalise=False)
        elif config.quantise == "fsq":
            self.quantiser = FSQ(config.levels)
        self.register_buffer("playable", torch.zeros(config.codes, config.dim))

    def quantise(
        self, z_BPA: Tensor, counts_BP: Tensor | None = None, noise_BPA: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Bound and quantise; returns the latent actions and the quantiser's loss.

        In training `counts_BP` says from which pairs statistics are taken, and `noise_BPA` is uniform in [0, 1).
        """
        z_BPA = self.norm(z_BPA, counts_BP)
        if isinstance(self.quantiser, FSQ):
            return self.quantiser(z_BPA)
        latent = torch.tanh(z_BPA) * BOUND
        if self.quantiser is not None:
            return self.quantiser(latent, counts_BP)
        if noise_BPA is not None:
            latent = latent + (noise_BPA - 0.5) * self.config.noise
        return latent, latent.new_zeros(())

    def infer(self, frames: Tensor, next_frames: Tensor) -> Tensor:
        """Latent actions float32 [B, A] between `frames` and `next_frames`, [B, H, W, 3] uint8 or float."""
        return self.infer_clips(torch.stack([frames, next_frames], 1))[:, 0]

    def infer_clips(self, frames_BTHWI: Tensor) -> Tensor:
        """Latent actions float32 [B, T − 1, A] between the frames of clips, uint8 or float."""
        return self.quantise(self.encoder(channels_first(frames_BTHWI)))[0]

    def predict(self, frames: Tensor, latent_BA: Tensor) -> Tensor:
        """The frames after `frames` [B, H, W, 3], each the first of a clip: float32 in [0, 1]."""
        return self.predict_clips(frames[:, None], latent_BA[:, None])[:, 0]

    def predict_clips(self, frames_BPHWI: Tensor, latent_BPA: Tensor) -> Tensor:
        """For each frame of clips [B, P, H, W, 3] the one after it, float32 in [0, 1]."""
        predicted = self.forward_model(channels_first(frames_BPHWI), latent_BPA)
        return predicted.permute(0, 1, 3, 4, 2).clamp(0, 1)

    def snap(self, latent: Tensor) -> Tensor:
        """The nearest latent action [..., A] that the model knows: a code if discrete, else `latent` itself."""
        if isinstance(self.quantiser, VectorQuantiser):
            return self.quantiser.codes(self.quantiser.tokens(latent))
        return latent

    @torch.no_grad()
    def choose_playable(self, latents_MA: Tensor, seed: int) -> None:
        """Set the playable latent actions: the codebook if discrete, else k-means centres of the video's."""
        if isinstance(self.quantiser, VectorQuantiser):
            self.playable.copy_(self.quantiser.codebook)
        else:
            self.playable.copy_(kmeans(latents_MA, self.config.codes, seed))

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """`frames` uint8 [B, T, H, W, 3], `noise_seed` int64 [B]. Squared error, heavier on moving pixels.

        Of all processes' pairs those that move most count. With network=conv only they are looked at, which saves
        their time; a process that has none looks at one, with weight 0, so that no other waits for it. With `chain`
        whole clips are kept, and a pixel also counts as moving where it differs from the clip's first frame.
        """
        frames_BTHWI = unit(batch["frames"])
        if self.config.chain:
            return self.chain_loss(frames_BTHWI, batch["noise_seed"], batch.get("restart"))
        moved_BPHW = moving_mask(frames_BTHWI[:, 1:], frames_BTHWI[:, :-1])
        kept_BP = self.liveliest(moved_BPHW.flatten(2).float().mean(2))
        noise_BPA = sample_uniform(batch["noise_seed"], (*kept_BP.shape[1:], self.config.dim), salt=1)
        clips = channels_first(frames_BTHWI)
        if self.config.network == "conv":
            row, pair = (kept_BP if kept_BP.any() else first_only(kept_BP)).nonzero(as_tuple=True)
            clips = torch.stack([clips[row, pair], clips[row, pair + 1]], 1)
            kept_BP, noise_BPA, moved_BPHW = (v[row, pair][:, None] for v in (kept_BP, noise_BPA, moved_BPHW))
        latent_BPA, quantiser_loss = self.quantise(self.encoder(clips), kept_BP, noise_BPA)
        error_BPHW = (self.forward_model(clips[:, :-1], latent_BPA) - clips[:, 1:]).square().mean(2)
        weight_BPHW = kept_BP[..., None, None] * (1 + self.config.moving_weight * moved_BPHW)
        kept = kept_BP.sum()
        loss = (weight_BPHW * error_BPHW).mean((2, 3)).sum() / kept.clamp(min=1) + quantiser_loss
        moving = (kept_BP[..., None, None] & moved_BPHW).float()
        moving_error = (moving * error_BPHW.detach()).sum() / moving.sum().clamp(min=1)
        return loss, {"moving_psnr_db": -10 * torch.log10(moving_error + 1e-10), "weight": kept.float()}

    def chain_loss(
        self, frames_BTHWI: Tensor, noise_seed_B: Tensor, restart_B: Tensor | None
    ) -> tuple[Tensor, dict[str, Any]]:
        """`forward` with `chain`: a clip's first frame and its latent actions alone give all the others.

        `restart_B` float: share of a clip's frames that are predicted from the true frame before them all the same.
        """
        moved_BPHW = moving_mask(frames_BTHWI[:, 1:], frames_BTHWI[:, :-1])
        kept_B = self.liveliest(moved_BPHW.flatten(1).float().mean(1, keepdim=True))[:, 0]
        weight = kept_B.sum()
        if not weight:  # see `forward`
            kept_B = first_only(kept_B[:, None])[:, 0]
        pairs = moved_BPHW.shape[1]
        noise_BPA = sample_uniform(noise_seed_B, (pairs, self.config.dim), salt=1)[kept_B]
        frames_BTHWI, moved_BPHW = frames_BTHWI[kept_B], moved_BPHW[kept_B]
        first_BPHWI = frames_BTHWI[:, :1].expand_as(frames_BTHWI[:, 1:])
        moved_BPHW = moved_BPHW | moving_mask(frames_BTHWI[:, 1:], first_BPHWI)
        clips = channels_first(frames_BTHWI)
        counts_BP = weight.clamp(max=1).bool().expand(len(clips), pairs)
        latent_BPA, quantiser_loss = self.quantise(self.encoder(clips), counts_BP, noise_BPA)
        afresh_BP = torch.zeros(len(clips), pairs, dtype=torch.bool, device=clips.device)
        if restart_B is not None:
            afresh_BP = (sample_uniform(noise_seed_B, (pairs,), salt=8) < restart_B[:, None])[kept_B]
        frame, errors = clips[:, :1], []
        for p in range(pairs):
            frame = torch.where(afresh_BP[:, p, None, None, None, None], clips[:, p : p + 1], frame)
            frame = self.forward_model(frame, latent_BPA[:, p : p + 1])
            errors.append((frame[:, 0] - clips[:, p + 1]).square().mean(1))
        error_BPHW = torch.stack(errors, 1) * weight.clamp(max=1)
        loss = ((1 + self.config.moving_weight * moved_BPHW) * error_BPHW).mean() + quantiser_loss
        moving_error = (moved_BPHW * error_BPHW.detach()).sum() / moved_BPHW.sum().clamp(min=1)
        return loss, {"moving_psnr_db": -10 * torch.log10(moving_error + 1e-10), "weight": weight.float()}

    def liveliest(self, motion_BP: Tensor) -> Tensor:
        """Bool [B, P]: the pairs among the `keep_pairs` of all processes that move most."""
        everywhere = gather_over_ranks(motion_BP.flatten())
        keep = max(2, round(len(everywhere) * self.config.keep_pairs))
        least = everywhere.sort(descending=True).values[min(keep, len(everywhere)) - 1]
        return motion_BP >= least


def first_only(like_BP: Tensor) -> Tensor:
    """Bool [B, P], true at the first place alone."""
    first = torch.zeros_like(like_BP)
    first[0, 0] = True
    return first


def channels_first(frames: Tensor) -> Tensor:
    """[..., H, W, 3] of uint8 or float → float32 [..., 3, H, W]."""
    return unit(frames).movedim(-1, -3)


@torch.no_grad()
def infer_clip(model: LatentActionModel, frames: Tensor) -> Tensor:
    """Latent actions of one clip: uint8 [T, H, W, 3] → float32 [T, A]; the last row, after the clip, is zero."""
    latent = model.infer_clips(frames[None])[0]
    return torch.cat([latent, latent.new_zeros(1, latent.shape[1])])


@torch.no_grad()
def evaluate_latent_actions(model: LatentActionModel, clips: Tensor, seed: int = 0) -> dict[str, float]:
    """One-step prediction in held-out `clips` uint8 [B, T, H, W, 3], PSNR on moving pixels.

    `shuffled_psnr_db` uses latent actions permuted among the clips: if it is as good, they carry nothing. A
    discrete model's `codes_used` counts the codes that the clips use.
    """
    model.eval()
    x, y = clips[:, :-1], clips[:, 1:]
    latent = torch.cat([model.infer_clips(part) for part in clips.split(CHUNK)])
    order = torch.randperm(len(latent), generator=torch.Generator().manual_seed(seed)).to(latent.device)
    moving = moving_mask(y, x)
    figures = {}
    for name, code in (("psnr_db", latent), ("shuffled_psnr_db", latent[order])):
        parts = zip(x.split(CHUNK), code.split(CHUNK), strict=True)
        predicted = torch.cat([model.predict_clips(part, z) for part, z in parts])
        figures[name] = pooled_psnr(predicted, y, moving)
    figures["repeat_last_psnr_db"] = pooled_psnr(x, y, moving)
    if isinstance(model.quantiser, VectorQuantiser):
        figures["codes_used"] = int(model.quantiser.tokens(latent).unique().numel())
    return figures


@torch.no_grad()
def evaluate_own_rollouts(model: LatentActionModel, clips: Tensor) -> dict[str, float]:
    """PSNR on moving pixels by horizon, a frame predicted from the prediction before it; `clips` uint8 [B, T, H, W, 3].

    Latent actions and pixels alone, without tokens: what a draft is worth after a while, and so about what the
    dynamics can reach. Pixels count as moving where they differ from the clip's first frame.
    """
    model.eval()
    latents_BPA = torch.cat([model.infer_clips(part) for part in clips.split(CHUNK)])
    frames, figures = unit(clips[:, 0]), {}
    for step, latent_BA in enumerate(latents_BPA.unbind(1), 1):
        parts = zip(frames.split(CHUNK), latent_BA.split(CHUNK), strict=True)
        frames = torch.cat([model.predict(part, latent) for part, latent in parts])
        if step in HORIZONS:
            figures[str(step)] = pooled_psnr(frames, clips[:, step], moving_mask(clips[:, step], clips[:, 0]))
    return figures
