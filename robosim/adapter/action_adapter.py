"""Joint command ↔ latent action, from at most 200 labelled transitions.

Commands are absolute targets, latent actions are motions. What a command moves is its distance from the previous one
and from the joints, (a_t − a_{t−1}, a_t − q_t), seen from the posture q_t. All maps are ridge regressions on products
of a motion and the posture; a network residual on top generalised worse from 200 labels.

The joints of an arm that is led by its tool lie near a surface of few dimensions. Motion and posture enter by their
leading principal coordinates, and commands are drawn to that surface: motions seen in pixels say nothing about the
arm's redundancy, and small errors there would add up.

Latent action → command knows nothing of a_{t−1} − q_t: in recorded motion that lag tells the last step, which predicts
the next one so well that the latent action would count for less, and under imagined joints it is noise.

Legend of shape suffixes: N rows, M labelled transitions, J joints, A latent dimensions, P principal coordinates.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robosim.adapter.labels import Transitions
from robosim.adapter.ridge import BilinearRidge
from robosim.spec import RobotSpec

SMALLEST_SCALE = 1e-3
"""Radians: joints that move less in the labels aren't blown up to unit size."""

SQUASH_LIMIT = 0.98
"""Share of the bound to which latent actions are clipped before the inverse of tanh, which diverges at 1."""

MARGIN = 1.3
"""Motions and postures further out than the labels' by this factor are treated as at this edge of them."""

PULL = 0.3
"""Share of a command's way back to the surface of labelled postures that is gone in one step."""

STEP_MARGIN = 1.1
"""Largest step of a command, as a multiple of the largest labelled one."""


@dataclass(frozen=True)
class ActionAdapterConfig:
    num_joints: int = 8
    latent_size: int = 5
    latent_bound: float = 1.5
    """Latent actions lie in [−bound, bound]; they are tanh-squashed motions."""
    rank: int = 3
    """Principal coordinates of motion and posture: a tool led through inverse kinematics has its three."""


