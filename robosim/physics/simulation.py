"""One row of physics: commands in, joints and positions out, at 10 control periods a second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robosim.physics.engine import mujoco
from robosim.physics.scene import Layout, Scene
from robosim.spec import CONTROL_HZ

SUBSTEPS = 25
"""Physics steps of 4 ms a control period."""

STATE = mujoco.mjtState.mjSTATE_INTEGRATION
"""Everything that the next step depends on: the solver's warm start, the markers' places, active grasps and plastic
deformation among it. (`mjSTATE_FULLPHYSICS` leaves the grasps out.)"""

GRASP_RADIUS = 0.02
"""Closing fingers take hold of a vertex of a sticky flex this near to the tool's tip, units of the workspace."""

GRASP_OPENING = 0.35
"""Opening (0…1) below which fingers hold and above which they let go."""


@dataclass(frozen=True)
class Reading:
    """What is true now.

    `agent_pos` [J] (rad, gripper 0…1); `tool` [3] (metres, world); `across` [3]: unit vector along which its fingers
    open; `rigid`: pose [7] (position, quaternion wxyz) of every rigid thing by name; `soft`: vertices [V,3] of every
    soft one; `markers`: pose [7] of every marker.
    """

    agent_pos: np.ndarray
    tool: np.ndarray
    across: np.ndarray
    rigid: Mapping[str, np.ndarray]
    soft: Mapping[str, np.ndarray]
    markers: Mapping[str, np.ndarray]


class Simulation:
    """The scene's state; many simulations may share one `Scene`."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._data = mujoco.MjData(scene.model)
        spec = scene.robot.spec
        self._lower, self._upper = np.array(spec.lower), np.array(spec.upper)
        self._reach = np.array(scene.robot.velocity) / CONTROL_HZ
        self._target = np.zeros(spec.num_joints)
        self._size = mujoco.mj_stateSize(scene.model, STATE)

    def reset(self, layout: Layout) -> None:
        """Start from `layout`, at rest; one period passes so that soft things have settled."""
        mujoco.mj_resetData(self.scene.model, self._data)
        self._data.qpos[:] = layout.qpos
        self._data.mocap_pos[:], self._data.mocap_quat[:] = layout.mocap[:, :3], layout.mocap[:, 3:]
        self._target = self.scene.robot.command(layout.joints, layout.opening)
        self.step(self._target)

    def step(self, command: np.ndarray) -> None:
        """Advance one control period under `command` [J] (rad, gripper 0…1).

        The command is held to the joints' limits and to what their published velocities allow in one period; the
        actuators' targets then move linearly from the last target to this one.
        """
        start = self._target
        wanted = np.clip(np.asarray(command, dtype=np.float64), self._lower, self._upper)
        self._target = start + np.clip(wanted - start, -self._reach, self._reach)
        if self.scene.grasps is not None:
            self._grasp(self.scene.grasps, closing=start[-1] > GRASP_OPENING >= self._target[-1])
        ramp = np.linspace(start, self._target, SUBSTEPS + 1)[1:]
        targets = self.scene.robot.to_actuator(ramp)
        for target in targets:
            self._data.ctrl[self.scene.actuators] = target
            mujoco.mj_step(self.scene.model, self._data)
        self._refresh()

    def _grasp(self, grasps: np.ndarray, closing: bool) -> None:
        """Closing fingers take hold of the nearest vertex; open ones let go.

        A cloth's coarse vertices slip through a grasp by friction (measured: it lifts, and places 3 to 13 cm off), so
        that one is tied to the tool; more than one would be drawn together against edges of constant length. Only in
        the period in which the fingers close: those that were closed before and now touch the cloth don't pick it up.
        """
        assert self.scene.sticky is not None
        if closing:
            vertices = self._data.flexvert_xpos[self.scene.bodies[self.scene.sticky].vertices]
            away = np.linalg.norm(vertices - self._data.site_xpos[self.scene.tool_site], axis=1)
            nearest = int(away.argmin())
            self._data.eq_active[grasps] = 0
            self._data.eq_active[grasps[nearest]] = (
                away[nearest] < GRASP_RADIUS * self.scene.robot.workspace.scale
            )
        elif self._target[-1] > GRASP_OPENING and self._opening() > GRASP_OPENING:
            self._data.eq_active[grasps] = 0

    def _opening(self) -> float:
        gripper = self.scene.robot.gripper
        assert gripper is not None
        fingers = self._data.qpos[self.scene.gripper_qpos].mean()
        return float(np.clip((fingers - gripper.closed) / (gripper.open - gripper.closed), 0.0, 1.0))

    def read(self) -> Reading:
        scene, data = self.scene, self._data
        joints = data.qpos[scene.arm_qpos]
        mocap = np.hstack([data.mocap_pos, data.mocap_quat])
        return Reading(
            agent_pos=scene.robot.command(joints, self._opening() if scene.robot.gripper else 0.0),
            tool=data.site_xpos[scene.tool_site].copy(),
            across=data.site_xmat[scene.tool_site].reshape(3, 3)[:, 1].copy(),
            rigid={n: data.qpos[b.qpos].copy() for n, b in scene.bodies.items() if b.vertices is None},
            soft={n: data.flexvert_xpos[b.vertices].copy() for n, b in scene.bodies.items() if b.vertices},
            markers={name: mocap[index].copy() for name, index in scene.markers.items()},
        )

    @property
    def visible(self) -> np.ndarray:
        """All that a picture of this scene depends on [P]: generalised positions [nq], then a pose [7] a marker."""
        return np.concatenate(
            [self._data.qpos, np.hstack([self._data.mocap_pos, self._data.mocap_quat]).ravel()]
        )

    @property
    def warnings(self) -> int:
        """How many warnings MuJoCo has raised since the last reset (bad state, full buffers, …)."""
        return sum(int(warning.number) for warning in self._data.warning)

    def get_state(self) -> np.ndarray:
        """The whole state [S], float64: a simulation set to it continues bit for bit."""
        state = np.empty(self._size)
        mujoco.mj_getState(self.scene.model, self._data, state, STATE)
        return np.concatenate([state, self._target])

    def set_state(self, state: np.ndarray) -> None:
        """Continue from what `get_state` gave. Raises `ValueError` when it belongs to another scene."""
        state = np.asarray(state, dtype=np.float64)
        expected = self._size + len(self._target)
        if state.shape != (expected,):
            raise ValueError(f"a state of this scene has shape ({expected},), not {state.shape}")
        mujoco.mj_resetData(self.scene.model, self._data)
        mujoco.mj_setState(self.scene.model, self._data, state[: self._size], STATE)
        self._target = state[self._size :].copy()
        self._refresh()

    def _refresh(self) -> None:
        """Positions that follow from `qpos`: after a step MuJoCo's are those of the last substep's start."""
        mujoco.mj_kinematics(self.scene.model, self._data)
        mujoco.mj_comPos(self.scene.model, self._data)
        mujoco.mj_flex(self.scene.model, self._data)
