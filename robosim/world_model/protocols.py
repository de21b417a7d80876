"""What the learned simulator needs from the rooms above it.

`LearnedEnv` is driven by joint commands and reports distances in metres, but the world model itself knows only
pixels. The adapter room implements these protocols; nothing here imports it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from robosim.spec import TaskSpec


@dataclass
class ProbeReading:
    """What a probe reads off N frames. Positions are in metres in the world frame."""

    joints: Tensor
    """float32 [N, S]: rad, gripper 0 (closed) … 1 (open), or the numbers of a state in imported data."""
    tool: Tensor
    """float32 [N, 3]: tip of the tool. All three places are NaN where the labels have no positions."""
    object: Tensor
    """float32 [N, 3]: centre of the object."""
    goal: Tensor
    """float32 [N, 3]: the marker."""
    trust: Tensor | None = None
    """float32 [S], 0 … 1: how far each of the joints may be believed; None: all of them wholly."""


class CommandAdapter(Protocol):
    """Commands ↔ latent actions, beside the joints (or another state). Commands are absolute targets of the joints, or
    motions; latent actions are motions."""

    def command_to_latent(self, command: Tensor, previous_command: Tensor, joints: Tensor) -> Tensor:
        """Commands float32 [N, J], `joints` [N, S]; returns the latent action [N, A]."""
        ...

    def latent_to_command(self, latent: Tensor, previous_command: Tensor, joints: Tensor) -> Tensor:
        """`latent` float32 [N, A], the others as above; returns the command [N, J]."""
        ...

    def predict_joints(self, command: Tensor, previous_command: Tensor, joints: Tensor) -> Tensor:
        """Joints [N, S] one control period after `command` is sent at `joints`."""
        ...

    def first_command(self, joints: Tensor) -> Tensor:
        """What stands for the command [N, J] before an episode's first one, at `joints` [N, S]; NaN: it is unknown, and
        the first one moves nothing."""
        ...

    def idle_command(self, previous_command: Tensor) -> Tensor:
        """The command [N, J] that moves nothing after `previous_command`, a guess where that is unknown."""
        ...


class FrameProbe(Protocol):
    def read(self, frames: Tensor) -> ProbeReading:
        """`frames` uint8 [N, H, W, 3]."""
        ...


class SuccessJudge(Protocol):
    def distance(self, reading: ProbeReading, task: TaskSpec) -> Tensor:
        """Task distance [N] in metres, corrected by the judge's calibration."""
        ...
