"""Arms that the physics simulator knows: their joints, limits, postures, grippers and MJCF files.

`panda`: kinematics and the limits of position, velocity and torque (87 N·m for joints 1 to 4, 12 N·m for 5 to 7) are
the manufacturer's published ones: Franka Emika, "Robot and interface specifications",
https://frankaemika.github.io/docs/control_parameters.html (Denavit-Hartenberg parameters, joint limits; the hand is
turned by 45°). The shapes are ours: primitives of about the real width, and fingers 7 cm longer than the stock ones,
whose tips are 173.4 mm from the hand's flange.

`so101`: the SO-101 of TheRobotStudio, whose joints bear LeRobot's names. Offsets, masses, joint ranges, armature,
damping, friction and gains: https://github.com/TheRobotStudio/SO-ARM100, Simulation/SO101 (`so101_new_calib`: zero is
the middle of each range; the frame between our fingers is within 0.7 mm of theirs). Torque 30 kg·cm = 2.94 N·m and
speed 45 rpm = 4.71 rad/s: Feetech, STS3215-C018 data sheet (12 V). The jaw grips with a quarter of the torque, to which
LeRobot limits it under load (`Overload_Torque` 25); its damping is a quarter too, so that its speed stays. Commands use
the lowest 42° of its 110°: 5 cm. The shapes are ours.

How fast the grippers are commanded, an opening in 0.4 s, is ours for both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from robosim.config import unknown
from robosim.errors import ConfigError
from robosim.spec import RobotSpec

MODELS = Path(__file__).parent / "models"


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


PANDA = Robot(
    spec=RobotSpec(
        name="panda",
        joint_names=(*(f"joint{i}" for i in range(1, 8)), "gripper"),
        joint_units=("rad",) * 7 + ("fraction",),
        lower=(-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973, 0.0),
        upper=(2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973, 1.0),
    ),
    model_file=MODELS / "panda.xml",
    velocity=(2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61, 2.5),
    rest=(0.0, -0.3, 0.0, -2.2, 0.0, 1.9, -0.785),
    workspace=Workspace(centre=(0.5, 0.0), low=0.008),
    gripper=Gripper(
        joints=("finger_left", "finger_right"), actuator="gripper", closed=0.0, open=0.04, gap=0.08
    ),
)

SO101 = Robot(
    spec=RobotSpec(
        name="so101",
        joint_names=("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"),
        joint_units=("rad",) * 5 + ("fraction",),
        lower=(-1.91986, -1.74533, -1.69, -1.65806, -2.74385, 0.0),
        upper=(1.91986, 1.74533, 1.69, 1.65806, 2.84121, 1.0),
    ),
    model_file=MODELS / "so101.xml",
    velocity=(4.71, 4.71, 4.71, 4.71, 4.71, 2.5),
    rest=(0.0, -0.1, 0.305, 1.3658, 0.0),
    workspace=Workspace(centre=(0.22, 0.0), scale=0.45, low=0.008, high=0.29),
    gripper=Gripper(
        joints=("gripper",), actuator="gripper", closed=-0.174533, open=0.55, gap=0.053, fixed=0.009
    ),
)

ROBOTS = {robot.spec.name: robot for robot in (PANDA, SO101)}


def get_robot(name: str) -> Robot:
    """An arm by name, or by the path of its MJCF file. Raises `ConfigError` that lists the valid names."""
    if name in ROBOTS:
        return ROBOTS[name]
    if name.endswith(".xml"):
        from robosim.physics.arms.custom_robot import load_robot

        return load_robot(Path(name))
    raise ConfigError(unknown("robot", name, ROBOTS) + ", or the path of an MJCF file (.xml)")


def robot_of(spec: RobotSpec, name: str | None = None) -> Robot:
    """The arm that a dataset's spec names; `name` where its MJCF file lies now, if it was moved.

    Raises `ConfigError` when there is no such arm, or when it isn't the one that the dataset was recorded with.
    """
    robot = get_robot(name or spec.model or spec.name)
    if not same_arm(robot.spec, spec):
        raise ConfigError(
            f"{name or spec.model or spec.name} isn't the arm that the dataset was recorded with: its joints, "
            "limits or files differ; restore the files, or collect again"
        )
    return robot


def same_arm(left: RobotSpec, right: RobotSpec) -> bool:
    """Whether two specs are of the same arm, wherever its file lies."""
    return replace(left, model="") == replace(right, model="")
