"""One episode from one seed: simulate, judge, render."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from robosim_datasets.episode import Episode

from robosim.errors import ConfigError
from robosim.physics.driver import ToolDriver
from robosim.physics.exploration import Exploration
from robosim.physics.kinematics import InverseKinematics
from robosim.physics.renderer import Renderer
from robosim.physics.robots import get_robot
from robosim.physics.scene import build_scene
from robosim.physics.simulation import Reading, Simulation
from robosim.physics.tasks import get_task
from robosim.physics.tasks.base import Task, ToolPolicy
from robosim.spec import SuccessRule

Behaviour = Literal["expert", "explore"]

TOOL_NOISE = 0.004
"""Standard deviation of the noise on every tool target, metres: demonstrations that never err teach no correction."""

FRAMES_AFTER_SUCCESS = 2
"""Frames that an expert's episode goes on for once it has succeeded."""


@dataclass
class Track:
    """What happened, without pictures: T rows, row t as in `Episode`."""

    qpos: np.ndarray
    marker: np.ndarray
    state: np.ndarray
    action: np.ndarray
    environment_state: np.ndarray
    reward: np.ndarray
    success: np.ndarray
    warnings: int


class Recorder:
    """Records episodes of one robot at one picture size. `size=None` leaves the renderer out (tracks only)."""

    def __init__(self, robot: str = "panda", size: int | None = 64) -> None:
        self.scene = build_scene(get_robot(robot))
        self.kinematics = InverseKinematics(self.scene)
        self.simulation = Simulation(self.scene)
        self.renderer = None if size is None else Renderer(self.scene, size)

    def record(self, task_name: str, behaviour: Behaviour, seed: int, split: str = "train") -> Episode:
        """Simulate and render. The start is the one that `PhysicsEnv.reset(seed=seed)` gives for this task."""
        if self.renderer is None:
            raise ValueError("this recorder was made without a renderer: use `simulate`")
        task = get_task(task_name)
        track = self.simulate(task, behaviour, seed)
        return Episode(
            frames=self.renderer.render(track.qpos, track.marker),
            state=track.state,
            action=track.action,
            environment_state=track.environment_state,
            reward=track.reward,
            success=track.success,
            task=task.spec.name,
            instruction=task.spec.instruction,
            behaviour=behaviour,
            split=split,
            seed=seed,
        )

    def simulate(self, task: Task, behaviour: Behaviour, seed: int) -> Track:
        """Play one episode: an expert until shortly after success, exploration until the horizon."""
        layout = task.sample(start_generator(seed), self.kinematics)
        self.simulation.reset(layout)
        driver = ToolDriver(self.kinematics, layout.joints)
        choices, noise = (np.random.default_rng([seed, stream]) for stream in (1, 2))
        policy = make_policy(task, behaviour, choices)
        rule = SuccessRule(task.spec.success_distance, 1)
        rows: list[_Row] = []
        succeeded, afterwards = False, 0
        for frame in range(task.spec.horizon + 1):
            if frame > 0:
                self.simulation.step(rows[-1].action)
            reading = self.simulation.read()
            distance = task_distance(task, reading)
            if frame > 0:
                succeeded |= bool(rule.update(np.array([distance]))[0])
            target, speed = policy(reading, driver.point)
            command = driver.towards(target + noise.normal(0.0, TOOL_NOISE, 3), speed)
            rows.append(_Row(reading, self.simulation.qpos.copy(), command, distance, succeeded))
            afterwards += succeeded
            if behaviour == "expert" and afterwards > FRAMES_AFTER_SUCCESS:
                break
        return _track(task, rows, self.simulation.warnings)


def start_generator(seed: int) -> np.random.Generator:
    """The generator that draws an episode's start; its policy and noise have streams of their own."""
    return np.random.default_rng(seed)


def make_policy(task: Task, behaviour: str, rng: np.random.Generator) -> ToolPolicy:
    """The policy behind a behaviour's name. Raises `ConfigError` for an unknown one."""
    if behaviour == "expert":
        return task.expert(rng)
    if behaviour == "explore":
        return Exploration(rng)
    raise ConfigError(f"unknown behaviour {behaviour!r}; choose one of: expert, explore")


def task_distance(task: Task, reading: Reading) -> float:
    """Distance that decides the task, metres."""
    return float(task.spec.distance(reading.tool, reading.object, task.goal(reading.marker)))


@dataclass
class _Row:
    reading: Reading
    qpos: np.ndarray
    action: np.ndarray
    distance: float
    succeeded: bool


def _track(task: Task, rows: list[_Row], warnings: int) -> Track:
    distance = np.array([row.distance for row in rows])
    success = np.array([row.succeeded for row in rows])
    reward = np.zeros(len(rows))
    reward[1:] = -np.diff(distance) + np.diff(success.astype(np.float64))
    positions = [
        np.concatenate([row.reading.tool, row.reading.object, task.goal(row.reading.marker)]) for row in rows
    ]
    return Track(
        qpos=np.stack([row.qpos for row in rows]),
        marker=np.stack([row.reading.marker for row in rows]),
        state=np.stack([row.reading.agent_pos for row in rows]).astype(np.float32),
        action=np.stack([row.action for row in rows]).astype(np.float32),
        environment_state=np.stack(positions).astype(np.float32),
        reward=reward.astype(np.float32),
        success=success,
        warnings=warnings,
    )
