"""One episode from one seed: simulate, judge, render."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from robosim_datasets.episode import Episode

from robosim.errors import ConfigError
from robosim.physics.arms.catalogue import get_robot
from robosim.physics.driver import Move, ToolDriver
from robosim.physics.exploration import Exploration, Stopped
from robosim.physics.kinematics import InverseKinematics
from robosim.physics.rendering.renderer import RendererKind
from robosim.physics.scene import Layout, Scene
from robosim.physics.setting import Setting, Settings
from robosim.physics.simulation import Reading
from robosim.physics.tasks.base import Task, ToolPolicy
from robosim.physics.variation import Variation
from robosim.spec import SuccessRule

Behaviour = Literal["expert", "noisy", "stopped", "explore"]
"""A scripted expert; one whose hand trembles; one that gives up half-way; wandering from way-point to way-point."""

TOOL_NOISE = 0.004
"""Standard deviation of the noise on every tool target, units of the workspace: demonstrations that never err teach no
correction."""

DRIFT_NOISE, DRIFT_MEMORY = 0.03, 0.85
"""A noisy expert's target wanders besides: standard deviation (units) and the share kept from period to period. White
noise alone averages out on the way."""

FRAMES_AFTER_SUCCESS = 2
"""Frames that an expert's episode goes on for once it has succeeded."""


@dataclass
class Track:
    """What happened, without pictures: T rows, row t as in `Episode`. `measures`: the task's, at the end."""

    visible: np.ndarray
    state: np.ndarray
    action: np.ndarray
    environment_state: np.ndarray
    distance: np.ndarray
    reward: np.ndarray
    success: np.ndarray
    measures: dict[str, float]
    warnings: int


class Recorder:
    """Records episodes of one arm. `size=None` leaves the renderer out (tracks only).

    `frames`: of an episode; by default those up to the task's horizon.
    """

    def __init__(
        self,
        robot: str = "panda",
        size: int | None = 64,
        cameras: tuple[str, ...] = ("front",),
        variation: Variation | None = None,
        renderer: RendererKind = "warp",
        frames: int | None = None,
    ) -> None:
        self.robot = get_robot(robot)
        self._frames = frames
        self.kinematics = InverseKinematics(self.robot)
        self._variation = variation or Variation()
        self._settings = Settings(self.robot, size, cameras, renderer)

    def setting(self, task: str, seed: int) -> Setting:
        """The task as the seed varies it."""
        return self._settings.get(task, self._variation.sample(seed))

    def record(self, task_name: str, behaviour: Behaviour, seed: int, split: str = "train") -> Episode:
        """Simulate and render. The start is the one that `PhysicsEnv.reset(seed=seed)` gives for this task."""
        setting = self.setting(task_name, seed)
        if setting.renderer is None:
            raise ValueError("this recorder was made without a renderer: use `simulate`")
        track = self.simulate(setting, behaviour, seed)
        return Episode(
            frames=setting.renderer.render(track.visible),
            state=track.state,
            action=track.action,
            environment_state=track.environment_state,
            reward=track.reward,
            success=track.success,
            task=task_name,
            instruction=setting.task.instruction,
            behaviour=behaviour,
            split=split,
            seed=seed,
            factors=setting.task.factors.to_json(),
            measures=track.measures,
        )

    def simulate(
        self, setting: Setting, behaviour: Behaviour, seed: int, after: int = FRAMES_AFTER_SUCCESS
    ) -> Track:
        """Play one episode: an expert until `after` frames after success, the others until all frames are played."""
        task, simulation = setting.task, setting.simulation()
        layout = draw_start(task, setting.scene, self.kinematics, seed)
        simulation.reset(layout)
        driver = ToolDriver(self.robot, self.kinematics, layout.joints, layout.opening)
        choices, noise = (np.random.default_rng([seed, stream]) for stream in (1, 2))
        policy = make_policy(task, behaviour, choices)
        rule = SuccessRule(task.spec(self.robot).success_distance, 1)
        drift = np.zeros(3)
        rows: list[_Row] = []
        succeeded, afterwards = False, 0
        for frame in range(self._frames or task.horizon + 1):
            if frame > 0:
                simulation.step(rows[-1].action)
            reading = simulation.read()
            distance = task.distance(reading)
            if frame > 0:
                succeeded |= bool(rule.update(np.array([distance]))[0])
            error = noise.normal(0.0, TOOL_NOISE, 3)
            if behaviour == "noisy":
                fresh = noise.normal(0.0, DRIFT_NOISE * np.sqrt(1 - DRIFT_MEMORY**2), 3)
                drift = DRIFT_MEMORY * drift + fresh
            command = driver.towards(_shifted(policy(reading, driver.hand), task.u * (error + drift)))
            rows.append(_Row(reading, simulation.visible, command, distance, succeeded))
            afterwards += succeeded
            if behaviour == "expert" and afterwards > after:
                break
        return _track(task, rows, simulation.warnings)


def draw_start(task: Task, scene: Scene, kinematics: InverseKinematics, seed: int) -> Layout:
    """Where the episode with this seed starts; its policy, noise and factors have streams of their own."""
    return task.sample(np.random.default_rng(seed), scene, kinematics)


def make_policy(task: Task, behaviour: str, rng: np.random.Generator) -> ToolPolicy:
    """The policy behind a behaviour's name. Raises `ConfigError` for an unknown one."""
    if behaviour not in get_args(Behaviour):
        raise ConfigError(f"unknown behaviour {behaviour!r}; choose one of: {', '.join(get_args(Behaviour))}")
    if behaviour == "explore":
        return Exploration(rng, task)
    return Stopped(rng, task) if behaviour == "stopped" else task.expert(rng)


def _shifted(move: Move, error: np.ndarray) -> Move:
    """A move to where a hand that errs by `error` [3] (metres) takes its target to be."""
    return replace(move, target=move.target + error)


@dataclass
class _Row:
    reading: Reading
    visible: np.ndarray
    action: np.ndarray
    distance: float
    succeeded: bool


def _track(task: Task, rows: list[_Row], warnings: int) -> Track:
    distance = np.array([row.distance for row in rows])
    success = np.array([row.succeeded for row in rows])
    reward = np.zeros(len(rows))
    reward[1:] = -np.diff(distance) + np.diff(success.astype(np.float64))
    positions = [
        np.concatenate([row.reading.tool, task.object(row.reading), task.goal(row.reading)]) for row in rows
    ]
    return Track(
        visible=np.stack([row.visible for row in rows]),
        state=np.stack([row.reading.agent_pos for row in rows]).astype(np.float32),
        action=np.stack([row.action for row in rows]).astype(np.float32),
        environment_state=np.stack(positions).astype(np.float32),
        distance=distance,
        reward=reward.astype(np.float32),
        success=success,
        measures=task.measures(rows[-1].reading),
        warnings=warnings,
    )
