"""How good an adapter is where units are unknown and nothing has a position: recordings from elsewhere.

Every number is measured in its own unit of motion, so that metres, degrees and grippers can be averaged; numbers that
never move don't count.

Legend of shape suffixes: N frames, M transitions, J numbers of a command, S of a state.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from robosim.adapter.action_adapter import ActionAdapter
from robosim.adapter.labels import LabelledEpisodes, Transitions
from robosim.spec import EnvSpec
from robosim.world_model.protocols import ProbeReading

STILL = 1e-6
"""A number whose motion is smaller than this (root mean square) doesn't move."""


@torch.no_grad()
def motion_figures(adapter: ActionAdapter, rows: Transitions, spec: EnvSpec, seed: int) -> dict[str, Any]:
    """Errors of the adapter's maps on transitions that it wasn't fitted on.

    Absolute errors, the mean over transitions and numbers, as multiples of each number's motion (root mean square).
    `command_error`: decoded from the inferred latent action and the state; `idle_…`: without them, the previous command
    for targets and the labels' mean for motions; `shuffled_…`: from the state and latent actions permuted among
    transitions. `command_r2`: by name, the share of the squared idle error that the first takes away. `latent_r2`:
    share of the latent actions' variance that commands explain. `next_state_error` and `idle_…`: the state a step
    ahead, and no change.
    """
    inputs = (rows.previous_command_MJ, rows.joints_MJ)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    idle_MJ = adapter.idle_command(rows.previous_command_MJ)
    moved_MJ = rows.command_MJ - idle_MJ
    off = {
        "": adapter.latent_to_command(rows.latent_MA, *inputs) - rows.command_MJ,
        "idle_": moved_MJ,
        "shuffled_": adapter.latent_to_command(rows.latent_MA[order], *inputs) - rows.command_MJ,
    }
    figures: dict[str, Any] = {
        f"{name}command_error": scaled(off_MJ, moved_MJ) for name, off_MJ in off.items()
    }
    left_J, all_J = off[""].square().sum(0), moved_MJ.square().sum(0)
    figures["command_r2"] = {
        name: (1 - left / whole).item()
        for name, left, whole in zip(spec.action_columns, left_J, all_J, strict=True)
        if whole > len(rows) * STILL**2
    }
    latent_MA = adapter.command_to_latent(rows.command_MJ, *inputs)
    spread = (rows.latent_MA - rows.latent_MA.mean(0)).square().sum().clamp_min(1e-9)
    figures["latent_r2"] = (1 - (latent_MA - rows.latent_MA).square().sum() / spread).item()
    if rows.joints_MJ.shape[1]:
        step_MS = rows.next_joints_MJ - rows.joints_MJ
        next_MS = adapter.predict_joints(rows.command_MJ, *inputs)
        figures["next_state_error"] = scaled(next_MS - rows.next_joints_MJ, step_MS)
        figures["idle_next_state_error"] = scaled(step_MS, step_MS)
    return figures


def state_figures(reading: ProbeReading, labels: LabelledEpisodes) -> dict[str, float]:
    """Mean absolute error of the states that a probe reads off all frames of `labels`, in each number's standard
    deviation; and that of always giving their mean. Nothing where there are no states."""
    state_NS = torch.from_numpy(np.concatenate(labels.joints).astype(np.float32))
    if not state_NS.shape[1]:
        return {}
    away_NS = state_NS - state_NS.mean(0)
    return {
        "probe_state_error": scaled(reading.joints - state_NS, away_NS),
        "mean_state_error": scaled(away_NS, away_NS),
    }


def scaled(off_MD: Tensor, motion_MD: Tensor) -> float:
    """Mean absolute value, each number D as a multiple of its motion's root mean square; 0 where nothing moves."""
    unit_D = motion_MD.square().mean(0).sqrt()
    moves_D = unit_D > STILL
    return (off_MD[:, moves_D] / unit_D[moves_D]).abs().mean().item() if moves_D.any() else 0.0
