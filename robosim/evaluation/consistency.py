"""Whether a latent action means the same wherever it is taken.

The same sequence of latent actions is played from different start frames; the probe reads how far the tool went. If
the directions agree for one sequence and not between sequences, the sequence decides; where both agree, everything
moves that way. What an arm itself does is the reference: even the same motion of its joints moves the tool another way
where they are bent otherwise.

Legend of shape suffixes: N stretches, Q sequences, U starts, A latent dimensions, J joints.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from robosim.adapter.fit import ForwardKinematics
from robosim.evaluation.drift import Probes, read_places
from robosim.evaluation.drives import drive_by_latents
from robosim.evaluation.measures import Measure, ratio
from robosim.evaluation.stretches import Stretches, spread
from robosim.progress import Bar
from robosim.spec import RobotSpec
from robosim.world_model.world import WorldModel

FRAMES = 8
"""Latent actions of a sequence."""

SEQUENCES = 8
"""A task, at most."""

STARTS = 8
"""Of all tasks together, at most."""

LEAST_MOTION = 0.02
"""Metres that the true tool goes in a sequence; the direction of less is the probe's noise."""


def choose_sequences(tool: np.ndarray, stretches: Stretches) -> list[tuple[int, int]]:
    """(stretch, frame after the present at which it begins) of sequences in which the true tool goes far enough.

    Of each stretch the one that goes farthest, of each task up to `SEQUENCES` stretches, evenly spread. `tool`
    [N,F+1,3] metres, from the present on.
    """
    able: dict[str, list[tuple[int, int]]] = {}
    for row, task in enumerate(stretches.task.tolist()):
        path = tool[row, : stretches.length[row] - stretches.context + 1]
        moved = np.linalg.norm(path[FRAMES:] - path[:-FRAMES], axis=-1)
        if len(moved) and moved.max() > LEAST_MOTION:
            able.setdefault(task, []).append((row, int(moved.argmax())))
    return [places[i] for places in able.values() for i in spread(len(places), SEQUENCES)]


def consistency_measures(
    world: WorldModel,
    probes: Probes,
    stretches: Stretches,
    latents_NTA: Tensor,
    decoded: Tensor,
    sequences: list[tuple[int, int]],
    seed: int,
    bar: Bar,
) -> dict[str, Measure]:
    """Mean cosines between tool displacements from different starts: of the `same_sequence`, and of
    `different_sequences`, the control. A measure's rows are the stretches that the (first) sequences come from.

    `decoded`: the starts' present frames through the tokenizer, uint8 [N,H,W,3]. A sequence isn't counted from its own
    stretch's start.
    """
    starts, now = start_rows(stretches), stretches.context - 1
    latents = torch.stack([latents_NTA[n, now + t : now + t + FRAMES] for n, t in sequences])
    frames = stretches.frames[starts, : now + 1].repeat(len(sequences), 1, 1, 1, 1)
    seeds = seed + np.arange(len(frames))
    shown = drive_by_latents(world, frames, latents.repeat_interleave(len(starts), 0), seeds, bar)
    task_U = stretches.task[starts]
    before = read_places(probes, decoded[starts][:, None], task_U).tool[:, 0]
    after = read_places(probes, shown[:, -1:], np.tile(task_U, len(sequences))).tool[:, 0]
    moved_QU3 = after.reshape(len(sequences), len(starts), 3) - before
    row_Q = np.array([row for row, _ in sequences])
    return cosine_measures(moved_QU3, row_Q[:, None] != starts, row_Q, len(stretches))


def joint_motion_measure(
    tool_of: ForwardKinematics, robot: RobotSpec, stretches: Stretches, sequences: list[tuple[int, int]]
) -> Measure:
    """`same_sequence` with the true motion of the joints instead of latent actions, and the arm's own kinematics
    instead of simulator and probe: what latent actions reach that mean exactly how the joints move."""
    joints_NTJ, starts, now = stretches.state.astype(np.float64), start_rows(stretches), stretches.context - 1
    row_Q, first_Q = np.array(sequences).T
    motion_QJ = joints_NTJ[row_Q, now + first_Q + FRAMES] - joints_NTJ[row_Q, now + first_Q]
    before_UJ = joints_NTJ[starts, now]
    after_QUJ = np.clip(before_UJ + motion_QJ[:, None], robot.lower, robot.upper)
    after_QU3 = tool_of(after_QUJ.reshape(-1, after_QUJ.shape[-1])).reshape(*after_QUJ.shape[:2], 3)
    moved_QU3 = after_QU3 - tool_of(before_UJ)
    return cosine_measures(moved_QU3, row_Q[:, None] != starts, row_Q, len(stretches))["same_sequence"]


def start_rows(stretches: Stretches) -> np.ndarray:
    """The stretches whose present frames sequences are played from, int64 [U]."""
    return np.array(spread(len(stretches), STARTS))


def cosine_measures(
    moved_QU3: np.ndarray, counts_QU: np.ndarray, row_Q: np.ndarray, rows: int
) -> dict[str, Measure]:
    """Cosines between the displacements that count, of pairs with different starts; summed by `row_Q`."""
    way_QU3 = moved_QU3 / np.maximum(np.linalg.norm(moved_QU3, axis=-1, keepdims=True), 1e-9)
    cosine = np.einsum("aid,bjd->abij", way_QU3, way_QU3)
    apart = ~np.eye(way_QU3.shape[1], dtype=bool)
    pair = counts_QU[:, None, :, None] & counts_QU[None, :, None, :] & apart
    same = np.eye(len(way_QU3), dtype=bool)[:, :, None, None]
    measures = {}
    for name, chosen in (("same_sequence", pair & same), ("different_sequences", pair & ~same)):
        sums = np.full((2, rows), np.nan)
        sums[:, row_Q] = (cosine * chosen).sum((1, 2, 3)), chosen.sum((1, 2, 3))
        measures[name] = Measure.of(ratio, *sums)
    return measures
