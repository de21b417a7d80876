"""The world model put together: frames in, latent actions in, frames out.

Legend of shape suffixes: B rows, T time, N tokens of a frame, A latent action dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from robosim.checkpoint import load_tensors, read_json
from robosim.config import build
from robosim.errors import CheckpointError
from robosim.world_model.decoding import SamplingConfig, decode_frame
from robosim.world_model.draft import draft_next
from robosim.world_model.dynamics import Dynamics, DynamicsConfig
from robosim.world_model.latent_action import LatentActionConfig, LatentActionModel
from robosim.world_model.st_transformer import TemporalCache
from robosim.world_model.tokenizer import Tokenizer, TokenizerConfig


@dataclass
class RolloutState:
    """Where a batch of rollouts stands. A position a row: rows may have started at different times."""

    tokens_BN: Tensor
    frames: Tensor
    """The present frames, decoded: float32 in [0, 1], [B, H, W, 3]."""
    cache: TemporalCache
    generators: list[torch.Generator]

    def copy(self) -> RolloutState:
        """A branch: it and the original go on independently, with the same noise ahead."""
        generators = [torch.Generator().set_state(generator.get_state()) for generator in self.generators]
        return RolloutState(self.tokens_BN.clone(), self.frames.clone(), self.cache.copy(), generators)

    def take_rows(self, rows: Tensor) -> RolloutState:
        """`rows` (int64) as a state of their own, with the very generators of those rows."""
        generators = [self.generators[row] for row in rows.tolist()]
        return RolloutState(self.tokens_BN[rows], self.frames[rows], self.cache.take_rows(rows), generators)

    def put_rows(self, rows: Tensor, other: RolloutState) -> None:
        """Overwrite `rows` (int64) by all the rows of `other`, as when single rows are reset."""
        self.tokens_BN[rows], self.frames[rows] = other.tokens_BN, other.frames
        self.cache.put_rows(rows, other.cache)
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

    @classmethod
    def load(cls, run: Path, device: str = "cpu") -> WorldModel:
        """Load the three models of a run folder. Raises `CheckpointError` when one is missing or damaged."""
        tokenizer = load_tokenizer(run / "tokenizer")
        latent_action = load_latent_action(run / "latent_action")
        dynamics, sampling = load_dynamics(run / "dynamics", tokenizer, latent_action)
        parts = (tokenizer.to(device), latent_action.to(device), dynamics.to(device))
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
        """Frames uint8 or float [..., H, W, 3] → tokens int64 [..., N]."""
        return self.tokenizer.encode(frames.to(self.device))

    @torch.no_grad()
    def decode_tokens(self, tokens: Tensor) -> Tensor:
        """Tokens [..., N] → frames uint8 [..., H, W, 3]."""
        return to_uint8(self.tokenizer.decode(tokens.to(self.device)))

    @torch.no_grad()
    def infer_latents(self, frames: Tensor) -> Tensor:
        """Clips uint8 [B, T, H, W, 3] → latent actions float32 [B, T − 1, A]."""
        frames = frames.to(self.device)
        batch, time = frames.shape[:2]
        x, y = frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1)
        return self.latent_action.infer(x, y).view(batch, time - 1, self.latent_dim)

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
        tokens_BTN = self.encode_frames(frames)
        if latents is None and frames.shape[1] > 1:
            latents = self.infer_latents(frames)
        rows = len(frames)
        generators = list(generators) if generators is not None else seeded_generators(range(rows))
        first = tokens_BTN[:, 0]
        state = RolloutState(
            first, self.tokenizer.decode(first), self.dynamics.body.new_cache(rows), generators
        )
        self._commit(state, first, None)
        for t in range(1, frames.shape[1]):
            assert latents is not None
            self._commit(state, tokens_BTN[:, t], latents[:, t - 1].to(self.device))
        return state

    def step(self, state: RolloutState, latent_BA: Tensor) -> Tensor:
        """Advance every row by one frame, in place; returns the new frames uint8 [B, H, W, 3]."""
        latent_BA = latent_BA.to(self.device, torch.float32)
        draft = self._draft(state, latent_BA)
        state.tokens_BN = decode_frame(
            self.dynamics, state.cache, latent_BA, draft, state.generators, self.sampling
        )
        with torch.no_grad():
            state.frames = self.tokenizer.decode(state.tokens_BN)
        return to_uint8(state.frames)

    def rollout(self, frames: Tensor, latents: Tensor, seed: int = 0) -> Tensor:
        """Context `frames` uint8 [B, C, H, W, 3] and `latents` [B, T, A] → predicted uint8 [B, T, H, W, 3]."""
        state = self.start(frames, generators=seeded_generators(range(seed, seed + len(frames))))
        return torch.stack([self.step(state, latents[:, t]) for t in range(latents.shape[1])], 1)

    def _draft(self, state: RolloutState, latent_BA: Tensor) -> Tensor | None:
        if not self.dynamics.config.draft:
            return None
        return draft_next(self.tokenizer, self.latent_action, state.tokens_BN, state.frames, latent_BA)

    @torch.no_grad()
    def _commit(self, state: RolloutState, tokens_BN: Tensor, latent_BA: Tensor | None) -> None:
        """Store a known frame; `latent_BA` led to it, None for the first frame."""
        rows = len(tokens_BN)
        if latent_BA is None:
            draft = tokens_BN.new_zeros(rows, self.dynamics.num_tokens, self.dynamics.draft_features).float()
        else:
            draft = self._draft(state, latent_BA)
        action = torch.zeros(rows, self.latent_dim, device=self.device) if latent_BA is None else latent_BA
        has_past = torch.full((rows,), latent_BA is not None, device=self.device)
        visible = torch.zeros_like(tokens_BN, dtype=torch.bool)
        self.dynamics.step(tokens_BN, visible, action, draft, has_past, state.cache, commit=True)
        state.tokens_BN, state.frames = tokens_BN, self.tokenizer.decode(tokens_BN)


def seeded_generators(seeds: Sequence[int] | range) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


def to_uint8(frames: Tensor) -> Tensor:
    """Float frames in [0, 1] → uint8."""
    return (frames * 255).round().to(torch.uint8)


def load_tokenizer(folder: Path) -> Tokenizer:
    data = read_json(folder / "model.json")
    model = Tokenizer(build(TokenizerConfig, data["config"], str(folder / "model.json")), data["size"])
    return load_weights(model, folder)


def load_latent_action(folder: Path) -> LatentActionModel:
    data = read_json(folder / "model.json")
    model = LatentActionModel(
        build(LatentActionConfig, data["config"], str(folder / "model.json")), data["size"]
    )
    return load_weights(model, folder)


def load_dynamics(
    folder: Path, tokenizer: Tokenizer, latent_action: LatentActionModel
) -> tuple[Dynamics, SamplingConfig]:
    data = read_json(folder / "model.json")
    config = build(DynamicsConfig, data["config"], str(folder / "model.json"))
    model = Dynamics(config, tokenizer.config.levels, tokenizer.num_tokens, latent_action.config.dim)
    return load_weights(model, folder), build(SamplingConfig, data["sampling"], str(folder / "model.json"))


def load_weights[M: torch.nn.Module](model: M, folder: Path) -> M:
    """Fill `model` from `folder`/model.safetensors. Raises `CheckpointError` when the tensors don't fit."""
    try:
        model.load_state_dict(load_tensors(folder / "model.safetensors"))
    except RuntimeError as error:
        raise CheckpointError(
            f"{folder}/model.safetensors doesn't fit its model.json; run the stage again"
        ) from error
    return model
