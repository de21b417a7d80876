"""Rollouts of the learned simulator along held-out stretches: by their latent actions, and by their commands.

Legend of shape suffixes: N stretches, T frames, F = T − context frames after the present, A latent dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from robosim.adapter import AdapterBundle
from robosim.evaluation.stretches import Stretches
from robosim.progress import Bar
from robosim.spec import EnvSpec, TaskSpec
from robosim.world_model.learned_env import LearnedEnv
from robosim.world_model.world import WorldModel, seeded_generators

BATCH = 32
"""Rows that are rolled out together."""

FRAMES = 512
"""Frames of stretches that are looked at together."""


def infer(world: WorldModel, stretches: Stretches) -> Tensor:
    """The latent actions between the frames of each stretch, float32 [N,T−1,A]; those of padding stand still."""
    return torch.cat([world.infer_latents(part).cpu() for part in parts_of(stretches.frames)])


def reconstruct(world: WorldModel, stretches: Stretches) -> Tensor:
    """The true frames through the tokenizer, uint8 [N,T,H,W,3]."""
    return torch.cat([world.reconstruct_clips(part).cpu() for part in parts_of(stretches.frames)])


def parts_of(frames: Tensor) -> tuple[Tensor, ...]:
    """Clips [N,T,H,W,3] in parts of about `FRAMES` frames."""
    return frames.split(max(1, FRAMES // frames.shape[1]))


def batches(steps: np.ndarray) -> list[np.ndarray]:
    """Rows in batches, the short ones together: a batch is rolled out as far as its longest row alone."""
    order = np.argsort(steps, kind="stable")
    return [np.sort(order[first : first + BATCH]) for first in range(0, len(steps), BATCH)]


def drive_by_latents(
    world: WorldModel,
    start: Tensor,
    latents: Tensor,
    seeds: Sequence[int] | np.ndarray,
    bar: Bar,
    steps: np.ndarray | None = None,
) -> Tensor:
    """From context frames `start` uint8 [N,C,H,W,3] by `latents` [N,F,A]: predicted uint8 [N,F,H,W,3].

    Row i draws from `seeds[i]` alone. `steps` int64 [N]: frames that are wanted of each; what comes after them
    may be black.
    """
    count, future = latents.shape[:2]
    steps = np.full(count, future) if steps is None else steps
    video = torch.zeros(count, future, *start.shape[2:], dtype=torch.uint8)
    for rows in batches(steps):
        generators = seeded_generators([int(seeds[row]) for row in rows])
        state = world.start(start[rows], generators=generators)
        for step in range(int(steps[rows].max())):
            video[rows, step] = world.step(state, latents[rows, step]).cpu()
        bar.advance(len(rows))
    return video


def drive_by_commands(
    world: WorldModel, spec: EnvSpec, bundle: AdapterBundle, stretches: Stretches, seed: int, bar: Bar
) -> Tensor:
    """By the recorded commands, through `LearnedEnv`, which carries its own joints: predicted uint8 [N,F,H,W,3].

    The true joints are given at the present frame alone. Row i draws from the seed `seed` + i; padding is as in
    `drive_by_latents`.
    """
    now, steps = stretches.context - 1, stretches.length - stretches.context
    endless = TaskSpec("evaluate", "", horizon=stretches.future + 1, success_distance=0.0, subject="none")
    spec = replace(spec, tasks=(endless,), cameras=spec.cameras[:1])
    video = torch.zeros_like(stretches.frames[:, now + 1 :])
    for rows in batches(steps):
        env = LearnedEnv(world, spec, "evaluate", bundle.adapter, bundle.probe, None, num_envs=len(rows))
        options = {
            "frames": stretches.frames[rows, : now + 1].numpy(),
            "agent_pos": stretches.state[rows, now],
            "previous_command": previous_command(bundle, stretches)[rows],
        }
        env.reset(seed=[seed + int(row) for row in rows], options=options)
        for step in range(int(steps[rows].max())):
            observation, *_ = env.step(stretches.command[rows, now + step])
            video[rows, step] = torch.from_numpy(np.array(observation["pixels"][spec.cameras[0]]))
        bar.advance(len(rows))
    return video


def previous_command(bundle: AdapterBundle, stretches: Stretches) -> np.ndarray:
    """What the arm was told before the present frame, float32 [N,J]; at an episode's first frame, to stay."""
    now = stretches.context - 1
    if now:
        return stretches.command[:, now - 1]
    first = bundle.adapter.first_command(torch.from_numpy(stretches.state[:, 0])).numpy()
    return np.where((stretches.start > 0)[:, None], stretches.before, first)
