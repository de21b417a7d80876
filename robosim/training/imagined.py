"""Rollouts of a policy inside the learned simulator, and what to learn from them.

Advantage-weighted regression (arXiv 1910.00177): the policy acts with noise, and each step is an example to imitate,
weighted by how much better it turned out than steps like it.

Legend: N rows, T steps, A latent dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robosim.progress import Bar
from robosim.training.cloning import Examples, images

CORRELATION = 0.7
"""Of exploration noise from one frame to the next: at 10 Hz, independent noise averages out before it matters."""

MAX_WEIGHT = 5.0
"""Largest weight of one imagined example, so that a lucky reading of the probe can't dominate."""


@dataclass
class Imagined:
    """What happened in N rows over T steps; row t is before the latent action of step t."""

    frames: Tensor  # uint8 [T, N, H, W, 3]
    latents: Tensor  # float32 [T, N, A]
    rewards: Tensor  # float32 [T, N]
    distance: Tensor  # float32 [T, N], metres
    alive: Tensor  # bool [T, N]
    success: Tensor  # bool [N]

    @property
    def mean_return(self) -> float:
        """Reward summed over an episode, the mean of N: metres gained, plus one for a success."""
        return self.rewards.sum(0).mean().item()


@torch.no_grad()
def imagine(
    env: Any, policy: Any, starts: Tensor, seed: int, noise: float, steps: int, bar: Bar | None = None
) -> Imagined:
    """Act in `env` (latent actions) from the frames `starts` uint8 [N, H, W, 3], for `steps` steps at most.

    `noise` is the standard deviation of what is added to the policy's latent action. It ends early when every row
    is done.
    """
    camera, key, device = env.env_spec.cameras[0], policy.config.image_key, policy.config.device
    bound = policy.config.latent_bound
    seeds = np.random.default_rng(seed).integers(2**31, size=len(starts)).tolist()
    generator = torch.Generator().manual_seed(seed)
    observation, info = env.reset(seed=seeds, options={"frames": starts[:, None].numpy()})
    alive = torch.ones(len(starts), dtype=torch.bool)
    wander, kept = torch.zeros(()), []
    for step in range(steps):
        frames = torch.from_numpy(observation["pixels"][camera].copy())
        distance = torch.from_numpy(np.array(info["task_distance"], dtype=np.float32))
        latents = policy.predict_latent({key: images(frames).to(device)}).cpu()
        fresh = torch.randn(latents.shape, generator=generator)
        wander = CORRELATION * wander + (1 - CORRELATION**2) ** 0.5 * fresh if step else fresh
        latents = (latents + noise * wander).clamp(-bound, bound)
        observation, reward, terminated, truncated, info = env.step(latents.numpy())
        kept.append((frames, latents, torch.from_numpy(np.array(reward, dtype=np.float32)), distance, alive))
        if bar is not None:
            bar.advance(int(alive.sum()))
        alive = alive & ~torch.from_numpy(terminated | truncated)
        if not alive.any():
            break
    rows = (torch.stack(column) for column in zip(*kept, strict=True))
    return Imagined(*rows, success=torch.from_numpy(np.array(info["is_success"])))


def advantages(imagined: Imagined, discount: float) -> Tensor:
    """How much better each step turned out than steps at its distance and time: [T, N], deviations from the mean.

    The expectation is a least-squares fit of the discounted return on (1, d, d², t) over the steps of rows still
    running. Rows that are done get 0.
    """
    returns = torch.zeros_like(imagined.rewards)
    ahead = torch.zeros_like(imagined.rewards[0])
    for t in reversed(range(len(returns))):
        ahead = imagined.rewards[t] + discount * ahead
        returns[t] = ahead
    alive, d = imagined.alive, imagined.distance
    time = torch.arange(len(d))[:, None].expand_as(d) / len(d)
    features = torch.stack([torch.ones_like(d), d, d**2, time], dim=-1)[alive].double()
    target = returns[alive].double()
    fit = torch.linalg.lstsq(features, target[:, None], driver="gelsd").solution[:, 0]
    surprise = target - features @ fit
    result = torch.zeros_like(returns)
    result[alive] = (surprise / surprise.std().clamp_min(1e-6)).float()
    return result


def imagined_examples(imagined: Imagined, discount: float, temperature: float) -> Examples:
    """The steps of running rows, weighted by the exponential of their advantage (mean weight 1)."""
    gain = advantages(imagined, discount)[imagined.alive]
    weights = (gain / temperature).exp().clamp(max=MAX_WEIGHT)
    return Examples(
        imagined.frames[imagined.alive], imagined.latents[imagined.alive], weights / weights.mean()
    )
