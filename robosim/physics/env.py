"""`PhysicsEnv`: MuJoCo behind the contract that it shares with the learned simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from robosim.errors import UnsupportedError
from robosim.physics.arms.catalogue import robot_of
from robosim.physics.kinematics import InverseKinematics
from robosim.physics.recording import draw_start
from robosim.physics.rendering.pictures import LAYERS, Layer, Picture
from robosim.physics.rendering.renderer import Renderer, RendererKind
from robosim.physics.setting import Setting, Settings
from robosim.physics.simulation import Simulation
from robosim.physics.tasks import get_task, make_spec
from robosim.physics.variation import Factors, Variation
from robosim.spec import CONTROL_HZ, EnvSpec
from robosim.vector_env import ArmVectorEnv, Info, Observation

__all__ = ["Info", "Observation", "PhysicsEnv", "make_spec"]


class PhysicsEnv(ArmVectorEnv):
    """N rows of a task's scene, stepped one after the other and rendered as one batch.

    A row's start follows from its seed alone. Reset option `state`, beside `reset_mask`: one entry a row, None or
    what `get_state` gave, and the row starts an episode exactly there.

    `render_pixels=False` leaves the pictures black, for policies that don't look. `variation`: what differs from
    episode to episode beside the start; each row then has a scene of its own.
    """

    reset_options: ClassVar[tuple[str, ...]] = (*ArmVectorEnv.reset_options, "state")

    def __init__(
        self,
        spec: EnvSpec | None = None,
        task: str = "reach",
        num_envs: int = 1,
        robot: str | None = None,
        seed: int | None = None,
        render_pixels: bool = True,
        variation: Variation | None = None,
        renderer: RendererKind = "warp",
    ) -> None:
        """`spec` defaults to every task of `robot` (default: panda) at 64 px; with a spec, `robot` is where the MJCF
        file of its arm lies now, if it was moved. Raises `ConfigError` for an unknown name and
        `UnsupportedError` for a spec that this scene can't honour."""
        get_task(task)  # an unknown name is told with all that exist, not only with those of the spec
        spec = spec or make_spec(robot or "panda")
        _check_supported(spec)
        super().__init__(spec, task, num_envs, seed)
        arm = robot_of(spec.robot, robot)
        self._kinematics = InverseKinematics(arm)
        self._variation = variation or Variation()
        self._made = Settings(arm, spec.size if render_pixels else None, spec.cameras, renderer)
        self._settings: list[Setting] = [self._made.get(task, self._variation.sample(0))] * num_envs
        self._rows: list[Simulation] = [setting.simulation() for setting in self._settings]

    def get_state(self, row: int) -> dict[str, Any]:
        """The row's physics, exactly: `reset(options={"state": [state, …]})` continues from it bit for bit."""
        return {
            "physics": self._rows[row].get_state(),
            "factors": self._settings[row].task.factors.to_json(),
            "scene": (self.env_spec.robot.name, self.task),
        }

    def measures(self, row: int) -> dict[str, float]:
        """The task's further figures of how things stand (see `Task.measures`)."""
        return self._settings[row].task.measures(self._rows[row].read())

    def look(self, row: int, layers: Sequence[Layer] = LAYERS) -> dict[str, Picture]:
        """What the row's cameras see now, as {camera: picture [size, size, …]}: depth and segmentation too, which
        observations leave out; `segmentation_labels` names the numbers in it."""
        visible = self._rows[row].visible[None]
        return {
            name: picture.row(0) for name, picture in self._eyes(row).render_layers(visible, layers).items()
        }

    def segmentation_labels(self, row: int) -> tuple[str, ...]:
        """What the numbers of the row's segmentation stand for."""
        return self._eyes(row).labels

    def _eyes(self, row: int) -> Renderer:
        if (renderer := self._settings[row].renderer) is None:
            raise ValueError("this environment was made with render_pixels=False and has no cameras")
        return renderer

    def _start_rows(self, rows: np.ndarray, seeds: list[int], options: Mapping[str, Any]) -> None:
        states = options.get("state") or [None] * self.num_envs
        if len(states) != self.num_envs:
            raise ValueError(
                f"options['state'] has {len(states)} entries, one a row is needed ({self.num_envs})"
            )
        for row, seed in zip(rows, seeds, strict=True):
            state = states[row]
            if state is not None:
                self._check_scene(state["scene"])
                self._arrange(row, Factors.from_json(state["factors"]))
                self._rows[row].set_state(state["physics"])
            else:
                self._arrange(row, self._variation.sample(seed))
                setting = self._settings[row]
                self._rows[row].reset(draw_start(setting.task, setting.scene, self._kinematics, seed))

    def _check_scene(self, scene: tuple[str, str]) -> None:
        own = (self.env_spec.robot.name, self.task)
        if tuple(scene) != own:
            raise ValueError(f"a state of {' and '.join(scene)} doesn't fit {' and '.join(own)}")

    def _arrange(self, row: int, factors: Factors) -> None:
        """Give the row the scene of these factors, unless it has it."""
        if self._settings[row].task.factors != factors:
            self._settings[row] = self._made.get(self.task, factors)
            self._rows[row] = self._settings[row].simulation()

    def _advance_rows(self, rows: np.ndarray, actions: np.ndarray) -> None:
        for row, action in zip(rows, actions, strict=True):
            self._rows[row].step(action)

    def _observe_rows(self, rows: np.ndarray) -> None:
        alike: dict[int, list[int]] = {}
        for row in rows:
            task, reading = self._settings[row].task, self._rows[row].read()
            self._agent_pos[row] = reading.agent_pos
            self._distance[row] = task.distance(reading)
            self._places["tool"][row] = reading.tool
            self._places["object"][row] = task.object(reading)
            self._places["goal"][row] = task.goal(reading)
            alike.setdefault(id(self._settings[row]), []).append(row)
        for group in alike.values():
            if (renderer := self._settings[group[0]].renderer) is None:
                continue
            visible = np.stack([self._rows[row].visible for row in group])
            for camera, frames in renderer.render(visible).items():
                self._pixels[camera][group] = frames


def _check_supported(spec: EnvSpec) -> None:
    if spec.action_kind != "joint_position":
        raise UnsupportedError(
            f"physics takes joint_position actions, the spec has {spec.action_kind}; "
            "use a dataset that robosim collected"
        )
    if spec.fps != CONTROL_HZ:
        raise UnsupportedError(
            f"physics runs at {CONTROL_HZ} Hz, the spec has {spec.fps}; use a dataset that robosim collected"
        )
