"""Policies by name: robosim reaches every policy through LeRobot's registry, its own among them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from robosim.adapter import ActionAdapter
from robosim.errors import UnsupportedError
from robosim.spec import EnvSpec


@dataclass(frozen=True)
class PolicyModel:
    """The policy: a type of LeRobot's registry, and the sizes of its network."""

    type: str = "robosim_latent"
    channels: int = 32
    keypoints: int = 32
    hidden: int = 256


def policy_class(name: str) -> Any:
    """The policy class that LeRobot has registered as `name`, plug-ins included.

    Raises `UnsupportedError` when no installed distribution registers it.
    """
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class
    from lerobot.utils.import_utils import register_third_party_plugins

    register_third_party_plugins()
    if name not in PreTrainedConfig.get_known_choices():
        known = ", ".join(sorted(PreTrainedConfig.get_known_choices()))
        raise UnsupportedError(
            f"LeRobot knows no policy {name!r} ({known}); is its plug-in installed? run uv sync"
        )
    return get_policy_class(name)


def make_policy(model: PolicyModel, spec: EnvSpec, adapter: ActionAdapter, seed: int, device: str) -> Any:
    """A fresh policy for the contract `spec` with a copy of `adapter` inside, initialised from `seed`."""
    from lerobot.configs import FeatureType, PolicyFeature

    cls = policy_class(model.type)
    joints = (spec.robot.num_joints,)
    camera = spec.cameras[0]
    sizes = {key: value for key, value in asdict(model).items() if key != "type"}
    config = cls.config_class(
        input_features={
            f"observation.images.{camera}": PolicyFeature(FeatureType.VISUAL, (3, spec.size, spec.size)),
            "observation.state": PolicyFeature(FeatureType.STATE, joints),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, joints)},
        device=device,
        camera=camera,
        adapter=adapter.to_config(),
        latent_size=adapter.config.latent_size,
        latent_bound=adapter.config.latent_bound,
        **sizes,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        policy = cls(config)
    policy.adapter.load_state_dict(adapter.state_dict())
    return policy.to(device)
