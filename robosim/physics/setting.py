"""A task on an arm under the factors of an episode, compiled: what one row of physics needs."""

from __future__ import annotations

from dataclasses import dataclass

from robosim.physics.arms.robots import Robot
from robosim.physics.rendering.renderer import Renderer, RendererKind
from robosim.physics.scene import Scene, build_scene
from robosim.physics.simulation import Simulation
from robosim.physics.tasks import get_task
from robosim.physics.tasks.base import Task
from robosim.physics.variation import Factors


@dataclass(frozen=True)
class Setting:
    """A task's scene with its renderer (None where nothing is to be seen). Many simulations may share one."""

    task: Task
    scene: Scene
    renderer: Renderer | None

    def simulation(self) -> Simulation:
        return Simulation(self.scene)


class Settings:
    """Makes settings of one arm, and keeps the last one of every task: without variation it serves all episodes."""

    def __init__(
        self, robot: Robot, size: int | None, cameras: tuple[str, ...], renderer: RendererKind = "warp"
    ) -> None:
        """`size` in pixels; None leaves the renderer out."""
        self._robot, self._size, self._cameras, self._renderer = robot, size, cameras, renderer
        self._kept: dict[str, Setting] = {}

    def get(self, task: str, factors: Factors) -> Setting:
        """The setting of a task. Raises `ConfigError` for an unknown name or a task that the arm can't do."""
        kept = self._kept.get(task)
        if kept is None or kept.task.factors != factors:
            made = get_task(task, self._robot)(self._robot, factors)
            scene = build_scene(self._robot, made.props(), factors)
            kept = self._kept[task] = Setting(made, scene, self._make_renderer(scene))
        return kept

    def _make_renderer(self, scene: Scene) -> Renderer | None:
        if self._size is None:
            return None
        return Renderer(scene, self._size, self._cameras, kind=self._renderer)
