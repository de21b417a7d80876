"""Pre- and post-processing of `robosim_latent`: device placement only.

Pixels arrive as 0…1 and commands are in rad, so nothing is normalised outside the policy.
"""

from __future__ import annotations

from typing import Any

from lerobot.processor import PolicyAction, PolicyProcessorPipeline, make_default_pre_post_processors
from torch import Tensor

from lerobot_policy_robosim.configuration_robosim_latent import RobosimLatentConfig

Pipelines = tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]],
    PolicyProcessorPipeline[PolicyAction, PolicyAction],
]


def make_robosim_latent_pre_post_processors(
    config: RobosimLatentConfig, dataset_stats: dict[str, dict[str, Tensor]] | None = None
) -> Pipelines:
    """LeRobot's default pipelines; the configuration's normalisation is the identity."""
    return make_default_pre_post_processors(config, dataset_stats)
