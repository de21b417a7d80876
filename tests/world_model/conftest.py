"""A world model of toy size, untrained but with weights large enough that everything it does shows."""

import pytest
import torch

from robosim.world_model.decoding import SamplingConfig
from robosim.world_model.dynamics import Dynamics, DynamicsConfig
from robosim.world_model.latent_action import LatentActionConfig, LatentActionModel
from robosim.world_model.st_transformer import STConfig
from robosim.world_model.tokenizer import Tokenizer, TokenizerConfig
from robosim.world_model.world import WorldModel

SIZE = 16


def make_world(draft: bool = True, prediction: str = "codes") -> WorldModel:
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig(channels=8), SIZE)
    latent_action = LatentActionModel(LatentActionConfig(channels=8, blocks=1), SIZE)
    torch.nn.init.normal_(latent_action.forward_model.head.weight, std=0.2)
    config = DynamicsConfig(STConfig(dim=16, heads=2, layers=2, window=4), draft=draft, prediction=prediction)
    dynamics = Dynamics(config, tokenizer.config.levels, tokenizer.num_tokens, 5)
    for name, parameter in dynamics.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return WorldModel(tokenizer, latent_action, dynamics, SamplingConfig(steps=3))


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
