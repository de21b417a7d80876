"""Command ↔ latent action, from a few hundred labelled transitions.

Most commands are absolute targets of joints, latent actions are motions. The command's distances from the previous one
and from the joints, (a_t − a_{t−1}, a_t − q_t), tell where the joints will be after the period, and the way there from
the posture q_t, q̂_{t+1} − q_t, tells the latent action. So commands steer an imagined arm: where q_t is read off a
picture that has drifted, the way leads back to where the command wants the arm.

Maps are ridge regressions on products of a motion and the posture; how a motion looks, the latent action, bends with
the posture more than that, so a small network tells it where it does so better on left-out episodes (`latent_map`).

The joints of an arm that is led by its tool lie near a surface of few dimensions. Motion and posture enter by their
leading principal coordinates, and commands are drawn to that surface: motions seen in pixels say nothing about the
arm's redundancy, and small errors there would add up.

Latent action → command knows nothing of a_{t−1} − q_t: in recorded motion that lag tells the last step, which predicts
the next one so well that the latent action would count for less, and where latent actions lead it is noise.

Recordings from elsewhere may have states that aren't the joints which the commands address, or none, and commands that
are motions themselves. What a command moves is then its distance from the previous target, or from the usual motion,
number by number, seen from the state. No lag and no surface is known, and every number is scaled by its own spread,
for their units differ.

Legend of shape suffixes: N rows, M labelled transitions, J numbers of a command (joints), S of a state (J, where it is
the joints), A latent dimensions, P principal coordinates.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robosim.adapter.labels import Transitions
from robosim.adapter.motion_network import MotionNetwork
from robosim.adapter.ridge import BilinearRidge
from robosim.spec import RobotSpec

SMALLEST_SCALE = 1e-3
"""Radians (or what the unit is): numbers that move less in the labels aren't blown up to unit size."""

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
    """Principal coordinates of motion and posture; see `FitConfig.rank`."""
    commands: Literal["targets", "motions"] = "targets"
    """Absolute targets, or motions that are over after the period."""
    state_size: int | None = None
    """Numbers of a state; None: the state is the joints, whose targets the commands are."""
    latent_map: Literal["ridge", "network"] = "ridge"
    """What tells latent actions from commands; a network only where the state is the joints."""


