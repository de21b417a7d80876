"""`PhysicsEnv`: MuJoCo behind the contract that it shares with the learned simulator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from robosim.errors import UnsupportedError
from robosim.physics.kinematics import InverseKinematics
from robosim.physics.recording import start_generator, task_distance
from robosim.physics.renderer import Renderer
from robosim.physics.robots import get_robot
from robosim.physics.scene import build_scene
from robosim.physics.simulation import Simulation
from robosim.physics.tasks import get_task, make_spec
from robosim.spec import CONTROL_HZ, EnvSpec
from robosim.vector_env import ArmVectorEnv, Info, Observation

__all__ = ["Info", "Observation", "PhysicsEnv", "make_spec"]


class PhysicsEnv(ArmVectorEnv):
    """N rows of the scene, stepped one after the other and rendered as one batch.

    A row's start follows from its seed alone. Reset option `state`, beside `reset_mask`: one entry a row, None or
    what `get_state` gave, and the row starts an episode exactly there.

    `render_pixels=False` leaves the pictures black, for policies that don't look.
    """

    reset_options: ClassVar[tuple[str, ...]] = (*ArmVectorEnv.reset_options, "state")

    def __init__(
        self,
        spec: EnvSpec | None = None,
        task: str = "reach",
        num_envs: int = 1,
        robot: str = "panda",
        seed: int | None = None,
        render_pixels: bool = True,
    ) -> None:
        """`spec` defaults to every task of `robot` at 64 px. Raises `ConfigError` for an unknown name and
        `UnsupportedError` for a spec that this scene can't honour."""
        spec = spec or make_spec(robot)
        _check_supported(spec)
        self._task = get_task(task)
        super().__init__(spec, task, num_envs, seed)
        scene = build_scene(get_robot(spec.robot.name))
        self._kinematics = InverseKinematics(scene)
        self._rows = [Simulation(scene) for _ in range(num_envs)]
        self._renderer = Renderer(scene, spec.size, spec.cameras) if render_pixels else None

    def get_state(self, row: int) -> dict[str, np.ndarray]:
        """The row's physics, exactly: `reset(options={"state": [state, …]})` continues from it bit for bit."""
        return {"physics": self._rows[row].get_state()}

    def soft_vertices(self, row: int) -> np.ndarray:
        """The soft body's vertices [V, 3] (metres, world)."""
        return self._rows[row].soft_vertices

    def _start_rows(self, rows: np.ndarray, seeds: list[int], options: Mapping[str, Any]) -> None:
        states = options.get("state") or [None] * self.num_envs
        if len(states) != self.num_envs:
            raise ValueError(
                f"options['state'] has {len(states)} entries, one a row is needed ({self.num_envs})"
            )
        for row, seed in zip(rows, seeds, strict=True):
            if states[row] is not None:
                self._rows[row].set_state(states[row]["physics"])
            else:
                self._rows[row].reset(self._task.sample(start_generator(seed), self._kinematics))

    def _advance_rows(self, rows: np.ndarray, actions: np.ndarray) -> None:
        for row, action in zip(rows, actions, strict=True):
            self._rows[row].step(action)

    def _observe_rows(self, rows: np.ndarray) -> None:
        readings = [self._rows[row].read() for row in rows]
        for row, reading in zip(rows, readings, strict=True):
            self._agent_pos[row] = reading.agent_pos
            self._distance[row] = task_distance(self._task, reading)
            self._places["tool"][row] = reading.tool
            self._places["object"][row] = reading.object
            self._places["goal"][row] = self._task.goal(reading.marker)
        if self._renderer is None or not len(rows):
            return
        qpos = np.stack([self._rows[row].qpos for row in rows])
        marker = np.stack([reading.marker for reading in readings])
        for camera, frames in self._renderer.render(qpos, marker).items():
            self._pixels[camera][rows] = frames


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
