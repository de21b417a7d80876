"""The keys of the YAML that goes with the MJCF file of an arm of one's own (docs/arms.md)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from robosim.physics.arms.robots import Gripper, Servo

HIGH = 0.29
"""Units above the table that the tool is kept at most: tasks start as high as 0.28."""

VELOCITY = 2.0
"""rad/s that a joint may be commanded with, unless `velocity` says otherwise."""


@dataclass(frozen=True)
class CameraKeys:
    """A camera at `pos` that looks at `target` (metres, world); `fovy` in degrees."""

    pos: tuple[float, float, float]
    target: tuple[float, float, float]
    fovy: float = 45.0

    def mjcf(self) -> str:
        """Its attributes. The picture's upper edge is up, or, seen from straight above, away from the robot."""
        back = np.subtract(self.pos, self.target)
        back = back / max(float(np.linalg.norm(back)), 1e-9)
        up = np.array([0.0, 0.0, 1.0]) if abs(back[2]) < 0.999 else np.array([1.0, 0.0, 0.0])
        right = np.cross(up, back)
        right /= np.linalg.norm(right)
        axes = " ".join(f"{value:.6f}" for value in (*right, *np.cross(back, right)))
        return f'pos="{" ".join(map(str, self.pos))}" xyaxes="{axes}" fovy="{self.fovy}"'


@dataclass(frozen=True)
class ToolKeys:
    """A point (metres) in the frame of a body, for models without a site there."""

    body: str
    pos: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class BaseKeys:
    """Where the model's origin stands (metres, world), and its turn about the vertical (rad)."""

    pos: tuple[float, float, float] = (0.0, 0.0, 0.0)
    yaw: float = 0.0


@dataclass(frozen=True)
class WorkspaceKeys:
    """As `Workspace`; `low` follows from whether there is a gripper."""

    centre: tuple[float, float]
    scale: float
    low: float | None = None
    high: float = HIGH


@dataclass(frozen=True)
class ArmKeys:
    """The keys of the YAML."""

    joints: tuple[str, ...]
    tool: str | ToolKeys
    home: tuple[float, ...]
    name: str | None = None
    gripper: Gripper | None = None
    cameras: dict[str, str | CameraKeys] = field(default_factory=dict)
    workspace: WorkspaceKeys | None = None
    velocity: float | tuple[float, ...] = VELOCITY
    base: BaseKeys = field(default_factory=BaseKeys)
    servo: Servo | None = None
    gravcomp: bool = False

    def __post_init__(self) -> None:
        count = len(self.joints)
        if not count or len(set(self.joints)) < count:
            raise ValueError(f"joints={list(self.joints)} should name each joint of the arm once, base first")
        if len(self.home) != count:
            raise ValueError(f"home has {len(self.home)} angles, joints has {count}; give one (rad) a joint")
        if len(self.velocities) != count or min(self.velocities) <= 0:
            raise ValueError(
                f"velocity={self.velocity} should be one speed above 0 (rad/s), or one a joint ({count})"
            )
        if (gripper := self.gripper) is not None and (gripper.closed == gripper.open or gripper.gap <= 0):
            raise ValueError(
                "gripper: closed and open should differ, and gap (metres between open tips) be above 0"
            )
        if self.servo is not None and self.servo.kp <= 0:
            raise ValueError(f"servo.kp={self.servo.kp} should be above 0 (N·m/rad)")
        if self.workspace is not None and self.workspace.scale <= 0:
            raise ValueError(f"workspace.scale={self.workspace.scale} should be above 0 (metres a unit)")

    @property
    def velocities(self) -> tuple[float, ...]:
        """One a joint."""
        return self.velocity if isinstance(self.velocity, tuple) else (self.velocity,) * len(self.joints)
