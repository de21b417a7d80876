"""The learned simulator from Python: load, start from a picture, move the arm, see the frame.

    import robosim

    sim = robosim.load("tiny")
    obs = sim.reset("photo.png")
    obs = sim.step(obs.command + 0.02)
    obs.frame

Commands are targets: go on from `obs.command`, what the arm was told, not from `obs.joints`, where it is believed to
be, or every error of the belief becomes a command.

Everything here is one arm at a time. `Simulator.env` gives many rows of a task as a Gymnasium environment.

Legend of shape suffixes: J joints (numbers of a command), S numbers of a state (joints, or others in imported data),
A latent action dimensions, a leading 1 for the one row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from robosim_datasets.clip_store import ClipStore
from torch import Tensor

from robosim.adapter import AdapterBundle
from robosim.errors import UnsupportedError
from robosim.spec import EnvSpec
from robosim.world_model.learned_env import LearnedEnv, corrected
from robosim.world_model.picture import Source, read_picture
from robosim.world_model.protocols import ProbeReading
from robosim.world_model.world import Precision, RolloutState, WorldModel, seeded_generators, to_uint8

MOST_STARTS = 64
"""Held-out first frames that are kept at most."""


@dataclass(frozen=True)
class Observation:
    """What the simulator shows after a reset or a step. Without an adapter, all but `frame` is NaN."""

    frame: np.ndarray
    """uint8 [S, S, 3]"""
    joints: np.ndarray
    """float32 [S]: rad, gripper 0 (closed) … 1 (open); imported data keep their own numbers and units"""
    command: np.ndarray
    """float32 [J]: what the arm was told last, in the same units, or as the spec's action kind says; NaN where nothing
    was told yet and the state doesn't show at which target the arm stands"""
    tool: np.ndarray
    """float32 [3]: the tool's tip as the probe reads it off the frame, metres; NaN, as object and goal, where the
    labels knew no positions"""
    object: np.ndarray
    """float32 [3]: the object's centre, metres"""
    goal: np.ndarray
    """float32 [3]: the marker as it was read at the reset, metres"""


@dataclass(frozen=True)
class Moment:
    """A step that was taken, small enough to keep hundreds: `Simulator.repeat` goes through it again."""

    latent_1A: Tensor
    tokens_1N: Tensor
    codes_1NE: Tensor
    """What its frame was decoded from."""
    generator: Tensor
    joints_1S: Tensor
    command_1J: Tensor
    observation: Observation


@dataclass(frozen=True)
class Snapshot:
    """All of a simulator's state at one moment, for `Simulator.restore`; restoring doesn't change it."""

    rollout: RolloutState
    elapsed: int
    """Frames since the start."""
    joints_1S: Tensor
    command_1J: Tensor
    goal_13: Tensor
    observation: Observation

    @property
    def num_bytes(self) -> int:
        """Size of the tensors of the rollout, nearly all of it the dynamics' cache."""
        return _tensor_bytes(self.rollout)


