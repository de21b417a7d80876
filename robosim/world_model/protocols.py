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
    """float32 [N, J]: rad, gripper 0 (closed) … 1 (open)."""
    tool: Tensor
    """float32 [N, 3]: tip of the tool."""
    object: Tensor
    """float32 [N, 3]: centre of the object."""
    goal: Tensor
    """float32 [N, 3]: the marker."""


class CommandAdapter(Protocol):
    """Joint commands ↔ latent actions. Commands are absolute targets, latent actions are motions."""

    def command_to_latent(self, command: Tensor, previous_command: Tensor, joints: Tensor) -> Tensor:
        """All arguments float32 [N, J]; returns the latent action [N, A]."""
        ...

    def latent_to_command(self, latent: Tensor, previous_command: Tensor, joints: Tensor) -> Tensor:
        """`latent` float32 [N, A], the others [N, J]; returns the command [N, J]."""
        ...

    def predict_joints(self, command: Tensor, previous_command: Tensor, joints: Tensor) -> Tensor:
        """Joints [N, J] one control period after `command` is sent at `joints`."""
        ...


class FrameProbe(Protocol):
    def read(self, frames: Tensor) -> ProbeReading:
        """`frames` uint8 [N, H, W, 3]."""
        ...


class SuccessJudge(Protocol):
    def distance(self, reading: ProbeReading, task: TaskSpec) -> Tensor:
        """Task distance [N] in metres, corrected by the judge's calibration."""
        ...
