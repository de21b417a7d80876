"""What an arm is: joints, limits, posture, gripper, workspace, and the MJCF file of its shape."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robosim.spec import RobotSpec


@dataclass(frozen=True)
class Workspace:
    """Where on the table an arm works. Tasks place and size everything in its units, so that they fit any arm.

    `centre` (x, y) in metres; `scale` is the metres that one unit is long, 1 for an arm of the Panda's size; `low`
    and `high` (units) hold the height of the tool's tip above the table.
    """

    centre: tuple[float, float]
    scale: float = 1.0
    low: float = 0.03
    high: float = 0.34

    def at(self, forward: float, left: float, height: float = 0.0) -> np.ndarray:
        """The point [3] (metres, world) that lies this many units from the centre, and above the table."""
        return np.array([*self.centre, 0.0]) + self.scale * np.array([forward, left, height])

    @property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corner [3] (metres, world) of where the tool is led."""
        return self.at(-0.20, -0.30, self.low), self.at(0.22, 0.30, self.high)


@dataclass(frozen=True)
class Gripper:
    """Fingers that one actuator moves between `closed` and `open` (rad or metres, of joints and actuator alike).

    `gap`: metres between the fingertips when they are open. `fixed`: where only one finger moves, metres from the
    tool's tip to the one that doesn't. `ctrl`: the actuator's values for closed and open, where it isn't commanded in
    the joints' unit. Fingers open along the tool site's y axis, a single one towards its positive end.
    """

    joints: tuple[str, ...]
    actuator: str
    closed: float
    open: float
    gap: float
    fixed: float | None = None
    ctrl: tuple[float, float] | None = None

    def opening(self, width: float) -> float:
        """The command (0…1) that leaves `width` metres between the fingertips."""
        return float(np.clip(width / self.gap, 0.0, 1.0))

    def middle(self, width: float) -> float:
        """How far (metres, along the fingers' opening) the middle between fingertips `width` apart is from the tool's
        tip: the tool must stay back by this much for a thing to lie between the open fingers."""
        return 0.0 if self.fixed is None else width / 2 - self.fixed


@dataclass(frozen=True)
class Servo:
    """Position servos for a model that has none: stiffness `kp` (N·m/rad), damping by ratio or as `kv` (N·m·s/rad),
    and the largest torque (N·m)."""

    kp: float
    dampratio: float = 1.0
    kv: float | None = None
    force: float | None = None


@dataclass(frozen=True)
class Adaptation:
    """How the MJCF of an arm of one's own is made ready (`arm_model`). `cameras` are (name, name in the model);
    `tool`: a body, and the point in its frame (metres) where a site for the tool is added."""

    cameras: tuple[tuple[str, str], ...] = ()
    tool: tuple[str, tuple[float, float, float]] | None = None
    servo: Servo | None = None
    gravcomp: bool = False


@dataclass(frozen=True)
class Robot:
    """One arm.

    `spec` lists the arm's joints, then the gripper if there is one. `velocity`: the largest speed a joint may be
    commanded with (rad/s; gripper: openings a second). `rest`: the posture (rad) that inverse kinematics stays close
    to; the tool keeps the direction that it has there. `cameras` are (name, MJCF attributes) of cameras that the
    scene adds, beside those in the model. `base`: where the model's origin stands (metres, world), and its turn about
    the vertical (rad).
    """

    spec: RobotSpec
    model_file: Path
    velocity: tuple[float, ...]
    rest: tuple[float, ...]
    workspace: Workspace
    gripper: Gripper | None = None
    tool_site: str = "tool"
    cameras: tuple[tuple[str, str], ...] = ()
    base: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    adaptation: Adaptation | None = None

    @property
    def num_arm_joints(self) -> int:
        return len(self.rest)

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Of all cameras that a scene with this arm has."""
        built_in = () if self.adaptation else ("wrist",)
        return tuple(dict.fromkeys(("front", *built_in, *sorted(self.own_cameras))))

    @property
    def own_cameras(self) -> set[str]:
        """Names of the cameras that the arm's description brings."""
        of_model = self.adaptation.cameras if self.adaptation else ()
        return {name for name, _ in (*self.cameras, *of_model)}

    def command(self, joints: np.ndarray, opening: float) -> np.ndarray:
        """The command [J] for arm joints [A] (rad) and a gripper opening, which an arm without one leaves out."""
        return np.append(joints, opening) if self.gripper else np.array(joints, dtype=np.float64)

    def to_actuator(self, command: np.ndarray) -> np.ndarray:
        """Command [..., J] (rad, opening 0…1) → actuator targets [..., J] (the gripper's in its own unit)."""
        targets = np.array(command, dtype=np.float64)
        if self.gripper:
            closed, opened = self.gripper.ctrl or (self.gripper.closed, self.gripper.open)
            targets[..., -1] = closed + targets[..., -1] * (opened - closed)
        return targets
