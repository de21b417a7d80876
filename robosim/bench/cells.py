"""What a benchmark of the physics side runs over: every task on every arm that can do it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from robosim.config import compose_tree
from robosim.errors import ConfigError
from robosim.physics.arms.catalogue import ROBOTS, get_robot
from robosim.physics.tasks import TASKS, get_task, load_task_file


@dataclass(frozen=True)
class Cell:
    """One row of the tables: a task on an arm, by its name or its file."""

    task: str
    robot: str
    task_file: str | None = None

    def load(self) -> None:
        """Make the task known in this process."""
        if self.task_file:
            load_task_file(self.task_file)

    @property
    def label(self) -> dict[str, str]:
        return {"task": self.task, "robot": get_robot(self.robot).spec.name}


def cells(task: str | None, robot: str | None, task_file: str | None = None) -> tuple[list[Cell], list[Cell]]:
    """The cells to measure, and those that the arm can't do; None stands for all that exist.

    `task_file`: a Python file with tasks of one's own, which alone are measured then. Raises `ConfigError` for an
    unknown task, and when nothing is left to measure.
    """
    if task and task_file:
        raise ConfigError("task= and task_file= exclude each other: a task file's own tasks are measured")
    tasks: Sequence[str] = load_task_file(task_file) if task_file else list(TASKS)
    if task:
        tasks = compose_tree("collect", [f"task={task}"])["tasks"]
    robots = list(ROBOTS) if robot is None else [robot]
    able: dict[bool, list[Cell]] = {True: [], False: []}
    for arm in robots:
        for name in tasks:
            able[get_task(name).supports(get_robot(arm))].append(Cell(name, arm, task_file))
    if not able[True]:
        raise ConfigError(f"{', '.join(robots)} can't do {', '.join(tasks)}; set task= or robot= to another")
    return able[True], able[False]


def processes(workers: int) -> int:
    """`workers`, or one a core for 0."""
    if workers < 0:
        raise ConfigError(f"workers={workers} needs to be at least 0")
    return workers or len(os.sched_getaffinity(0))


def labels(skipped: Sequence[Cell]) -> list[dict[str, Any]]:
    return [cell.label for cell in skipped]
