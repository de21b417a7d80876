"""The tasks, by name."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from robosim.config import unknown
from robosim.errors import ConfigError
from robosim.physics.arms.catalogue import get_robot
from robosim.physics.arms.robots import Robot
from robosim.physics.tasks.base import Task
from robosim.physics.tasks.clay_squash import ClaySquash
from robosim.physics.tasks.cloth_fold import ClothFold
from robosim.physics.tasks.cube_pick import CubePick
from robosim.physics.tasks.push_target import PushTarget
from robosim.physics.tasks.reach import Reach
from robosim.physics.tasks.rope_place import RopePlace
from robosim.physics.tasks.soft_pick import SoftPick
from robosim.physics.tasks.soft_push import SoftPush
from robosim.spec import EnvSpec

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (Reach, CubePick, PushTarget, SoftPush, SoftPick, RopePlace, ClothFold, ClaySquash)
}


def register_task(task: type[Task]) -> None:
    """Make a task of one's own known by its name. Raises `ConfigError` if another one has it already."""
    if task.name in TASKS:
        raise ConfigError(f"a task named {task.name!r} exists already; choose another name")
    TASKS[task.name] = task


def load_task_file(path: str | Path) -> tuple[str, ...]:
    """Run a Python file that registers tasks of one's own; return their names. A file runs once a process.

    Raises `ConfigError` if the file is missing or registers nothing.
    """
    file = Path(path).resolve()
    module_name = f"robosim_task_file:{file}"
    if module_name not in sys.modules:
        if file.suffix != ".py" or not file.is_file():
            raise ConfigError(f"no task file at {path}; it must be a Python file (.py), see docs/tasks.md")
        spec = importlib.util.spec_from_file_location(module_name, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        known = set(TASKS)
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            del sys.modules[module_name]
            for name in set(TASKS) - known:
                del TASKS[name]
            if not isinstance(error, Exception) or isinstance(error, ConfigError):
                raise
            where = "".join(traceback.format_exception(error)).strip()
            raise ConfigError(f"the task file {path} can't be run:\n{where}") from error
    names = tuple(name for name, task in TASKS.items() if task.__module__ == module_name)
    if not names:
        raise ConfigError(f"{path} registers no task; end it with register_task(YourTask), see docs/tasks.md")
    return names


def get_task(name: str, robot: Robot | None = None) -> type[Task]:
    """Look a task up by name. Raises `ConfigError` that lists the valid names, or those that `robot` can do."""
    if name not in TASKS:
        raise ConfigError(unknown("task", name, TASKS))
    if robot is not None and not TASKS[name].supports(robot):
        raise ConfigError(f"{robot.spec.name} can't do {name}; it can do tasks=[{','.join(tasks_of(robot))}]")
    return TASKS[name]


def tasks_of(robot: Robot) -> tuple[str, ...]:
    """The tasks that an arm can do."""
    return tuple(name for name, task in TASKS.items() if task.supports(robot))


def make_spec(
    robot: str = "panda", tasks: Sequence[str] = (), size: int = 64, cameras: Sequence[str] = ("front",)
) -> EnvSpec:
    """The contract of the physics simulator for one arm, some tasks (default: all it can do), cameras and a picture
    size in pixels. Raises `ConfigError` for unknown names and for tasks that this arm can't do."""
    arm = get_robot(robot)
    for camera in cameras:
        if camera not in arm.camera_names:
            raise ConfigError(unknown(f"camera of {arm.spec.name}", camera, arm.camera_names))
    return EnvSpec(
        robot=arm.spec,
        tasks=tuple(get_task(name, arm).spec(arm) for name in tasks or tasks_of(arm)),
        cameras=tuple(cameras),
        size=size,
    )
