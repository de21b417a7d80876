"""The world model put together: frames in, latent actions in, frames out.

Legend of shape suffixes: B rows, T time, N tokens of a frame, E dimensions of a code, A latent action dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from robosim.checkpoint import load_tensors, read_json
from robosim.config import build
from robosim.errors import CheckpointError, ConfigError
from robosim.world_model.decoding import SamplingConfig, commit_frame, refine_frame
from robosim.world_model.draft import check_draft, draft_next
from robosim.world_model.dynamics import Dynamics, DynamicsConfig
from robosim.world_model.latent_action import LatentActionConfig, LatentActionModel
from robosim.world_model.temporal_cache import TemporalCache
from robosim.world_model.tokenizer import Tokenizer, TokenizerConfig, TokenizerState

Precision = Literal["float32", "bfloat16"]


@dataclass
class RolloutState:
    """Where a batch of rollouts stands. A position a row: rows may have started at different times."""

    tokens_BN: Tensor
    """The present frames' tokens, which the dynamics remember."""
    codes_BNE: Tensor
    """The codes that the present frames were decoded from: the tokens' own, or expected ones (see `decoding.py`)."""
    frames: Tensor
    """The present frames, decoded: float32 in [0, 1], [B, H, W, 3]."""
    cache: TemporalCache
    """The dynamics' past."""
    codec: TokenizerState
    """The tokenizer's past; empty where it codes each frame alone."""
    generators: list[torch.Generator]

    def copy(self) -> RolloutState:
        """A branch: it and the original go on independently, with the same noise ahead."""
        generators = [torch.Generator().set_state(generator.get_state()) for generator in self.generators]
        past = self.cache.copy(), self.codec.copy()
        present = self.tokens_BN.clone(), self.codes_BNE.clone(), self.frames.clone()
        return RolloutState(*present, *past, generators)

    def take_rows(self, rows: Tensor) -> RolloutState:
        """`rows` (int64) as a state of their own, with the very generators of those rows."""
        generators = [self.generators[row] for row in rows.tolist()]
        past = self.cache.take_rows(rows), self.codec.take_rows(rows)
        present = self.tokens_BN[rows], self.codes_BNE[rows], self.frames[rows]
        return RolloutState(*present, *past, generators)

    def put_rows(self, rows: Tensor, other: RolloutState) -> None:
        """Overwrite `rows` (int64) by all the rows of `other`, as when single rows are reset."""
        self.tokens_BN[rows], self.codes_BNE[rows] = other.tokens_BN, other.codes_BNE
        self.frames[rows] = other.frames
        self.cache.put_rows(rows, other.cache)
        self.codec.put_rows(rows, other.codec)
        for row, generator in zip(rows.tolist(), other.generators, strict=True):
            self.generators[row] = generator


