"""Whether the object keeps its place, shape and size, and whether the arm fades: overlap and area of their pixels,
shown against true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robosim.evaluation.fidelity import Curve
from robosim.evaluation.measures import Measure, ratio
from robosim.evaluation.object_colours import ObjectColours, find_object_colours
from robosim.evaluation.stretches import Stretches
from robosim.world_model.metrics import unit

UNLIKE = 0.12
"""By how much a pixel of the foreground differs from the background, in some channel."""

EVERY = 3
"""Frames of a stretch between two from which colours are learned."""


def colours_by_task(
    stretches: Stretches, shows_object: np.ndarray, missing: list[str]
) -> dict[str, ObjectColours]:
    """The object's colours in the true frames of each task that has an object (`shows_object`, bool [N]); a sentence
    in `missing` for each where they can't be found."""
    found = {}
    for task in stretches.tasks:
        rows = np.flatnonzero((stretches.task == task) & shows_object)
        if not len(rows):
            continue
        if not np.isfinite(stretches.positions[rows]).all():
            missing.append(f"{task}: no object masks: the data don't say where the object is")
            continue
        row, time = np.array([(r, t) for r in rows for t in range(0, stretches.length[r], EVERY)]).T
        places = stretches.positions[row, time].astype(np.float64)
        colours = find_object_colours(stretches.frames[row, time], places, row)
        if colours is None:
            missing.append(f"{task}: no object masks: no colour in these frames is the object's alone")
        else:
            found[task] = colours
    return found


def mask_measures(
    colours: Mapping[str, ObjectColours],
    curves: Mapping[str, Curve],
    stretches: Stretches,
    horizons: Sequence[int],
) -> dict[str, Any]:
    """By curve and horizon, pooled over pixels, of the tasks that `colours` knows:

    `object_iou` with the true frame's mask; `object_area_ratio`, shown / true; `object_area_error`, mean of
    |shown − true| / mean of true, in which an object that vanished doesn't make up for one that doubled.
    """
    names = ("object_iou", "object_area_ratio", "object_area_error")
    measures: dict[str, Any] = {name: {curve: {} for curve in curves} for name in names}
    for horizon in horizons:
        there = stretches.reaches(horizon) & np.isin(stretches.task, list(colours))
        true_NHW = (
            object_masks(colours, stretches.at(horizon), stretches.task, there) if there.any() else None
        )
        for curve, show in curves.items():
            shown = None if true_NHW is None else show(horizon)
            sums = np.full((5, len(stretches)), np.nan)
            if shown is not None and true_NHW is not None:
                shown_NHW = object_masks(colours, shown, stretches.task, there)
                both, either = ((op).sum((1, 2)) for op in (shown_NHW & true_NHW, shown_NHW | true_NHW))
                shown_area, true_area = (mask.sum((1, 2)) for mask in (shown_NHW, true_NHW))
                values = (both, either, shown_area, true_area, (shown_area - true_area).abs())
                sums[:, there] = np.stack([value.numpy() for value in values])[:, there]
            both, either, shown_area, true_area, off = sums
            for name, parts in zip(
                names, ((both, either), (shown_area, true_area), (off, true_area)), strict=True
            ):
                measures[name][curve][str(horizon)] = Measure.of(ratio, *parts)
    return measures


def foreground_measures(
    background_HW3: Tensor, curves: Mapping[str, Curve], stretches: Stretches, horizons: Sequence[int]
) -> dict[str, Any]:
    """`foreground_area_ratio` by curve and horizon: pixels unlike the background float32 [H,W,3], shown / true.

    A rollout that loses the arm paints the table in its place, and its pictures may still be the nearest to the true
    ones: PSNR doesn't tell.
    """

    def area_N(frames: Tensor) -> np.ndarray:
        unlike_NHW = (unit(frames) - background_HW3).abs().amax(-1) > UNLIKE
        return unlike_NHW.sum((1, 2)).double().numpy()

    measures: dict[str, Any] = {curve: {} for curve in curves}
    for horizon in horizons:
        there = stretches.reaches(horizon)
        for curve, show in curves.items():
            shown, areas = show(horizon) if there.any() else None, np.full((2, len(stretches)), np.nan)
            if shown is not None:
                areas[:, there] = np.stack([area_N(shown), area_N(stretches.at(horizon))])[:, there]
            measures[curve][str(horizon)] = Measure.of(ratio, *areas)
    return {"foreground_area_ratio": measures}


def object_masks(
    colours: Mapping[str, ObjectColours], frames: Tensor, task_N: np.ndarray, rows: np.ndarray
) -> Tensor:
    """Bool [N,H,W]: the object's pixels in frames uint8 [N,H,W,3], each by its task's colours; of `rows` (bool [N])
    alone, nothing elsewhere."""
    mask_NHW = torch.zeros(frames.shape[:3], dtype=torch.bool)
    for task, known in colours.items():
        chosen = torch.from_numpy(np.flatnonzero(rows & (task_N == task)))
        if len(chosen):
            mask_NHW[chosen] = known.mask(frames[chosen])
    return mask_NHW
