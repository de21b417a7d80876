"""The policy `robosim_latent`: it sees a frame, wants a latent action, and commands the joints through the adapter.

Unlabelled video holds frames and latent actions but no joints, so that the part learned from video reads pixels
alone; the joints enter only where the adapter turns the latent action into a command.
"""

from __future__ import annotations

from typing import Any

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor
from torch.nn import functional

from lerobot_policy_robosim.configuration_robosim_latent import RobosimLatentConfig
from lerobot_policy_robosim.keypoint_network import KeypointNetwork
from robosim.adapter import ActionAdapter

LATENT_ACTION = "latent_action"


class RobosimLatentPolicy(PreTrainedPolicy):
    """Frame → latent action → joint command, one command a frame, N rows at once."""

    config_class = RobosimLatentConfig  # type: ignore[assignment]
    name = "robosim_latent"  # type: ignore[assignment]

    def __init__(self, config: RobosimLatentConfig, **_: Any) -> None:
        super().__init__(config)
        config.validate_features()
        self.config: RobosimLatentConfig = config
        self.network = KeypointNetwork(
            config.latent_size, config.latent_bound, config.channels, config.keypoints, config.hidden
        )
        sizes = {"latent_size": config.latent_size, "latent_bound": config.latent_bound}
        joints = {"num_joints": config.action_feature.shape[0]} if config.action_feature else {}
        self.adapter = ActionAdapter.from_config({**joints, **sizes, **config.adapter})
        self.adapter.requires_grad_(config.train_adapter)
        self._previous: Tensor | None = None

    def get_optim_params(self) -> Any:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def reset(self, rows: Tensor | None = None) -> None:
        """Forget the previous command: of all rows, or of those where `rows` (bool [N]) holds."""
        if rows is None or self._previous is None:
            self._previous = None
        else:
            # NaN: this row has no previous command yet.
            self._previous = self._previous.masked_fill(rows[:, None].to(self._previous.device), torch.nan)

    def predict_latent(self, batch: dict[str, Any]) -> Tensor:
        """Latent action [N, A] wanted at each frame; reads the image [N, 3, H, W] in 0…1 and nothing else."""
        return self.network(batch[self.config.image_key])

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], **_: Any) -> Tensor:
        """Joint command [N, J] in rad (gripper 0…1) for this frame; before the first command, a_{-1} = q_0."""
        joints = batch[OBS_STATE]
        previous = joints if self._previous is None else self._previous
        if previous.shape != joints.shape:
            raise ValueError(
                f"the batch has {len(joints)} rows, the one before had {len(previous)}: call reset() between them"
            )
        previous = torch.where(previous.isnan(), joints, previous)
        command = self.adapter.latent_to_command(self.predict_latent(batch), previous, joints)
        self._previous = command.clone()
        return command

    def predict_action_chunk(self, batch: dict[str, Any], **_: Any) -> Tensor:
        """A chunk of one command: [N, 1, J]."""
        return self.select_action(batch)[:, None]

    def forward(self, batch: dict[str, Any], reduction: str = "mean") -> tuple[Tensor, dict[str, float]]:
        """Behaviour cloning: on "latent_action" [N, A] where the batch has it, else on "action" [N, 2, J].

        "weight" [N] weighs the rows (mean 1). The two commands of "action" are the one before the frame and the
        one at it. Returns the loss (`reduction="none"`: [N]) and, in `metrics`, its mean over the batch.
        """
        latent = self.predict_latent(batch)
        if LATENT_ACTION in batch:
            row_loss = functional.mse_loss(latent, batch[LATENT_ACTION], reduction="none").mean(-1)
        else:
            row_loss = (self._command(latent, batch) - batch[ACTION][:, 1]).abs().mean(-1)
        if "weight" in batch:
            row_loss = row_loss * batch["weight"]
        loss = row_loss.mean()
        return (row_loss if reduction == "none" else loss), {"bc_loss": loss.item()}

    def _command(self, latent: Tensor, batch: dict[str, Any]) -> Tensor:
        joints, previous = batch[OBS_STATE], batch[ACTION][:, 0]
        if "action_is_pad" in batch:
            previous = torch.where(batch["action_is_pad"][:, :1], joints, previous)
        return self.adapter.latent_to_command(latent, previous, joints)
