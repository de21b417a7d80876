"""`LearnedEnv`: the world model behind the contract that it shares with physics. No MuJoCo is imported.

A command becomes a latent action through the adapter, the world model makes the next frame, and the probe reads
from it what the task needs. The joints are the adapter's own prediction, corrected by what the probe sees: so a command
that is a target of the joints leads an arm back that has drifted in the picture from where it was told to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from torch import Tensor

from robosim.spec import EnvSpec
from robosim.vector_env import ArmVectorEnv
from robosim.world_model.latent_action import BOUND
from robosim.world_model.protocols import CommandAdapter, FrameProbe, ProbeReading, SuccessJudge
from robosim.world_model.world import RolloutState, WorldModel, seeded_generators, to_uint8

FIRST_CORRECTION, LAST_CORRECTION = 0.05, 0.2
"""How far the joints move a frame from the adapter's prediction towards the probe's reading: a share that grows from
the first, at a start, towards the last. As a Kalman filter's gain it follows how much the prediction may have drifted:
at a start the joints are known, and the reading's error is all that would be added (docs/results/quality.md)."""

CORRECTION_FRAMES = 10
"""Frames in which the share has grown by 1 − 1/e of its way."""


class LearnedEnv(ArmVectorEnv):
    """N imagined rows of one task.

    With `action_mode="latent"` actions are latent actions float32 [N, A] instead of joint commands: for training
    policies. Comparing always goes through commands, the deployed path.

    Reset options, beside `reset_mask`: `frames` uint8 [N, C, H, W, 3], the context each row starts from (a dataset
    frame, a photo, a sketch), the last being the present; `agent_pos` [N, S], the joints at that moment (default:
    the probe's reading); `previous_command` [N, J], what the arm was told last (default: to stay where it is).
    Without `frames` a row starts from one of `start_frames`, chosen by its seed.

    Imported data know no positions. Without a judge, or in a task without a subject, nothing is a success, the reward
    is 0, and episodes last until their task's horizon; the task distance is infinite. Without a judge the places are
    NaN.
    """

    reset_options: ClassVar[tuple[str, ...]] = (
        *ArmVectorEnv.reset_options,
        "frames",
        "agent_pos",
        "previous_command",
    )

    def __init__(
        self,
        world: WorldModel,
        spec: EnvSpec,
        task: str,
        adapter: CommandAdapter,
        probe: FrameProbe,
        judge: SuccessJudge | None,
        num_envs: int = 1,
        start_frames: np.ndarray | None = None,
        start_agent_pos: np.ndarray | None = None,
        action_mode: Literal["command", "latent"] = "command",
        seed: int | None = None,
    ) -> None:
        """`start_frames` uint8 [E, C, H, W, 3] and `start_agent_pos` [E, S]: held-out contexts to start from.

        Raises `ValueError` where the spec doesn't fit the world model.
        """
        if len(spec.cameras) != 1:
            raise ValueError(
                f"the learned simulator shows one camera, the spec has {', '.join(spec.cameras)}"
            )
        if spec.size != world.size:
            raise ValueError(f"the spec has frames of {spec.size} px, the world model makes {world.size} px")
        super().__init__(spec, task, num_envs, seed)
        self.world, self.adapter, self.probe, self.judge = world, adapter, probe, judge
        self.start_frames, self.start_agent_pos = start_frames, start_agent_pos
        self.action_mode = action_mode
        if action_mode == "latent":
            self.single_action_space = spaces.Box(-BOUND, BOUND, (world.latent_dim,), np.float32)
            self.action_space = batch_space(self.single_action_space, num_envs)
        self._state: RolloutState | None = None
        self._joints = torch.zeros(num_envs, len(spec.state_columns))
        self._command = torch.zeros(num_envs, spec.robot.num_joints)
        self._goal = torch.zeros(num_envs, 3)

    def _start_rows(self, rows: np.ndarray, seeds: list[int], options: Mapping[str, Any]) -> None:
        frames, joints = self._contexts(rows, seeds, options)
        state = self.world.start(frames, generators=seeded_generators(seeds))
        reading = self.probe.read(to_uint8(state.frames))
        index = torch.from_numpy(rows)
        self._joints[index] = reading.joints.cpu() if joints is None else joints
        told = options.get("previous_command")
        first = self.adapter.first_command(self._joints[index]) if told is None else rows_of(told, rows)
        self._command[index] = first
        self._goal[index] = reading.goal.cpu()
        if self._state is None:
            self._state = state
        else:
            self._state.put_rows(index, state)

    def _contexts(
        self, rows: np.ndarray, seeds: list[int], options: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """Context frames uint8 [R, C, H, W, 3] of the rows to start, and their joints where those are given."""
        frames, joints = options.get("frames"), options.get("agent_pos")
        if frames is None:
            if self.start_frames is None:
                raise ValueError(
                    "no frames to start from: give options['frames'], or start_frames at the making"
                )
            chosen = [
                int(np.random.default_rng([seed, 4]).integers(len(self.start_frames))) for seed in seeds
            ]
            frames = self.start_frames[chosen]
            if joints is None and self.start_agent_pos is not None:
                return torch.from_numpy(frames), torch.from_numpy(self.start_agent_pos[chosen])
        else:
            frames = self._checked_frames(frames)[rows]
        return torch.from_numpy(frames), None if joints is None else rows_of(joints, rows)

    def _checked_frames(self, frames: Any) -> np.ndarray:
        frames, size = np.asarray(frames), self.env_spec.size
        expected = (self.num_envs, frames.shape[1] if frames.ndim == 5 else 1, size, size, 3)
        if frames.dtype != np.uint8 or frames.shape != expected or expected[1] < 1:
            raise ValueError(
                f"options['frames'] must be uint8 [{self.num_envs}, C, {size}, {size}, 3] with C ≥ 1, "
                f"got {frames.dtype} {list(frames.shape)}"
            )
        return frames

    def _advance_rows(self, rows: np.ndarray, actions: np.ndarray) -> None:
        assert self._state is not None
        index = torch.from_numpy(rows)
        joints, previous = self._joints[index], self._command[index]
        given = torch.from_numpy(actions.astype(np.float32))
        if self.action_mode == "latent":
            latent, previous = given.clamp(-BOUND, BOUND), self.adapter.idle_command(previous)
            command = self.adapter.latent_to_command(latent, previous, joints)
        else:
            command = given
            latent = self.adapter.command_to_latent(command, previous, joints)
        if len(rows) == self.num_envs:
            self.world.step(self._state, latent)
        else:
            part = self._state.take_rows(index)
            self.world.step(part, latent)
            self._state.put_rows(index, part)
        self._joints[index] = self.adapter.predict_joints(command, previous, joints)
        self._command[index] = command

    def _observe_rows(self, rows: np.ndarray) -> None:
        assert self._state is not None
        index = torch.from_numpy(rows)
        frames = to_uint8(self._state.frames[index])
        reading = self.probe.read(frames)
        self._joints[index] = corrected(self._joints[index], reading, self._elapsed[rows])
        goal = self._goal[index]
        reading = ProbeReading(reading.joints, reading.tool, reading.object, goal.to(reading.tool.device))
        self._pixels[self.env_spec.cameras[0]][rows] = frames.cpu().numpy()
        self._agent_pos[rows] = self._joints[index].numpy()
        if self.judge is None or self.task_spec.subject == "none":
            self._distance[rows] = np.inf
        else:
            self._distance[rows] = self.judge.distance(reading, self.task_spec).cpu().numpy()
        for name, place in (("tool", reading.tool), ("object", reading.object), ("goal", goal)):
            self._places[name][rows] = place.cpu().numpy()


def corrected(joints: Tensor, reading: ProbeReading, elapsed: np.ndarray) -> Tensor:
    """The joints [N, S] that the adapter predicted, moved a little towards those that the probe has seen, as far as it
    can be believed: pulled to a guess, an arm would creep that is told to stay.

    `elapsed` int [N] are the frames since each row's start; at it (0) joints are known, or already the probe's.
    """
    grown = 1 - np.exp(-elapsed / CORRECTION_FRAMES)
    share = np.where(elapsed > 0, FIRST_CORRECTION + (LAST_CORRECTION - FIRST_CORRECTION) * grown, 0.0)
    share_N1 = torch.from_numpy(share.astype(np.float32))[:, None]
    trust = 1.0 if reading.trust is None else reading.trust.cpu()
    moved = joints + share_N1 * trust * (reading.joints.cpu() - joints)
    return torch.where(share_N1 > 0, moved, joints)


def rows_of(values: Any, rows: np.ndarray) -> Tensor:
    """`rows` of an array [N, …], as float32 [R, …]."""
    return torch.from_numpy(np.asarray(values, dtype=np.float32)[rows])