@dataclass
class WorldModel:
    """Tokenizer, latent action model and dynamics, frozen, with the sampling used at play."""

    tokenizer: Tokenizer
    latent_action: LatentActionModel
    dynamics: Dynamics
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        for module in (self.tokenizer, self.latent_action, self.dynamics):
            module.eval().requires_grad_(False)
        if self.dynamics.config.draft:
            check_draft(self.tokenizer, self.latent_action)

    @classmethod
    def load(cls, run: Path, device: str = "cpu", precision: Precision = "float32") -> WorldModel:
        """Load the three models of a run folder. Raises `CheckpointError` when one is missing or damaged.

        `precision`: number type of the dynamics' weights and cache.
        """
        tokenizer = load_tokenizer(run / "tokenizer")
        latent_action = load_latent_action(run / "latent_action")
        dynamics, sampling = load_dynamics(run / "dynamics", tokenizer, latent_action)
        dynamics = dynamics.to(device, getattr(torch, precision))
        parts = (tokenizer.to(device), latent_action.to(device), dynamics)
        return cls(*parts, sampling=sampling)

    @property
    def device(self) -> torch.device:
        return self.dynamics.mask_token.device

    @property
    def size(self) -> int:
        return self.tokenizer.size

    @property
    def latent_dim(self) -> int:
        return self.latent_action.config.dim

    @property
    def playable(self) -> Tensor:
        """The playable latent actions, float32 [K, A]: centres of the training video's latent actions."""
        return self.latent_action.playable

    @torch.no_grad()
    def encode_frames(self, frames: Tensor) -> Tensor:
        """Frames uint8 or float [..., H, W, 3], each alone → tokens int64 [..., N]."""
        return self.tokenizer.encode(frames.to(self.device))

    @torch.no_grad()
    def decode_tokens(self, tokens: Tensor) -> Tensor:
        """Tokens [..., N], each frame's alone → frames uint8 [..., H, W, 3]."""
        return to_uint8(self.tokenizer.decode(tokens.to(self.device)))

    @torch.no_grad()
    def reconstruct_clips(self, frames_BTHWI: Tensor) -> Tensor:
        """Clips uint8 [B, T, H, W, 3] → what the tokenizer, which may look back in time, gives back of them; uint8."""
        tokens_BTN = self.tokenizer.encode_clips(frames_BTHWI.to(self.device))
        return to_uint8(self.tokenizer.decode_clips(tokens_BTN))

    @torch.no_grad()
    def infer_latents(self, frames: Tensor) -> Tensor:
        """Clips uint8 [B, T, H, W, 3] → latent actions float32 [B, T − 1, A]."""
        return self.latent_action.infer_clips(frames.to(self.device))

    @torch.no_grad()
    def start(
        self,
        frames: Tensor,
        latents: Tensor | None = None,
        generators: Sequence[torch.Generator] | None = None,
    ) -> RolloutState:
        """Begin rollouts from context `frames` uint8 [B, C, H, W, 3], the last being the present.

        `latents` [B, C − 1, A] between the context frames; inferred from them by default.
        """
        if frames.ndim != 5 or frames.shape[1] < 1:
            raise ValueError(f"context frames must be [B, C, H, W, 3] with C ≥ 1, got {tuple(frames.shape)}")
        frames = frames.to(self.device)
        rows, length = frames.shape[:2]
        if latents is None:
            nothing = torch.zeros(rows, 0, self.latent_dim, device=self.device)
            latents = self.infer_latents(frames) if length > 1 else nothing
        generators = list(generators) if generators is not None else seeded_generators(range(rows))
        return self.start_tokens(self.tokenizer.encode_clips(frames), latents, generators)

    @torch.no_grad()
    def start_tokens(
        self, tokens_BTN: Tensor, latents: Tensor, generators: list[torch.Generator]
    ) -> RolloutState:
        """Begin rollouts from the tokens of context frames [B, C, N], the last being the present."""
        rows, length = tokens_BTN.shape[:2]
        past = self.dynamics.body.new_cache(rows), self.tokenizer.new_state(rows)
        state = RolloutState(tokens_BTN[:, 0], torch.empty(0), torch.empty(0), *past, generators)
        for t in range(length):
            self.take_known(state, tokens_BTN[:, t], latents[:, t - 1] if t else None)
        return state

    @torch.no_grad()
    def step(self, state: RolloutState, latent_BA: Tensor) -> Tensor:
        """Advance every row by one frame, in place; returns the new frames uint8 [B, H, W, 3]."""
        latent_BA = self.latent_action.snap(latent_BA.to(self.device, torch.float32))
        draft_BNF = self.draft(state, latent_BA)
        past, expect = (self.dynamics, state.cache), self.tokenizer.expected_codes
        coded = refine_frame(*past, latent_BA, draft_BNF, state.generators, self.sampling, expect)
        commit_frame(*past, coded[0], latent_BA, draft_BNF)
        self.show(state, *coded)
        return to_uint8(state.frames)

    @torch.no_grad()
    def take_known(
        self,
        state: RolloutState,
        tokens_BN: Tensor,
        latent_BA: Tensor | None,
        codes_BNE: Tensor | None = None,
    ) -> None:
        """Go on, in place, to a frame whose tokens are known; `latent_BA` led to it, None for the first frame.

        `codes_BNE`: what it is decoded from, the tokens' own codes by default.
        """
        draft_BNF = None
        if latent_BA is not None:
            latent_BA = self.latent_action.snap(latent_BA.to(self.device, torch.float32))
            draft_BNF = self.draft(state, latent_BA)
        commit_frame(self.dynamics, state.cache, tokens_BN, latent_BA, draft_BNF)
        self.show(state, tokens_BN, codes_BNE)

    @torch.no_grad()
    def draft(self, state: RolloutState, latent_BA: Tensor) -> Tensor | None:
        """The next frame's draft; a temporal tokenizer's encoder takes the present frame into its past by it."""
        if not self.dynamics.config.draft:
            return None
        present = state.codes_BNE, state.frames
        return draft_next(self.tokenizer, self.latent_action, *present, latent_BA, state.codec)

    @torch.no_grad()
    def show(self, state: RolloutState, tokens_BN: Tensor, codes_BNE: Tensor | None = None) -> None:
        """Make these tokens the present frame and decode its pixels, from their own codes where none are given."""
        state.tokens_BN = tokens_BN
        state.codes_BNE = self.tokenizer.codes(tokens_BN) if codes_BNE is None else codes_BNE
        state.frames = self.tokenizer.decode_next(state.codes_BNE, state.codec)

    def rollout(self, frames: Tensor, latents: Tensor, seed: int = 0) -> Tensor:
        """Context `frames` uint8 [B, C, H, W, 3] and `latents` [B, T, A] → predicted uint8 [B, T, H, W, 3]."""
        state = self.start(frames, generators=seeded_generators(range(seed, seed + len(frames))))
        return torch.stack([self.step(state, latents[:, t]) for t in range(latents.shape[1])], 1)


