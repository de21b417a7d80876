"""The arms: those known by name, and the way to any other.

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

from dataclasses import replace
from pathlib import Path

from robosim.config import unknown
from robosim.errors import ConfigError
from robosim.physics.arms.custom_robot import load_robot
from robosim.physics.arms.robots import Gripper, Robot, Workspace
from robosim.spec import RobotSpec

MODELS = Path(__file__).parent / "models"

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
