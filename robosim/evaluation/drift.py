"""Where tool and object are in predicted frames, as the probe reads them, against where they were.

Legend of shape suffixes: N stretches, F frames after the present (row 0 is the present).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robosim.adapter import KeypointProbe
from robosim.adapter.labels import STATE_COLUMNS
from robosim.evaluation.measures import Measure, ratio
from robosim.evaluation.stretches import Stretches

USABLE_DRIFT = 0.03
"""Metres of mean tool drift up to which a rollout counts as usable."""

READ = 128
"""Frames that are read at once."""

Probes = Mapping[str, KeypointProbe]
"""By task."""


@dataclass(frozen=True)
class Places:
    """What the probe reads off a video: float32 [N,F+1,3] each, metres."""

    tool: np.ndarray
    object: np.ndarray


@torch.no_grad()
def read_places(probes: Probes, frames: Tensor, task_N: np.ndarray) -> Places:
    """Read a video uint8 [N,F+1,H,W,3], each row by the probe of its task."""
    places = Places(*np.zeros((2, *frames.shape[:2], 3), np.float32))
    for task in np.unique(task_N):
        rows = np.flatnonzero(task_N == task)
        readings = [probes[task].read(part.contiguous()) for part in frames[rows].flatten(0, 1).split(READ)]
        for name in ("tool", "object"):
            place = torch.cat([getattr(reading, name) for reading in readings]).cpu()
            getattr(places, name)[rows] = place.unflatten(0, (len(rows), -1)).numpy()
    return places


def drift_measures(
    read: Mapping[str, Places], stretches: Stretches, horizons: Sequence[int], shows_object: np.ndarray
) -> dict[str, Any]:
    """Mean distances in metres by what is read, and horizon.

    `tool_drift_m`, `object_drift_m`: from the true positions; that of `true`, the true frames, is the probe's own
    error. `…_drift_from_probe_m`: from what the probe reads off the true frames, in which its error cancels in part.
    The object counts in the stretches `shows_object` (bool [N]).
    """
    measures: dict[str, Any] = {}
    for thing, rows in (("tool", np.ones(len(stretches), bool)), ("object", shows_object)):
        known = true_places(stretches, thing)
        probed = getattr(read["true"], thing)
        for name, reference in ((f"{thing}_drift_m", known), (f"{thing}_drift_from_probe_m", probed)):
            curves = [curve for curve in read if curve != "true" or reference is known]
            measures[name] = {
                curve: {
                    str(h): drift(getattr(read[curve], thing), reference, h, rows & stretches.reaches(h))
                    for h in horizons
                }
                for curve in curves
            }
    return measures


def true_places(stretches: Stretches, thing: str) -> np.ndarray:
    """True positions from the present on, float32 [N,F+1,3], metres; NaN where they aren't known."""
    return stretches.positions[:, stretches.context - 1 :, STATE_COLUMNS[thing]]


def drift(read: np.ndarray, reference: np.ndarray, horizon: int, rows: np.ndarray) -> Measure:
    """The mean over `rows` (bool [N]) of the distance between two [N,F+1,3] at a horizon."""
    if horizon >= min(read.shape[1], reference.shape[1]):
        return Measure.of(ratio, *np.full((2, len(rows)), np.nan))
    apart = np.linalg.norm(read[:, horizon] - reference[:, horizon], axis=-1)
    return Measure.of(ratio, np.where(rows, apart, np.nan), np.ones(len(rows)))


def usable_horizon(read: np.ndarray, reference: np.ndarray, stretches: Stretches, most: int) -> Measure:
    """Frames up to which the mean tool drift, over the stretches that are so long, never exceeds `USABLE_DRIFT`; at
    most `most`, or where the longest stretch ends."""
    steps = np.arange(1, min(most, read.shape[1] - 1, reference.shape[1] - 1) + 1)
    apart_NF = np.linalg.norm(read[:, steps] - reference[:, steps], axis=-1)
    there_NF = stretches.length[:, None] >= stretches.context + steps
    apart_NF = np.where(there_NF, apart_NF, 0.0)

    def formula(sums: np.ndarray) -> np.ndarray:
        total, count = np.split(sums, 2, axis=-1)
        usable = total <= USABLE_DRIFT * count
        return np.cumprod(usable & (count > 0), axis=-1).sum(-1).astype(float)

    return Measure(np.concatenate([apart_NF, there_NF.astype(float)], axis=1), formula)
