"""One row of physics: commands in, joints and positions out, at 10 control periods a second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robosim.physics.engine import mujoco
from robosim.physics.scene import Scene
from robosim.spec import CONTROL_HZ

SUBSTEPS = 25
"""Physics steps of 4 ms a control period."""

STATE = mujoco.mjtState.mjSTATE_INTEGRATION
"""Everything that the next step depends on, the solver's warm start and the marker's place among it."""


@dataclass(frozen=True)
class Layout:
    """Where an episode starts: arm joints [A] (rad), soft body and marker [2] (metres on the table)."""

    joints: np.ndarray
    soft: np.ndarray
    marker: np.ndarray


@dataclass(frozen=True)
class Reading:
    """What is true now: `agent_pos` [J] (rad, gripper 0…1); tool tip, soft body's centre, marker [3] (metres)."""

    agent_pos: np.ndarray
    tool: np.ndarray
    object: np.ndarray
    marker: np.ndarray


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
        """Start from `layout`, at rest, gripper closed; one period passes so that the soft body has settled."""
        scene, data = self.scene, self._data
        mujoco.mj_resetData(scene.model, data)
        data.qpos[scene.arm_qpos] = layout.joints
        data.qpos[scene.soft_qpos[:, :2]] += layout.soft
        data.mocap_pos[0, :2] = layout.marker
        self._target = np.append(layout.joints, 0.0)
        self.step(self._target)

    def step(self, command: np.ndarray) -> None:
        """Advance one control period under `command` [J] (rad, gripper 0…1).

        The command is held to the joints' limits and to what their published velocities allow in one period; the
        actuators' targets then move linearly from the last target to this one.
        """
        start = self._target
        wanted = np.clip(np.asarray(command, dtype=np.float64), self._lower, self._upper)
        self._target = start + np.clip(wanted - start, -self._reach, self._reach)
        ramp = np.linspace(start, self._target, SUBSTEPS + 1)[1:]
        targets = self.scene.robot.to_actuator(ramp)
        for target in targets:
            self._data.ctrl[self.scene.actuators] = target
            mujoco.mj_step(self.scene.model, self._data)
        self._refresh()

    def read(self) -> Reading:
        scene, data = self.scene, self._data
        opening = data.qpos[scene.finger_qpos].mean() / scene.robot.finger_travel
        return Reading(
            agent_pos=np.append(data.qpos[scene.arm_qpos], np.clip(opening, 0.0, 1.0)),
            tool=data.site_xpos[scene.tool_site].copy(),
            object=data.flexvert_xpos.mean(axis=0),
            marker=data.mocap_pos[0].copy(),
        )

    @property
    def qpos(self) -> np.ndarray:
        """All generalised positions [nq]: with the marker, all that a picture depends on."""
        return self._data.qpos

    @property
    def soft_vertices(self) -> np.ndarray:
        """The soft body's vertices [V, 3] (metres, world)."""
        return self._data.flexvert_xpos.copy()

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
