"""The rollouts of a comparison, cut into jobs that a few processes share.

A job's result depends on the job alone, not on the process that ran it or on how many there are: shards have a
fixed size, and every episode carries its own seed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from robosim_datasets.clip_store import ClipStore
from robosim_datasets.lerobot_io import read_provenance
from robosim_datasets.mixture import label_source

from robosim.adapter import AdapterBundle, load_adapter
from robosim.evaluation.policies import CommandRange, LeRobotPolicy, RandomPolicy
from robosim.evaluation.replay import RecordedClips, Replayed, others_motions, replay
from robosim.evaluation.rollouts import RolloutSet, run_policy
from robosim.spec import EnvSpec, TaskSpec
from robosim.world_model import LearnedEnv, WorldModel
from robosim.world_model.protocols import ProbeReading


@dataclass(frozen=True)
class RolloutJob:
    """A policy and the random floor from the starts of `seeds`."""

    task: str
    seeds: tuple[int, ...]
    recorded: CommandRange


@dataclass(frozen=True)
class ReplayJob:
    """Recorded commands, and another clip's motions, from the starts of `clips`."""

    task: str
    clips: RecordedClips
    seed: int


@dataclass(frozen=True)
class Rollouts:
    """Result of a `RolloutJob`. `judged` [N,T+1]: the judge's distance on the frames of `physics`."""

    physics: RolloutSet
    learned: RolloutSet
    random: RolloutSet
    judged: np.ndarray


@dataclass(frozen=True)
class Replays:
    """Result of a `ReplayJob`: the two replays, and the true frames through the tokenizer as the probe reads them."""

    own: Replayed
    other: Replayed
    reconstructed: np.ndarray  # uint8 [N,H+1,H_px,W,3]
    tool: np.ndarray  # float32 [N,H+1,3], metres
    object: np.ndarray  # float32 [N,H+1,3], metres


class Simulators:
    """What one process holds open: the learned simulator, the policies, the physics environments."""

    def __init__(
        self,
        run: Path,
        device: str,
        threads: int | None = None,
        task_file: str | None = None,
        robot: str | None = None,
    ) -> None:
        """`threads` of torch, where several processes share the cores. `task_file` registers tasks of one's own;
        `robot`: where the MJCF file of the dataset's arm lies now, if it was moved."""
        if threads:
            torch.set_num_threads(threads)
        self.run, self.device, self._task_file, self._robot = run, device, task_file, robot
        self.spec: EnvSpec = ClipStore(run / "clips").spec
        self.world = WorldModel.load(run, device)
        self.bundle: AdapterBundle = load_adapter(run / "adapter")
        self.physics = functools.lru_cache(maxsize=4)(self._physics)
        self.policy = functools.lru_cache(maxsize=4)(self._policy)

    def _physics(self, task: str, num_envs: int, pixels: bool) -> Any:
        from robosim.physics.env import PhysicsEnv
        from robosim.physics.tasks import load_task_file

        if self._task_file:
            load_task_file(self._task_file)
        return PhysicsEnv(
            self.spec,
            task=task,
            num_envs=num_envs,
            robot=self._robot,
            render_pixels=pixels,
            renderer=dataset_renderer(self.run),
        )

    def _policy(self, task: str) -> LeRobotPolicy:
        return LeRobotPolicy(self.run / "policy" / task / "pretrained_model", self.device)

    def learned(self, task: TaskSpec, num_envs: int) -> LearnedEnv:
        """The learned simulator under `task`, which may differ from the dataset's own task of that name."""
        tasks = tuple(task if own.name == task.name else own for own in self.spec.tasks)
        return LearnedEnv(
            world=self.world,
            spec=replace(self.spec, tasks=tasks),
            task=task.name,
            adapter=self.bundle.adapter,
            probe=self.bundle.probe,
            judge=self.bundle.judge,
            num_envs=num_envs,
        )

    def roll_out(self, job: RolloutJob, on_finish: Callable[[int], None]) -> Rollouts:
        """The same starts three times: policy in physics, policy in the learned simulator, random in physics."""
        camera, policy = self.spec.cameras[0], self.policy(job.task)
        env = self.physics(job.task, len(job.seeds), pixels=True)
        physics = run_policy(env, policy, job.seeds, camera=camera, on_finish=on_finish)
        start = {"frames": physics.frames[:, :1], "agent_pos": physics.agent_pos[:, 0]}
        task = self.spec.task(job.task)
        env = self.learned(task, len(job.seeds))
        learned = run_policy(env, policy, job.seeds, options=start, camera=camera, on_finish=on_finish)
        floor = RandomPolicy(job.recorded, job.seeds)
        env = self.physics(job.task, len(job.seeds), pixels=False)
        random = run_policy(env, floor, job.seeds, on_finish=on_finish)
        return Rollouts(physics, learned, random, self.judge(physics.frames, task))

    def judge(self, frames: np.ndarray, task: TaskSpec) -> np.ndarray:
        """The judge's distances [N,T] on video uint8 [N,T,H,W,3], the goal read once, from the first frames."""
        readings = self.read(frames)
        held = [replace(reading, goal=readings[0].goal) for reading in readings]
        judge = self.bundle.judge
        assert judge is not None  # compare refuses data without positions
        with torch.no_grad():
            return torch.stack([judge.distance(r, task) for r in held], dim=1).cpu().numpy()

    def read(self, frames: np.ndarray) -> list[ProbeReading]:
        """What the probe reads off video uint8 [N,T,H,W,3]: T readings of N rows."""
        with torch.no_grad():
            return [self.bundle.probe.read(torch.from_numpy(frames[:, t])) for t in range(frames.shape[1])]

    def replay(self, job: ReplayJob, on_finish: Callable[[int], None]) -> Replays:
        """Both replays in a learned simulator that never ends an episode by itself."""
        steps = job.clips.command.shape[1]
        endless = replace(self.spec.task(job.task), success_distance=-1.0, horizon=steps + 1)
        make_env = functools.partial(self.learned, endless)
        own = replay(make_env, job.clips, job.clips.command, job.seed)
        on_finish(len(job.clips))
        other = replay(make_env, job.clips, others_motions(job.clips, job.seed), job.seed)
        on_finish(len(job.clips))
        with torch.no_grad():
            tokens = self.world.encode_frames(torch.from_numpy(job.clips.frames))
            reconstructed = self.world.decode_tokens(tokens).cpu().numpy()
        readings = self.read(reconstructed)
        tool = torch.stack([reading.tool for reading in readings], dim=1).cpu().numpy()
        body = torch.stack([reading.object for reading in readings], dim=1).cpu().numpy()
        return Replays(own, other, reconstructed, tool, body)

    def do(self, job: RolloutJob | ReplayJob, on_finish: Callable[[int], None]) -> Rollouts | Replays:
        return self.roll_out(job, on_finish) if isinstance(job, RolloutJob) else self.replay(job, on_finish)


def dataset_renderer(run: Path) -> Literal["warp", "opengl"]:
    """What drew the run's labelled episodes: policies are compared on pictures like those they learned from."""
    from robosim.physics.rendering.renderer import recorded_kind

    dataset = label_source(run)
    return "warp" if dataset is None else recorded_kind(read_provenance(dataset))