class Simulator:
    """A learned arm, driven by commands (`step`) or by its playable latent actions (`press`).

    Video alone teaches no joints: without an adapter `press` works, and `step` says what to run.
    """

    def __init__(
        self,
        world: WorldModel,
        spec: EnvSpec,
        bundle: AdapterBundle | None = None,
        clips: ClipStore | None = None,
        starts: np.ndarray | None = None,
        name: str = "simulator",
        renderer: str = "warp",
    ) -> None:
        """`clips` are the run's episodes; `starts` uint8 [E, S, S, 3] are frames to begin from, where there are
        none. `name` is the run's, `renderer` what drew its video (see `robosim.physics.rendering`)."""
        self.world, self.spec, self.bundle, self.clips = world, spec, bundle, clips
        self.name, self.renderer = name, renderer
        self._starts = starts
        self._rollout: RolloutState | None = None
        self._latent: Tensor | None = None

    @property
    def size(self) -> int:
        """Pixels along each side of a frame."""
        return self.world.size

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the J numbers of a command."""
        return self.spec.robot.joint_names

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the S numbers of a state."""
        return self.spec.state_columns

    @property
    def has_targets(self) -> bool:
        """Whether commands are targets of the joints that `Observation.joints` shows; never without an adapter."""
        return self.bundle is not None and self.bundle.adapter.drives_joints

    @property
    def has_tasks(self) -> bool:
        """Whether the distances of tasks can be read off the frame, see `judges`."""
        return self.bundle is not None and self.bundle.judge is not None

    @property
    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """The commands' lower and upper limits, float32 [J] each (rad, gripper 0…1)."""
        robot = self.spec.robot
        return np.array(robot.lower, np.float32), np.array(robot.upper, np.float32)

    @property
    def largest_step(self) -> np.ndarray:
        """The largest change of a command in one step that the adapter knows, float32 [J]; beyond it, it guesses."""
        return self._adapted().adapter.largest_step.numpy()

    @property
    def playable(self) -> np.ndarray:
        """The playable latent actions, float32 [K, A]; `press` takes their numbers."""
        return self.world.playable.cpu().numpy()

    @cached_property
    def starts(self) -> np.ndarray:
        """First frames of held-out episodes, uint8 [E, S, S, 3]."""
        if self._starts is not None:
            return self._starts
        if self.clips is None:
            raise ValueError("this simulator has no frames of its own to start from; give reset a picture")
        episodes = self.clips.select(split="val") or list(range(len(self.clips.episodes)))
        return np.concatenate([self.clips.frames(episode, 0, 1) for episode in episodes[:MOST_STARTS]])

    @property
    def observation(self) -> Observation:
        """What is seen now."""
        self._started()
        return self._observation

    @property
    def window(self) -> int:
        """Frames that the dynamics look back over: a longer context changes nothing."""
        return self.world.dynamics.config.transformer.window

    def reset(
        self, picture: Source | None = None, joints: np.ndarray | None = None, seed: int = 0
    ) -> Observation:
        """Start from a picture: a path, PIL image or uint8 array of any size; None takes one of `starts` by the seed.

        `joints` [S] are the arm's (rad, gripper 0…1); by default the probe reads them off the picture. The seed also
        decides the noise of all that follows. Raises `PictureError` for a file that can't be read.
        """
        if picture is None:
            frame = self.starts[int(np.random.default_rng([seed, 4]).integers(len(self.starts)))]
        else:
            frame = read_picture(picture, self.size)
        return self.start(frame[None], joints, seed=seed)

    def start(
        self,
        frames: np.ndarray,
        joints: np.ndarray | None = None,
        previous_command: np.ndarray | None = None,
        seed: int = 0,
    ) -> Observation:
        """Start from a context of frames uint8 [C, S, S, 3], the last being the present.

        `joints` [S] as in `reset`; `previous_command` [J] is what the arm was told last (default: to stay).
        """
        self._check_frames(frames)
        context = torch.from_numpy(np.array(frames))[None]
        self._rollout = self.world.start(context, generators=seeded_generators([seed]))
        reading = self._read()
        self._goal, self._elapsed = reading.goal, 0
        self._joints = reading.joints if joints is None else self._row(joints, "joints", self.state_names)
        self._latent = None
        if previous_command is not None:
            self._command = self._row(previous_command, "previous_command", self.joint_names)
        elif self.bundle is not None:
            self._command = self.bundle.adapter.first_command(self._joints)
        else:
            self._command = torch.full((1, len(self.joint_names)), torch.nan)
        return self._observe(reading)

    def step(self, command: np.ndarray) -> Observation:
        """One control period (0.1 s) under a command [J] (joints in rad, gripper 0…1), held to the limits.

        Raises `UnsupportedError` where no adapter was fitted, `ValueError` for a command of another shape.
        """
        adapter = self._adapted().adapter
        self._started()
        low, high = map(torch.from_numpy, self.limits)
        command_1J = self._row(command, "command", self.joint_names).clamp(low, high)
        latent_1A = adapter.command_to_latent(command_1J, self._command, self._joints)
        return self._advance(latent_1A, command_1J, self._command)

    def press(self, code: int) -> Observation:
        """One control period under the playable latent action `code`, 0-based.

        The command that stands for it is then `observation.command`.
        """
        count = len(self.world.playable)
        if not 0 <= code < count:
            raise ValueError(f"there are {count} playable latent actions, 0 to {count - 1}, not {code}")
        self._started()
        latent_1A = self.world.playable[code : code + 1].cpu()
        if self.bundle is None:
            return self._advance(latent_1A, self._command, self._command)
        previous_1J = self.bundle.adapter.idle_command(self._command)
        command_1J = self.bundle.adapter.latent_to_command(latent_1A, previous_1J, self._joints)
        return self._advance(latent_1A, command_1J, previous_1J)

    def copy(self) -> Simulator:
        """Another simulator with the same models, where this one stands: the two go on independently."""
        twin = Simulator(
            self.world, self.spec, self.bundle, self.clips, self._starts, self.name, self.renderer
        )
        if self._rollout is not None:
            twin.restore(self.snapshot())
        return twin

    def snapshot(self) -> Snapshot:
        """The state now, to come back to with `restore`; later steps don't change it."""
        rollout = self._started().copy()
        return Snapshot(rollout, self._elapsed, self._joints, self._command, self._goal, self._observation)

    def restore(self, snapshot: Snapshot) -> Observation:
        """Go back to a snapshot; what followed it follows again, bit for bit, under the same commands."""
        self._rollout, self._elapsed = snapshot.rollout.copy(), snapshot.elapsed
        self._joints, self._command = snapshot.joints_1S, snapshot.command_1J
        self._goal, self._observation, self._latent = snapshot.goal_13, snapshot.observation, None
        return self._observation

    @property
    def moment(self) -> Moment:
        """The step that was taken last. Raises `RuntimeError` where none was since the start or a `restore`."""
        rollout = self._started()
        if self._latent is None:
            raise RuntimeError("no step was taken yet; call step or press first")
        noise = rollout.generators[0].get_state()
        coded = rollout.tokens_BN.clone(), rollout.codes_BNE.clone()
        return Moment(self._latent, *coded, noise, self._joints, self._command, self._observation)

    def repeat(self, moment: Moment) -> Observation:
        """Take a step whose outcome is known, from where it was taken: one pass of the dynamics instead of K + 1."""
        rollout = self._started()
        with torch.no_grad():
            self.world.take_known(rollout, moment.tokens_1N, moment.latent_1A, moment.codes_1NE)
        rollout.generators[0].set_state(moment.generator)
        self._elapsed += 1
        self._latent, self._joints, self._command = moment.latent_1A, moment.joints_1S, moment.command_1J
        self._observation = moment.observation
        return self._observation

    def env(self, task: str, num_envs: int = 1, **options: Any) -> LearnedEnv:
        """Rows of one task as a Gymnasium vector environment, with the one camera that was learned; `options` are
        those of `LearnedEnv`."""
        bundle = self._adapted()
        parts = {"adapter": bundle.adapter, "probe": bundle.probe, "judge": bundle.judge}
        options = {"start_frames": self.starts[:, None], **parts, **options}
        spec = replace(self.spec, cameras=self.spec.cameras[:1])
        return LearnedEnv(self.world, spec, task, num_envs=num_envs, **options)

    def judges(self, task: str) -> bool:
        """Whether the distance of this task can be read off the frame; never where its recordings had no positions."""
        return self.has_tasks and self.spec.task(task).subject != "none"

    def task_distance(self, task: str) -> float:
        """Distance that decides a task, metres, as the judge reads it off the frame now.

        Raises `UnsupportedError` where that can't be judged (see `judges`).
        """
        judge, seen = self._adapted().judge, self.observation
        if judge is None or not self.judges(task):
            raise UnsupportedError(
                f"{self.name} learned {task} from recordings without positions of tool, object and goal, so that it "
                "can't be judged; robosim collect records them"
            )
        places = (torch.from_numpy(place)[None] for place in (seen.tool, seen.object, seen.goal))
        reading = ProbeReading(torch.from_numpy(seen.joints)[None], *places)
        return float(judge.distance(reading, self.spec.task(task)))

    def save(self, folder: str | Path, precision: Precision = "float32") -> Path:
        """Write a folder that `load` opens anywhere: the models, the contract and frames to start from, no video.

        `precision` bfloat16 stores the three models' weights in half the bytes, and 8 significant bits; adapter
        and statistics stay float32. Raises `OutputError` where the folder exists already or can't be written.
        """
        from robosim.simulator.run_folder import save

        return save(self, Path(folder), precision)

    def _advance(self, latent_1A: Tensor, command_1J: Tensor, previous_1J: Tensor) -> Observation:
        rollout = self._started()
        latent_1A = self.world.latent_action.snap(latent_1A.to(self.world.device))
        self.world.step(rollout, latent_1A)
        self._elapsed += 1
        reading = self._read()
        if self.bundle is not None:
            moved = self.bundle.adapter.predict_joints(command_1J, previous_1J, self._joints)
            self._joints = corrected(moved, reading, np.array([self._elapsed]))
        self._latent, self._command = latent_1A, command_1J
        return self._observe(reading)

    def _read(self) -> ProbeReading:
        frames = to_uint8(self._started().frames).cpu()
        if self.bundle is not None:
            return self.bundle.probe.read(frames)
        unknown = torch.full((1, 3), torch.nan)
        return ProbeReading(torch.full((1, len(self.state_names)), torch.nan), unknown, unknown, unknown)

    def _observe(self, reading: ProbeReading) -> Observation:
        frame = to_uint8(self._started().frames[0]).cpu().numpy()
        rows = (self._joints, self._command, reading.tool, reading.object, self._goal)
        self._observation = Observation(frame, *(row[0].numpy().copy() for row in rows))
        return self._observation

    def _started(self) -> RolloutState:
        if self._rollout is None:
            raise RuntimeError("step before reset; call reset first")
        return self._rollout

    def _adapted(self) -> AdapterBundle:
        if self.bundle is None:
            raise UnsupportedError(
                f"{self.name} was learned from video alone and knows no commands; fit an adapter with: "
                f"robosim adapt out=<the run folder> (press works without)"
            )
        return self.bundle

    def _row(self, values: np.ndarray, name: str, columns: tuple[str, ...]) -> Tensor:
        row = torch.from_numpy(np.array(values, dtype=np.float32))
        if row.shape != (len(columns),) or not row.isfinite().all():
            raise ValueError(
                f"{name} must be {len(columns)} finite numbers ({', '.join(columns)}), "
                f"got {np.asarray(values).tolist()}"
            )
        return row[None]

    def _check_frames(self, frames: np.ndarray) -> None:
        wanted = (self.size, self.size, 3)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != wanted or not len(frames):
            raise ValueError(
                f"context frames must be uint8 [C, {self.size}, {self.size}, 3] with C ≥ 1, got {frames.dtype} "
                f"{list(frames.shape)}"
            )


def _tensor_bytes(value: Any) -> int:
    """Bytes of all tensors in an object and in the objects that it holds."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, (list, tuple)):
        return sum(_tensor_bytes(part) for part in value)
    parts = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})
    return sum(_tensor_bytes(part) for part in parts.values())
