"""Configuration of the policy `robosim_latent`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig
from lerobot.utils.constants import OBS_IMAGES


@PreTrainedConfig.register_subclass("robosim_latent")
@dataclass
class RobosimLatentConfig(PreTrainedConfig):
    """Frame → latent action (a small network) → joint command (the adapter's inverse).

    `latent_size` and `latent_bound` are the world model's: a latent action has `latent_size` dimensions in
    [-latent_bound, latent_bound]. `adapter` holds the configuration of the `ActionAdapter` inside the policy; left
    empty, an untrained adapter for the action feature's number of joints is made, and must be trained
    (`train_adapter`).
    """

    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {
            "VISUAL": NormalizationMode.IDENTITY,
            "STATE": NormalizationMode.IDENTITY,
            "ACTION": NormalizationMode.IDENTITY,
        }
    )
    push_to_hub: bool = False  # type: ignore[assignment]

    camera: str = "front"
    latent_size: int = 5
    latent_bound: float = 1.5
    adapter: dict[str, Any] = field(default_factory=dict)
    train_adapter: bool = False

    channels: int = 32
    keypoints: int = 32
    hidden: int = 256

    learning_rate: float = 1e-3
    weight_decay: float = 1e-4

    @property
    def image_key(self) -> str:
        return f"{OBS_IMAGES}.{self.camera}"

    @property
    def observation_delta_indices(self) -> None:
        return None

    @property
    def action_delta_indices(self) -> list[int]:
        """The command before and the command at the frame: the adapter's inverse needs both."""
        return [-1, 0]

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self) -> AdamWConfig:
        return AdamWConfig(lr=self.learning_rate, weight_decay=self.weight_decay)

    def get_scheduler_preset(self) -> None:
        return None

    def validate_features(self) -> None:
        """Raises `ValueError` naming the feature that is missing."""
        if self.image_key not in self.image_features:
            cameras = ", ".join(self.image_features) or "none"
            raise ValueError(
                f"robosim_latent needs {self.image_key}; the input features have images: {cameras}"
            )
        if self.robot_state_feature is None:
            raise ValueError("robosim_latent needs observation.state, the joint positions in rad")
        action = self.action_feature
        if action is None or action.shape != self.robot_state_feature.shape:
            raise ValueError(
                f"robosim_latent gives one target a joint: action is {action and action.shape}, "
                f"observation.state is {self.robot_state_feature.shape}"
            )