class ActionAdapter(nn.Module):
    """Implements the world model's `CommandAdapter`."""

    joints_mean: Tensor
    motion_PJ: Tensor
    posture_PJ: Tensor
    motion_limit_P: Tensor
    posture_limit_P: Tensor
    pull: Tensor
    change_scale: Tensor
    lag_scale: Tensor
    lower: Tensor
    upper: Tensor
    largest_step: Tensor

    def __init__(self, config: ActionAdapterConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ActionAdapterConfig()
        joints, size, rank = config.num_joints, config.latent_size, config.rank
        self.to_latent = BilinearRidge(rank, rank, size, speed=True)
        self.to_command = BilinearRidge(size, rank, joints)
        self.to_joints = BilinearRidge(2 * joints, rank, joints)
        self.surface = BilinearRidge(rank, rank, joints)
        self.register_buffer("pull", torch.tensor(0.0))
        self.register_buffer("joints_mean", torch.zeros(joints))
        self.register_buffer("motion_PJ", torch.eye(rank, joints))
        self.register_buffer("posture_PJ", torch.eye(rank, joints))
        self.register_buffer("motion_limit_P", torch.full((rank,), 3.0))
        self.register_buffer("posture_limit_P", torch.full((rank,), 3.0))
        self.register_buffer("change_scale", torch.tensor(0.05))
        self.register_buffer("lag_scale", torch.tensor(0.05))
        self.register_buffer("lower", torch.full((joints,), -torch.pi))
        self.register_buffer("upper", torch.full((joints,), torch.pi))
        self.register_buffer("largest_step", torch.full((joints,), 0.2))

    @classmethod
    def from_config(cls, data: dict[str, Any]) -> ActionAdapter:
        """An unfitted adapter of these sizes. Raises `ValueError` naming an unknown key and the valid ones."""
        valid = set(ActionAdapterConfig.__dataclass_fields__)
        if unknown := set(data) - valid:
            raise ValueError(
                f"unknown adapter keys {', '.join(sorted(unknown))}; choose from {', '.join(sorted(valid))}"
            )
        return cls(ActionAdapterConfig(**data))

    def to_config(self) -> dict[str, Any]:
        return asdict(self.config)

    def command_to_latent(self, command: Tensor, previous_command: Tensor, joints: Tensor) -> Tensor:
        """The latent action [N, A] that `command` stands for; all arguments float32 [N, J] (rad)."""
        motion = self._motion(command, previous_command, joints)
        return torch.tanh(self.to_latent(motion, self._posture(joints))) * self.config.latent_bound

    def latent_to_command(self, latent: Tensor, previous_command: Tensor, joints: Tensor) -> Tensor:
        """The command [N, J] (rad, gripper 0…1) that moves as `latent` [N, A] says.

        A displacement is predicted and added to the previous command, which is drawn to the surface of labelled
        postures; the step is held to the largest labelled one and the result to the joint limits.
        """
        change = self.to_command(self._unsquash(latent), self._posture(joints)) * self.change_scale
        wanted = previous_command + change
        posture = self._posture(wanted)
        wanted = torch.lerp(wanted, self.joints_mean + self.surface(posture, posture), self.pull)
        change = wanted - previous_command
        change = torch.clamp(change, -self.largest_step, self.largest_step)
        return torch.clamp(previous_command + change, self.lower, self.upper)

    def predict_joints(self, command: Tensor, previous_command: Tensor, joints: Tensor) -> Tensor:
        """Joints [N, J] one control period after `command` [N, J] is sent at `joints` [N, J]."""
        servo = self._servo(command, previous_command, joints)
        moved = joints + self.to_joints(servo, self._posture(joints)) * self.change_scale
        return torch.clamp(moved, self.lower, self.upper)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Errors of the three maps on labelled transitions, each about 1 for a map that knows nothing."""
        command, previous, joints = batch["command"], batch["previous_command"], batch["joints"]
        latent = self.command_to_latent(command, previous, joints)
        decoded = self.latent_to_command(batch["latent"], previous, joints)
        moved = self.predict_joints(command, previous, joints)
        losses = {
            "latent_loss": (latent - batch["latent"]).square().mean(),
            "command_loss": ((decoded - command) / self.change_scale).square().mean(),
            "joints_loss": ((moved - batch["next_joints"]) / self.change_scale).square().mean(),
        }
        return torch.stack(list(losses.values())).sum(), {k: v.detach() for k, v in losses.items()}

    @torch.no_grad()
    def fit(self, labels: Transitions, robot: RobotSpec) -> dict[str, float]:
        """Fit scales and all maps in closed form; returns errors on left-out episodes.

        `command_mae_rad` and `joints_mae_rad` are means over all joints, `latent_r2` the share of the latent
        actions' variance that commands explain. Raises `ValueError` when the labels' sizes don't fit.
        """
        self._check(labels, robot)
        command, previous, joints = labels.command_MJ, labels.previous_command_MJ, labels.joints_MJ
        self._fit_scales(labels, robot)
        posture, groups = self._posture(joints), labels.episode_M
        latent = self._unsquash(labels.latent_MA)
        motion = self._motion(command, previous, joints)
        change = (command - previous) / self.change_scale
        step = (labels.next_joints_MJ - joints) / self.change_scale

        held_latent = self.to_latent.fit(motion, posture, latent, groups, shared_penalty=False)
        held_change = self.to_command.fit(latent, posture, change, groups)
        held_step = self.to_joints.fit(self._servo(command, previous, joints), posture, step, groups)
        self.surface.fit(posture, posture, joints - self.joints_mean, groups)
        self.pull.fill_(PULL)

        latent = torch.tanh(held_latent) * self.config.latent_bound
        spread = (labels.latent_MA - labels.latent_MA.mean(0)).square().sum()
        return {
            "command_mae_rad": ((held_change - change).abs().mean() * self.change_scale).item(),
            "joints_mae_rad": ((held_step - step).abs().mean() * self.change_scale).item(),
            "latent_r2": (1 - (latent - labels.latent_MA).square().sum() / spread.clamp_min(1e-9)).item(),
        }

    def _fit_scales(self, labels: Transitions, robot: RobotSpec) -> None:
        command, joints = labels.command_MJ, labels.joints_MJ
        change = command - labels.previous_command_MJ
        self.change_scale.copy_(change.square().mean().sqrt().clamp_min(SMALLEST_SCALE))
        self.lag_scale.copy_((command - joints).square().mean().sqrt().clamp_min(SMALLEST_SCALE))
        self.largest_step.copy_((STEP_MARGIN * change.abs().amax(0)).clamp_min(SMALLEST_SCALE))
        self.lower.copy_(torch.tensor(robot.lower))
        self.upper.copy_(torch.tensor(robot.upper))
        self.joints_mean.copy_(joints.mean(0))
        self.posture_PJ.copy_(
            principal_directions(joints - self.joints_mean, self.config.rank, SMALLEST_SCALE)
        )
        self.motion_PJ.copy_(principal_directions(change, self.config.rank, 0.05 * self.change_scale))
        for limit_P, rows, directions in (
            (self.posture_limit_P, joints - self.joints_mean, self.posture_PJ),
            (self.motion_limit_P, change, self.motion_PJ),
        ):
            limit_P.copy_(MARGIN * (rows @ directions.T).abs().amax(0))

    def _motion(self, command: Tensor, previous_command: Tensor, joints: Tensor) -> Tensor:
        """Principal coordinates [N, P] of what the command moves.

        Joints follow commands closely, so that labels can't tell its two distances apart: their mean enters. Where
        joints have drifted from the commands, it acts as feedback.
        """
        motion = (command - 0.5 * (previous_command + joints)) @ self.motion_PJ.T
        return torch.clamp(motion, -self.motion_limit_P, self.motion_limit_P)

    def _servo(self, command: Tensor, previous_command: Tensor, joints: Tensor) -> Tensor:
        """Both distances [N, 2J] that the joints' controllers act on."""
        change = (command - previous_command) / self.change_scale
        return torch.cat([change, (command - joints) / self.lag_scale], 1)

    def _posture(self, joints: Tensor) -> Tensor:
        posture = (joints - self.joints_mean) @ self.posture_PJ.T
        return torch.clamp(posture, -self.posture_limit_P, self.posture_limit_P)

    def _unsquash(self, latent: Tensor) -> Tensor:
        """Back to the scale in which latent actions are proportional to motion."""
        return torch.atanh((latent / self.config.latent_bound).clamp(-SQUASH_LIMIT, SQUASH_LIMIT))

    def _check(self, labels: Transitions, robot: RobotSpec) -> None:
        sizes = {"command": labels.command_MJ.shape[1], "robot": robot.num_joints}
        if set(sizes.values()) != {self.config.num_joints}:
            raise ValueError(f"the adapter has {self.config.num_joints} joints, but: {sizes}")
        if labels.latent_MA.shape[1] != self.config.latent_size:
            raise ValueError(
                f"the adapter takes {self.config.latent_size} latent dimensions, the labels have "
                f"{labels.latent_MA.shape[1]}"
            )


def principal_directions(rows_MJ: Tensor, rank: int, smallest: float | Tensor) -> Tensor:
    """The `rank` directions [P,J] in which rows vary most, scaled to give coordinates of unit size.

    Directions that vary less than `smallest` aren't blown up; those beyond the rows' own rank are zero.
    """
    _, size, direction = torch.linalg.svd(rows_MJ, full_matrices=False)
    scale = (size / len(rows_MJ) ** 0.5).clamp_min(float(smallest))
    found = (direction / scale[:, None])[:rank]
    return torch.cat([found, found.new_zeros(rank - len(found), rows_MJ.shape[1])])
