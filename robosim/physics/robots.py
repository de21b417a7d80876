"""Arms that the physics simulator knows: their joints, limits, rest posture and MJCF file.

The Panda's kinematics, position and velocity limits are the manufacturer's published ones: Franka Emika, "Robot
and interface specifications", https://frankaemika.github.io/docs/control_parameters.html (Denavit-Hartenberg
parameters, joint limits; the hand is turned by 45°). The shapes are ours: primitives of about the real width, and
fingers 7 cm longer than the stock ones, whose tips are 173.4 mm from the hand's flange.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robosim.errors import ConfigError
from robosim.spec import RobotSpec

MODELS = Path(__file__).parent / "models"


@dataclass(frozen=True)
class Robot:
    """One arm with a gripper.

    `velocity` is the largest speed a joint may be commanded with (rad/s; gripper: openings a second);
    `rest` is the posture (rad) that inverse kinematics stays close to; `finger_travel` is the metres that one
    finger moves from closed to open.
    """

    spec: RobotSpec
    model_file: Path
    velocity: tuple[float, ...]
    rest: tuple[float, ...]
    finger_travel: float

    @property
    def num_arm_joints(self) -> int:
        return len(self.rest)

    def to_actuator(self, command: np.ndarray) -> np.ndarray:
        """Command [..., J] (rad, opening 0…1) → actuator targets [..., J] (rad, metres of finger travel)."""
        targets = np.array(command, dtype=np.float64)
        targets[..., -1] *= self.finger_travel
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
    finger_travel=0.04,
)

ROBOTS = {robot.spec.name: robot for robot in (PANDA,)}


def get_robot(name: str) -> Robot:
    """Look an arm up by name. Raises `ConfigError` that lists the valid names."""
    if name not in ROBOTS:
        raise ConfigError(f"unknown robot {name!r}; choose one of: {', '.join(ROBOTS)}")
    return ROBOTS[name]