def seeded_generators(seeds: Sequence[int] | range) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


def to_uint8(frames: Tensor) -> Tensor:
    """Float frames in [0, 1] → uint8, pixel by pixel in memory: convolutions leave single frames channel by channel,
    and what is summed over pixels in another order rounds differently."""
    return (frames * 255).round().to(torch.uint8).contiguous()


def load_tokenizer(folder: Path) -> Tokenizer:
    description = read_description(folder)
    model = Tokenizer(description.part(TokenizerConfig, "config"), description.data["size"])
    return load_weights(model, folder)


def load_latent_action(folder: Path) -> LatentActionModel:
    description = read_description(folder)
    model = LatentActionModel(description.part(LatentActionConfig, "config"), description.data["size"])
    return load_weights(model, folder)


def load_dynamics(
    folder: Path, tokenizer: Tokenizer, latent_action: LatentActionModel
) -> tuple[Dynamics, SamplingConfig]:
    description = read_description(folder)
    model = make_dynamics(description.part(DynamicsConfig, "config"), tokenizer, latent_action)
    return load_weights(model, folder), description.part(SamplingConfig, "sampling")


@dataclass(frozen=True)
class Description:
    """What a model's model.json says."""

    path: Path
    data: dict[str, Any]

    def part[T](self, schema: type[T], key: str) -> T:
        """One of its configurations. Raises `CheckpointError` where this version has other keys."""
        try:
            return build(schema, self.data[key], key)
        except (ConfigError, KeyError) as error:
            raise CheckpointError(
                f"{self.path} was written by another version of robosim ({str(error).split(';')[0]}); "
                f"train it again: robosim train stage={self.path.parent.name} out={self.path.parent.parent}"
            ) from error


def read_description(folder: Path) -> Description:
    path = folder / "model.json"
    return Description(path, read_json(path))


def make_dynamics(config: DynamicsConfig, tokenizer: Tokenizer, latent_action: LatentActionModel) -> Dynamics:
    """A new dynamics that fits the other two models."""
    device = tokenizer.background.device
    codes_VC = tokenizer.codes(torch.arange(tokenizer.num_codes, device=device))
    if device.type == "meta":  # a tokenizer that only has sizes
        codes_VC = torch.zeros(codes_VC.shape)
    return Dynamics(config, tokenizer.digit_levels, tokenizer.num_tokens, latent_action.config.dim, codes_VC)


def load_weights[M: torch.nn.Module](model: M, folder: Path) -> M:
    """Fill `model` from `folder`/model.safetensors. Raises `CheckpointError` when the tensors don't fit."""
    try:
        model.load_state_dict(load_tensors(folder / "model.safetensors"))
    except RuntimeError as error:
        raise CheckpointError(
            f"{folder}/model.safetensors doesn't fit its model.json, or is of an earlier robosim; run the stage again"
        ) from error
    return model
