"""robosim's two simulators as LeRobot environment types: `robosim_physics` and `robosim_learned`.

lerobot-eval --policy.path=runs/x/policy/reach/pretrained_model --env.type=robosim_physics --env.task=reach
lerobot-eval --policy.path=runs/x/policy/reach/pretrained_model --env.type=robosim_learned --env.run=runs/x

Both are vector environments already, so that LeRobot's own batching by process isn't used.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from robosim.errors import ConfigError
from robosim.spec import CONTROL_HZ, EnvSpec

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv


@dataclass
class RobosimEnv(EnvConfig):
    """What the two types share: features from the `EnvSpec`, one vector environment."""

    task: str = "reach"  # type: ignore[assignment]
    fps: int = CONTROL_HZ

    def __post_init__(self) -> None:
        spec = self.load_spec()
        spec.task(self.task)
        joints = (spec.robot.num_joints,)
        self.fps = spec.fps
        self.features = {
            ACTION: PolicyFeature(FeatureType.ACTION, joints),
            "agent_pos": PolicyFeature(FeatureType.STATE, joints),
        }
        self.features_map = {ACTION: ACTION, "agent_pos": OBS_STATE}
        for camera in spec.cameras:
            self.features[f"pixels/{camera}"] = PolicyFeature(FeatureType.VISUAL, (spec.size, spec.size, 3))
            self.features_map[f"pixels/{camera}"] = f"{OBS_IMAGES}.{camera}"

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return {}

    @abstractmethod
    def load_spec(self) -> EnvSpec:
        """The contract of this environment."""

    @abstractmethod
    def make_vector_env(self, num_envs: int) -> VectorEnv:
        """The simulator with `num_envs` rows."""

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, VectorEnv]]:
        return {self.type: {0: self.make_vector_env(n_envs)}}


@EnvConfig.register_subclass("robosim_physics")
@dataclass
class RobosimPhysicsEnv(RobosimEnv):
    """MuJoCo. `robot` (a name, or the path of an MJCF file), `cameras` and `size` (pixels) must be the policy's.

    `task_file`: a Python file that registers tasks of one's own.
    """

    robot: str = "panda"
    cameras: list[str] = field(default_factory=lambda: ["front"])
    size: int = 64
    task_file: str = ""

    def load_spec(self) -> EnvSpec:
        from robosim.physics.tasks import load_task_file, make_spec

        if self.task_file:
            load_task_file(self.task_file)
        return make_spec(self.robot, size=self.size, cameras=self.cameras)

    def make_vector_env(self, num_envs: int) -> VectorEnv:
        from robosim.physics.env import PhysicsEnv

        return PhysicsEnv(self.load_spec(), task=self.task, num_envs=num_envs, robot=self.robot)


@EnvConfig.register_subclass("robosim_learned")
@dataclass
class RobosimLearnedEnv(RobosimEnv):
    """The learned simulator of the run folder `run`; episodes start at held-out first frames."""

    run: str = ""
    device: str = "cpu"

    def load_spec(self) -> EnvSpec:
        from robosim_datasets.clip_store import ClipStore

        if not self.run:
            raise ConfigError("robosim_learned needs a run folder: add --env.run=runs/<name>")
        return ClipStore(Path(self.run) / "clips").spec

    def make_vector_env(self, num_envs: int) -> VectorEnv:
        from robosim.training.simulator import open_learned_env

        return open_learned_env(Path(self.run), self.task, num_envs, self.device)
