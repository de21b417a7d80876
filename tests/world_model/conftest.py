"""A world model of toy size, untrained but with weights large enough that everything it does shows."""

from typing import Any, Literal

import pytest
import torch

from robosim.world_model.decoding import SamplingConfig
from robosim.world_model.dynamics import DynamicsConfig
from robosim.world_model.latent_action import LatentActionConfig, LatentActionModel
from robosim.world_model.st_transformer import STConfig
from robosim.world_model.tokenizer import Tokenizer, TokenizerConfig
from robosim.world_model.world import WorldModel, make_dynamics

SIZE = 16


def make_world(
    temporal: bool = False, quantiser: Literal["fsq", "vq"] = "fsq", size: int = SIZE, **dynamics: Any
) -> WorldModel:
    """`temporal`: a tokenizer that sees three frames; `dynamics`: what differs in its configuration."""
    torch.manual_seed(0)
    if temporal:
        coder = STConfig(dim=16, heads=2, layers=2, window=3)
        kind = TokenizerConfig(kind="vit", quantiser=quantiser, encoder=coder, decoder=coder, code_dim=6)
    else:
        kind = TokenizerConfig(channels=8, quantiser=quantiser, code_dim=6)
    tokenizer = Tokenizer(kind, size)
    latent_action = LatentActionModel(LatentActionConfig(channels=8, blocks=1), size)
    torch.nn.init.normal_(latent_action.forward_model.head.weight, std=0.2)
    transformer = STConfig(dim=16, heads=2, layers=2, window=4)
    model = make_dynamics(DynamicsConfig(transformer, **dynamics), tokenizer, latent_action)
    for part in (tokenizer, model) if temporal else (model,):
        for name, parameter in part.named_parameters():
            if "norm" not in name or "modulation" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    return WorldModel(tokenizer, latent_action, model, SamplingConfig(steps=3))


@pytest.fixture
def world() -> WorldModel:
    return make_world()


@pytest.fixture
def video() -> torch.Tensor:
    """uint8 [B, T, H, W, 3]: a bright square that moves over a dark floor, each clip at its own pace."""
    frames = torch.full((8, 7, SIZE, SIZE, 3), 40, dtype=torch.uint8)
    for clip in range(8):
        for t in range(7):
            x = (2 + t * (clip % 3 + 1)) % (SIZE - 4)
            frames[clip, t, 4 + clip % 4 : 8 + clip % 4, x : x + 4] = torch.tensor([220, 60 + 10 * clip, 30])
    return frames
