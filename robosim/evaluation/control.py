"""Whether the latent actions steer the prediction, or it would be as good with another clip's.

Legend of shape suffixes: N stretches, T frames, P pairs of consecutive frames, A latent dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from robosim.evaluation.drives import BATCH, drive_by_latents
from robosim.evaluation.measures import Measure, psnr, psnr_gain, ratio
from robosim.evaluation.stretches import Stretches
from robosim.progress import Bar
from robosim.world_model.draft import draft_clips
from robosim.world_model.evaluate import DELTA_HORIZON
from robosim.world_model.metrics import moving_mask, unit
from robosim.world_model.world import WorldModel

LOSS_FRAMES = 12
"""Frames of a stretch under teacher forcing, or as many as the longest has."""

LOSS_SEEDS = 4
"""Draws of which tokens are hidden."""


def partners(task_N: np.ndarray, able_N: np.ndarray) -> np.ndarray:
    """For each stretch another one of its task that is able too, half of the task's apart; −1 where there is none."""
    partner_N = np.full(len(task_N), -1)
    for task in set(task_N.tolist()):
        rows = np.flatnonzero((task_N == task) & able_N)
        if len(rows) > 1:
            partner_N[rows] = np.roll(rows, -(len(rows) // 2))
    return partner_N


def delta_psnr(
    world: WorldModel, stretches: Stretches, latents_NTA: Tensor, predicted: Tensor, seed: int, bar: Bar
) -> Measure:
    """ΔPSNR(4) (Genie, arXiv 2402.15391, section 3): PSNR after four frames by the inferred latent actions minus
    PSNR by those of another stretch of the task, on all pixels. `predicted` uint8 [N,F,H,W,3] is the first of both,
    row i drawn from the seed `seed` + i."""
    able = stretches.reaches(DELTA_HORIZON)
    partner = partners(stretches.task, able)
    rows = np.flatnonzero(partner >= 0)
    own, other = np.full((2, len(stretches)), np.nan)
    if len(rows):
        now, true = stretches.context - 1, stretches.at(DELTA_HORIZON)[rows]
        latents = latents_NTA[partner[rows], now : now + DELTA_HORIZON]
        misled = drive_by_latents(world, stretches.frames[rows, : now + 1], latents, seed + rows, bar)
        own[rows] = squared_error(predicted[rows, DELTA_HORIZON - 1], true)
        other[rows] = squared_error(misled[:, -1], true)
    return Measure.of(psnr_gain, own, other, np.full(len(stretches), stretches.present[0, ..., 0].numel()))


def squared_error(a: Tensor, b: Tensor) -> np.ndarray:
    """Sum over pixels of the channels' mean squared error: [N,H,W,3] → [N]."""
    return (unit(a) - unit(b)).square().mean(-1).double().sum((1, 2)).numpy()


@torch.no_grad()
def shuffle_ratio(world: WorldModel, stretches: Stretches, latents_NTA: Tensor, seed: int) -> Measure:
    """Teacher-forced loss with another stretch's latent actions / loss with the stretch's own; 1: they don't matter.

    The same tokens are hidden in both. Drafts are made of the latent actions, so that they are made again.
    """
    length = min(LOSS_FRAMES, int(stretches.length.max()))
    partner = partners(stretches.task, stretches.length >= length)
    losses = np.full((2, len(stretches)), np.nan)
    device, draft = world.device, world.dynamics.config.draft
    for row in np.flatnonzero(partner >= 0):
        tokens = world.tokenizer.encode_clips(stretches.frames[row : row + 1, :length].to(device))
        tokens = tokens.expand(LOSS_SEEDS, -1, -1)
        noise_seed = torch.arange(LOSS_SEEDS, device=device) + seed + LOSS_SEEDS * int(row)
        for which, source in enumerate((partner[row], row)):
            latents = F.pad(latents_NTA[source : source + 1, : length - 1], (0, 0, 0, 1)).to(device)
            batch = {"tokens": tokens, "noise_seed": noise_seed}
            batch["latent_action"] = latents.expand(LOSS_SEEDS, -1, -1)
            if draft:
                drafts = draft_clips(world.tokenizer, world.latent_action, tokens[:1], latents)
                batch["draft"] = drafts.expand(LOSS_SEEDS, -1, -1, -1)
            loss, metrics = world.dynamics(batch)
            losses[which, row] = float(loss) * float(metrics["weight"])
    return Measure.of(ratio, *losses)


@torch.no_grad()
def one_step(world: WorldModel, stretches: Stretches, latents_NTA: Tensor) -> dict[str, Measure]:
    """PSNR on moving pixels of the latent action model's own prediction of the next frame: by `inferred` latent
    actions, by `shuffled` ones of another stretch of the task, and `repeat_last`."""
    partner = partners(stretches.task, stretches.length > 1)
    there = np.arange(stretches.frames.shape[1] - 1) < stretches.length[:, None] - 1
    row_P, time_P = np.nonzero(there & (partner >= 0)[:, None])
    if not len(row_P):
        nothing = Measure.of(psnr, *np.full((2, len(stretches)), np.nan))
        return dict.fromkeys(("inferred", "shuffled", "repeat_last"), nothing)
    # A shorter partner begins again.
    other_P = partner[row_P]
    other_time_P = time_P % (stretches.length[other_P] - 1)
    latents = {"inferred": latents_NTA[row_P, time_P], "shuffled": latents_NTA[other_P, other_time_P]}
    sums = {name: np.zeros((2, len(stretches))) for name in (*latents, "repeat_last")}
    for values in sums.values():
        values[:, partner < 0] = np.nan
    for part in np.array_split(np.arange(len(row_P)), -(-len(row_P) // (2 * BATCH))):
        before = stretches.frames[row_P[part], time_P[part]]
        after = stretches.frames[row_P[part], time_P[part] + 1]
        moving = moving_mask(after, before)
        shown = {"repeat_last": unit(before)}
        for name, values in latents.items():
            known = values[part].to(world.device)
            shown[name] = world.latent_action.predict(before.to(world.device), known).cpu()
        for name, frames in shown.items():
            error = (frames - unit(after)).square().mean(-1) * moving
            np.add.at(sums[name][0], row_P[part], error.double().sum((1, 2)).numpy())
            np.add.at(sums[name][1], row_P[part], moving.sum((1, 2)).numpy())
    return {name: Measure.of(psnr, *parts) for name, parts in sums.items()}


def control_measures(
    world: WorldModel, stretches: Stretches, latents_NTA: Tensor, predicted: Tensor, seed: int, bar: Bar
) -> dict[str, Any]:
    """All three."""
    return {
        "delta_psnr_db": delta_psnr(world, stretches, latents_NTA, predicted, seed, bar),
        "shuffle_ratio": shuffle_ratio(world, stretches, latents_NTA, seed),
        "one_step_moving_psnr_db": one_step(world, stretches, latents_NTA),
    }
