"""Figures as sums over episodes, so that each can be pooled, split by task and resampled in the same way.

Every figure of an evaluation is a formula of sums: a PSNR of squared errors and pixels, a drift of distances and
frames. A `Measure` keeps what each episode adds to these sums. The formula is then applied to the sums of a task's
episodes, of all, and of each bootstrap resample: what is pooled is pooled within a resample too.

Legend of shape suffixes: N episodes, P sums of a formula, S resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

SAMPLES = 1000
"""Bootstrap resamples."""

CONFIDENCE = 0.95

Formula = Callable[[np.ndarray], np.ndarray]
"""Sums [..., P] → the figure [...]; NaN where it isn't defined."""


@dataclass(frozen=True)
class Measure:
    """What N episodes add to the sums of one figure; a row with a NaN has no part in it."""

    parts_NP: np.ndarray
    formula: Formula

    @classmethod
    def of(cls, formula: Formula, *parts: Any) -> Measure:
        """From P arrays [N], one for each sum."""
        return cls(np.stack([np.asarray(part, dtype=np.float64) for part in parts], axis=-1), formula)


def ratio(sums: np.ndarray) -> np.ndarray:
    """First sum / second sum: a mean, a share, a ratio of losses."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan)


def psnr(sums: np.ndarray) -> np.ndarray:
    """PSNR in dB of (sum of squared errors, number of pixels), colours in 0…1."""
    return -10 * np.log10(np.maximum(ratio(sums), 1e-10))


def psnr_gain(sums: np.ndarray) -> np.ndarray:
    """PSNR in dB of the first minus the second of (squared errors, their rival's, number of pixels)."""
    return psnr(sums[..., [0, 2]]) - psnr(sums[..., [1, 2]])


def summarise(measures: Any, rows: np.ndarray, seed: int) -> Any:
    """A tree (nested dicts) of `Measure`s as a tree of estimates over the episodes `rows` (bool or int [n])."""
    if isinstance(measures, Measure):
        return estimate(measures, rows, seed)
    return {name: summarise(part, rows, seed) for name, part in measures.items()}


def estimate(measure: Measure, rows: np.ndarray, seed: int) -> dict[str, Any] | None:
    """`value`, `low`, `high` (95 % percentile bootstrap over episodes) and the number of `episodes` behind it.

    None where no episode has a part in the figure; `low` and `high` are None where only one has.
    """
    parts_NP = measure.parts_NP[rows]
    parts_NP = parts_NP[np.isfinite(parts_NP).all(axis=1)]
    count = len(parts_NP)
    value = measure.formula(parts_NP.sum(0)) if count else np.nan
    if not np.isfinite(value):
        return None
    figure: dict[str, Any] = {"value": float(value), "low": None, "high": None, "episodes": count}
    if count > 1:
        generator = np.random.default_rng(seed)
        drawn_SN = generator.multinomial(count, np.full(count, 1 / count), size=SAMPLES)
        values_S = measure.formula(drawn_SN @ parts_NP)
        tail = (1 - CONFIDENCE) / 2
        low, high = np.nanquantile(values_S, [tail, 1 - tail])
        figure |= {"low": float(low), "high": float(high)}
    return figure
