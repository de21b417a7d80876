"""MuJoCo beside the learned simulator: the same start, the same commands.

Physics is imported when the first twin is made: play works where MuJoCo is missing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from robosim.errors import RobosimError
from robosim.spec import CONTROL_HZ, EnvSpec

NEVER = 2**31
"""Horizon of the twin's task: at play nothing ends."""


@dataclass(frozen=True)
class TwinMoment:
    """Physics after a step, and all that is needed to go on from there."""

    task: str
    frame: np.ndarray  # uint8 [S,S,3]
    joints: np.ndarray  # float32 [J]
    places: dict[str, np.ndarray]  # tool, object, goal: float32 [3], metres
    distance: float  # metres
    state: dict[str, Any]


class Twin:
    """One row of physics of a task, which never ends."""

    def __init__(self, spec: EnvSpec, task: str, renderer: str) -> None:
        """Raises `RobosimError` where the scene can't be made or drawn here."""
        from robosim.physics.env import PhysicsEnv
        from robosim.physics.rendering.renderer import recorded_kind

        endless = replace(spec.task(task), horizon=NEVER, success_distance=-1.0)
        kind = recorded_kind({"renderer": {"kind": renderer}})
        self.task = task
        self._env = PhysicsEnv(replace(spec, tasks=(endless,)), task, renderer=kind)
        self._camera = spec.cameras[0]
        self._last: TwinMoment | None = None  # where the environment stands; None where it isn't known

    def start(self, seed: int) -> TwinMoment:
        """The task's start that follows from the seed."""
        self._last = None
        return self._moment(*self._env.reset(seed=seed))

    def step(self, before: TwinMoment, command: np.ndarray) -> TwinMoment:
        """One control period under `command` [J], from the moment `before`."""
        if before is not self._last:
            self._env.reset(options={"state": [before.state]})
        self._last = None
        observation, _, _, _, info = self._env.step(command[None])
        return self._moment(observation, info)

    def _moment(self, observation: dict[str, Any], info: dict[str, np.ndarray]) -> TwinMoment:
        moment = TwinMoment(
            self.task,
            observation["pixels"][self._camera][0],
            observation["agent_pos"][0],
            {name: info[name][0] for name in ("tool", "object", "goal")},
            float(info["task_distance"][0]),
            self._env.get_state(0),
        )
        self._last = moment
        return moment


def physics_tasks(spec: EnvSpec) -> list[str]:
    """The spec's tasks that MuJoCo can start here; empty where it isn't installed or doesn't know the arm."""
    if spec.action_kind != "joint_position" or spec.fps != CONTROL_HZ:
        return []
    try:
        from robosim.physics.arms.catalogue import robot_of
        from robosim.physics.tasks import tasks_of

        known = tasks_of(robot_of(spec.robot))
    except (ImportError, RobosimError):
        return []
    return [task.name for task in spec.tasks if task.name in known]
