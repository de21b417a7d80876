"""A small policy with an adapter that does something, and batches as LeRobot makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot_policy_robosim.configuration_robosim_latent import RobosimLatentConfig
from lerobot_policy_robosim.modeling_robosim_latent import RobosimLatentPolicy

JOINTS, SIZE = 4, 32


@pytest.fixture
def config() -> RobosimLatentConfig:
    return RobosimLatentConfig(
        input_features={
            "observation.images.front": PolicyFeature(FeatureType.VISUAL, (3, SIZE, SIZE)),
            "observation.state": PolicyFeature(FeatureType.STATE, (JOINTS,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (JOINTS,))},
        device="cpu",
        latent_size=2,
        adapter={"num_joints": JOINTS},
        channels=8,
        keypoints=4,
        hidden=16,
    )


@pytest.fixture
def policy(config: RobosimLatentConfig) -> RobosimLatentPolicy:
    torch.manual_seed(0)
    policy = RobosimLatentPolicy(config)
    for parameter in policy.adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return policy.eval()


@pytest.fixture
def make_batch() -> Callable[..., dict[str, Any]]:
    def make(rows: int, seed: int = 0) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(seed)
        return {
            "observation.images.front": torch.rand(rows, 3, SIZE, SIZE, generator=generator),
            "observation.state": 0.1 * torch.randn(rows, JOINTS, generator=generator),
            "task": ["reach the marker"] * rows,
        }

    return make
