"""One row of `PhysicsEnv` as a plain gymnasium environment, for `gymnasium.make("robosim/Physics-v0")`."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np

from robosim.physics.env import Info, Observation, PhysicsEnv
from robosim.physics.rendering.renderer import RendererKind
from robosim.physics.variation import Variation
from robosim.spec import CONTROL_HZ, EnvSpec


class SinglePhysicsEnv(gymnasium.Env):
    """`PhysicsEnv(num_envs=1)` without the leading axis; options are those of `PhysicsEnv.reset`, less the mask."""

    metadata: ClassVar[dict[str, Any]] = {"render_fps": CONTROL_HZ, "render_modes": ["rgb_array"]}

    def __init__(
        self,
        env_spec: EnvSpec | None = None,
        task: str = "reach",
        robot: str | None = None,
        render_mode: str | None = "rgb_array",
        variation: Variation | None = None,
        renderer: RendererKind = "warp",
    ) -> None:
        self.render_mode = render_mode
        self._rows = PhysicsEnv(env_spec, task=task, robot=robot, variation=variation, renderer=renderer)
        self.observation_space = self._rows.single_observation_space
        self.action_space = self._rows.single_action_space
        self.task, self.task_description = self._rows.task, self._rows.task_description
        self._max_episode_steps = self._rows._max_episode_steps

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        start = int(self.np_random.integers(2**31)) if seed is None else seed
        options = dict(options or {})
        if "state" in options:
            options["state"] = [options["state"]]
        observation, info = self._rows.reset(seed=[start], options=options)
        return _first(observation), _first(info)

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self._rows.step(np.asarray(action)[None])
        return (
            _first(observation),
            float(reward[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            _first(info),
        )

    def render(self) -> np.ndarray | None:
        """The first camera's picture, uint8 [H,W,3]."""
        return None if self.render_mode is None else self._rows.render()[0]

    def get_state(self) -> dict[str, np.ndarray]:
        """For `reset(options={"state": state})`."""
        return self._rows.get_state(0)


def _first(rows: Observation | Info) -> dict[str, Any]:
    return {key: _first(value) if isinstance(value, dict) else value[0] for key, value in rows.items()}