class ActionAdapter(nn.Module):
    """Implements the world model's `CommandAdapter`. Units: rad and gripper 0…1, else those of the recordings."""

    joints_mean: Tensor
    motion_PJ: Tensor
    posture_PJ: Tensor
    motion_limit_P: Tensor
    posture_limit_P: Tensor
    pull: Tensor
    change_scale: Tensor
    lag_scale: Tensor
    usual_J: Tensor
    step_scale_S: Tensor
    lower: Tensor
    upper: Tensor
    largest_step: Tensor

    def __init__(self, config: ActionAdapterConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ActionAdapterConfig()
        self.drives_joints = config.state_size is None
        """Whether commands are targets of the state's own numbers."""
        if self.drives_joints and config.commands != "targets":
            raise ValueError("commands that are motions need state_size: a state isn't what they address")
        joints, size, rank = config.num_joints, config.latent_size, config.rank
        state = joints if config.state_size is None else config.state_size
        moved = rank if self.drives_joints else joints
        self.to_latent: BilinearRidge | MotionNetwork
        if config.latent_map == "network":
            if not self.drives_joints:
                raise ValueError("latent_map=network needs commands that are targets of the state's joints")
            self.to_latent = MotionNetwork(2 * joints, size)
        else:
            self.to_latent = BilinearRidge(moved, rank, size, speed=True)
        self.to_command = BilinearRidge(size, rank, joints)
        self.to_joints = BilinearRidge(2 * joints if self.drives_joints else joints, rank, state)
        self.register_buffer("joints_mean", torch.zeros(state))
        self.register_buffer("motion_PJ", torch.eye(moved, joints))
        self.register_buffer("posture_PJ", torch.eye(rank, state))
        self.register_buffer("motion_limit_P", torch.full((moved,), 3.0))
        self.register_buffer("posture_limit_P", torch.full((rank,), 3.0))
        self.register_buffer("lower", torch.full((joints,), -torch.pi))
        self.register_buffer("upper", torch.full((joints,), torch.pi))
        self.register_buffer("largest_step", torch.full((joints,), 0.2))
        if self.drives_joints:
            self.surface = BilinearRidge(rank, rank, joints)
            self.register_buffer("pull", torch.tensor(0.0))
            self.register_buffer("change_scale", torch.tensor(0.05))
            self.register_buffer("lag_scale", torch.tensor(0.05))
        else:
            self.register_buffer("usual_J", torch.zeros(joints))
            self.register_buffer("change_scale", torch.ones(joints))
            self.register_buffer("step_scale_S", torch.ones(state))

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
        """The latent action [N, A] that `command` stands for; commands float32 [N, J], `joints` [N, S].

        It takes the joints from where they are to where the command leaves them, also where they aren't near its
        previous one.
        """
        if self.drives_joints:
            motion = self._predict_motion(command, previous_command, joints)
        else:
            motion = command - self._idle_before(command, previous_command)
        if isinstance(self.to_latent, MotionNetwork):
            told = self.to_latent(self._seen(motion, joints))
        else:
            told = self.to_latent(self._principal(motion), self._posture(joints))
        return torch.tanh(told) * self.config.latent_bound

    def latent_to_command(self, latent: Tensor, previous_command: Tensor, joints: Tensor) -> Tensor:
        """The command [N, J] that moves as `latent` [N, A] says; `joints` [N, S].

        A displacement from the idle command is predicted. Targets are then drawn to the surface of labelled postures
        and their step is held to the largest labelled one; the result is held to the limits.
        """
        idle = self.idle_command(previous_command)
        wanted = idle + self.to_command(self._unsquash(latent), self._posture(joints)) * self.change_scale
        if self.drives_joints:
            posture = self._posture(wanted)
            wanted = torch.lerp(wanted, self.joints_mean + self.surface(posture, posture), self.pull)
        change = torch.clamp(wanted - idle, -self.largest_step, self.largest_step)
        return torch.clamp(idle + change, self.lower, self.upper)

    def predict_joints(self, command: Tensor, previous_command: Tensor, joints: Tensor) -> Tensor:
        """The state [N, S] one control period after `command` [N, J] is sent at the state `joints` [N, S]."""
        moved = joints + self._predict_motion(command, previous_command, joints)
        return torch.clamp(moved, self.lower, self.upper) if self.drives_joints else moved

    def idle_command(self, previous_command: Tensor) -> Tensor:
        """What commands [N, J] are measured from: the target that was told before (where that is NaN, the usual one),
        or the usual motion."""
        if self.drives_joints:
            return previous_command
        if self.config.commands == "motions":
            return self.usual_J.expand_as(previous_command)
        return torch.where(previous_command.isnan(), self.usual_J, previous_command)

    def first_command(self, joints: Tensor) -> Tensor:
        """What stands for the command [N, J] before the first one: to stay at `joints`. Other states [N, S] don't tell
        the target at which an arm stays, so it is NaN: the first command then counts as its own previous one, as in the
        labels. Of motions it is the usual one."""
        if self.drives_joints:
            return joints
        unknown = torch.full_like(self.usual_J, torch.nan)
        first = self.usual_J if self.config.commands == "motions" else unknown
        return first.expand(len(joints), -1)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Errors of the three maps on labelled transitions, each about 1 for a map that knows nothing."""
        command, previous, joints = batch["command"], batch["previous_command"], batch["joints"]
        latent = self.command_to_latent(command, previous, joints)
        decoded = self.latent_to_command(batch["latent"], previous, joints)
        moved = self.predict_joints(command, previous, joints)
        losses = {
            "latent_loss": (latent - batch["latent"]).square().mean(),
            "command_loss": ((decoded - command) / self.change_scale).square().mean(),
        }
        if moved.shape[1]:
            losses["joints_loss"] = ((moved - batch["next_joints"]) / self._step_scale).square().mean()
        return torch.stack(list(losses.values())).sum(), {k: v.detach() for k, v in losses.items()}

    @torch.no_grad()
    def fit(self, labels: Transitions, robot: RobotSpec) -> dict[str, float]:
        """Fit scales and maps, all but a `MotionNetwork` in closed form; returns errors on left-out episodes.

        `latent_r2` is the share of the latent actions' variance that commands explain, `command_mae_rad` and
        `joints_mae_rad` are means over all joints. Where no joint is in rad these two are `command_error` and
        `state_error`, in units of what moves in the labels. Raises `ValueError` when the labels' sizes don't fit.
        """
        self._check(labels, robot)
        command, previous, joints = labels.command_MJ, labels.previous_command_MJ, labels.joints_MJ
        self._fit_scales(labels, robot)
        posture, groups = self._posture(joints), labels.episode_M
        latent = self._unsquash(labels.latent_MA)
        change = (command - self.idle_command(previous)) / self.change_scale
        step = (labels.next_joints_MJ - joints) / self._step_scale

        held_change = self.to_command.fit(latent, posture, change, groups)
        servo = self._servo(command, previous, joints)
        # A penalty for each joint: a gripper held open by what it grips would choose that of the arm.
        held_step = self.to_joints.fit(servo, posture, step, groups, shared_penalty=False)
        # Of left-out episodes, as everything is that meets the map later.
        motion = (held_step if self.drives_joints else change) * self.change_scale
        if isinstance(self.to_latent, MotionNetwork):
            bound, seen = self.config.latent_bound, self._seen(motion, joints)
            held_latent = self.to_latent.fit(seen, labels.latent_MA, groups, bound, MARGIN)
        else:
            told = self.to_latent.fit(self._principal(motion), posture, latent, groups, shared_penalty=False)
            held_latent = torch.tanh(told) * self.config.latent_bound
        if self.drives_joints:
            self.surface.fit(posture, posture, joints - self.joints_mean, groups)
            self.pull.fill_(PULL)

        return self._figures(
            held_latent - labels.latent_MA, held_change - change, held_step - step, labels, robot
        )

    @torch.no_grad()
    def errors(self, labels: Transitions, robot: RobotSpec) -> dict[str, float]:
        """The figures of `fit` on other labels, of commands and states as they are used: held to the limits. Those
        without a unit are in units of what moved in the labels that this adapter was fitted on."""
        self._check(labels, robot)
        inputs = (labels.command_MJ, labels.previous_command_MJ, labels.joints_MJ)
        off_latent = self.command_to_latent(*inputs) - labels.latent_MA
        off_command = self.latent_to_command(labels.latent_MA, *inputs[1:]) - labels.command_MJ
        off_step = self.predict_joints(*inputs) - labels.next_joints_MJ
        scaled = off_command / self.change_scale, off_step / self._step_scale
        return self._figures(off_latent, *scaled, labels, robot)

    def _figures(
        self,
        off_latent: Tensor,
        off_command: Tensor,
        off_step: Tensor,
        labels: Transitions,
        robot: RobotSpec,
    ) -> dict[str, float]:
        """Of errors in units of what moves; see `fit`."""
        spread = (labels.latent_MA - labels.latent_MA.mean(0)).square().sum()
        latent_r2 = (1 - off_latent.square().sum() / spread.clamp_min(1e-9)).item()
        if "rad" in robot.joint_units and self.drives_joints:
            errors = {
                "command_mae_rad": (off_command.abs().mean() * self.change_scale).item(),
                "joints_mae_rad": (off_step.abs().mean() * self.change_scale).item(),
            }
        else:
            errors = {"command_error": off_command.abs().mean().item()}
            errors |= {"state_error": off_step.abs().mean().item()} if off_step.shape[1] else {}
        return errors | {"latent_r2": latent_r2}

    def _fit_scales(self, labels: Transitions, robot: RobotSpec) -> None:
        joints = labels.joints_MJ
        self.lower.copy_(torch.tensor(robot.lower))
        self.upper.copy_(torch.tensor(robot.upper))
        self.joints_mean.copy_(joints.mean(0))
        motion = self._fit_joint_scales(labels) if self.drives_joints else self._fit_number_scales(labels)
        for limit_P, rows, directions in (
            (self.posture_limit_P, joints - self.joints_mean, self.posture_PJ),
            (self.motion_limit_P, motion, self.motion_PJ),
        ):
            limit_P.copy_(MARGIN * (rows @ directions.T).abs().amax(0))

    def _fit_joint_scales(self, labels: Transitions) -> Tensor:
        """One scale for all joints, by which they move together; returns how they move [M, J]."""
        command, joints = labels.command_MJ, labels.joints_MJ
        change, step = command - labels.previous_command_MJ, labels.next_joints_MJ - joints
        self.change_scale.copy_(change.square().mean().sqrt().clamp_min(SMALLEST_SCALE))
        self.lag_scale.copy_((command - joints).square().mean().sqrt().clamp_min(SMALLEST_SCALE))
        self.largest_step.copy_((STEP_MARGIN * change.abs().amax(0)).clamp_min(SMALLEST_SCALE))
        self.posture_PJ.copy_(
            principal_directions(joints - self.joints_mean, self.config.rank, SMALLEST_SCALE)
        )
        self.motion_PJ.copy_(principal_directions(step, self.config.rank, 0.05 * self.change_scale))
        return step

    def _fit_number_scales(self, labels: Transitions) -> Tensor:
        """A scale for every number, each having a unit of its own; returns what the commands move [M, J]."""
        self.usual_J.copy_(labels.command_MJ.mean(0))
        change = labels.command_MJ - self.idle_command(labels.previous_command_MJ)
        away = labels.joints_MJ - self.joints_mean
        self.change_scale.copy_(size_of(change))
        self.step_scale_S.copy_(size_of(labels.next_joints_MJ - labels.joints_MJ))
        self.largest_step.copy_(STEP_MARGIN * change.abs().amax(0))
        self.posture_PJ.copy_(
            principal_directions(away / size_of(away), self.config.rank, SMALLEST_SCALE) / size_of(away)
        )
        self.motion_PJ.copy_(torch.diag(1 / self.change_scale))
        return change

    @property
    def _step_scale(self) -> Tensor:
        """Unit of a state's motion in one period."""
        return self.change_scale if self.drives_joints else self.step_scale_S

    def _idle_before(self, command: Tensor, previous_command: Tensor) -> Tensor:
        """What `command` is measured from; itself, where it is the first target of all."""
        return self.idle_command(torch.where(previous_command.isnan(), command, previous_command))

    def _predict_motion(self, command: Tensor, previous_command: Tensor, joints: Tensor) -> Tensor:
        """How the state [N, S] moves in one period. Not held to the limits: recorded ones are those of commands, and
        joints that sag or grip stay beyond them."""
        servo = self._servo(command, previous_command, joints)
        return self.to_joints(servo, self._posture(joints)) * self._step_scale

    def _servo(self, command: Tensor, previous_command: Tensor, joints: Tensor) -> Tensor:
        """What moves the state: both distances [N, 2J] that the joints' controllers act on, else the motion [N, J]."""
        change = (command - self._idle_before(command, previous_command)) / self.change_scale
        return torch.cat([change, (command - joints) / self.lag_scale], 1) if self.drives_joints else change

    def _seen(self, motion: Tensor, joints: Tensor) -> Tensor:
        """What a `MotionNetwork` looks at [N, 2J]: how the joints move, and where they are."""
        return torch.cat([motion / self.change_scale, joints], 1)

    def _principal(self, motion: Tensor) -> Tensor:
        coordinates = motion @ self.motion_PJ.T
        return torch.clamp(coordinates, -self.motion_limit_P, self.motion_limit_P)

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
        if labels.joints_MJ.shape[1] != len(self.joints_mean):
            raise ValueError(
                f"the adapter takes states of {len(self.joints_mean)} numbers, the labels have "
                f"{labels.joints_MJ.shape[1]}"
            )


def size_of(rows_MD: Tensor) -> Tensor:
    """Root of the mean square of each number [D], never below the smallest."""
    return rows_MD.square().mean(0).sqrt().clamp_min(SMALLEST_SCALE)


def principal_directions(rows_MJ: Tensor, rank: int, smallest: float | Tensor) -> Tensor:
    """The `rank` directions [P,J] in which rows vary most, scaled to give coordinates of unit size.

    Directions that vary less than `smallest` aren't blown up; those beyond the rows' own rank are zero.
    """
    _, size, direction = torch.linalg.svd(rows_MJ, full_matrices=False)
    scale = (size / len(rows_MJ) ** 0.5).clamp_min(float(smallest))
    found = (direction / scale[:, None])[:rank]
    return torch.cat([found, found.new_zeros(rank - len(found), rows_MJ.shape[1])])
