"""The tasks of the scene, by name."""

from __future__ import annotations

from collections.abc import Sequence

from robosim.errors import ConfigError
from robosim.physics.robots import get_robot
from robosim.physics.tasks.base import Task
from robosim.physics.tasks.reach import Reach
from robosim.physics.tasks.soft_push import SoftPush
from robosim.spec import EnvSpec

TASKS: dict[str, Task] = {task.spec.name: task for task in (Reach(), SoftPush())}


def get_task(name: str) -> Task:
    """Look a task up by name. Raises `ConfigError` that lists the valid names."""
    if name not in TASKS:
        raise ConfigError(f"unknown task {name!r}; choose one of: {', '.join(TASKS)}")
    return TASKS[name]


def make_spec(robot: str = "panda", tasks: Sequence[str] = tuple(TASKS), size: int = 64) -> EnvSpec:
    """The contract of the physics simulator for one arm, some tasks and a picture size in pixels."""
    return EnvSpec(robot=get_robot(robot).spec, tasks=tuple(get_task(name).spec for name in tasks), size=size)
