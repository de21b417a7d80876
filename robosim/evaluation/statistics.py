"""How sure a figure is: intervals, paired tests, and how two simulators rank policies.

Everything is NumPy and exact where that is cheap; whatever samples takes a seed and repeats bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

EXACT_SIGN_FLIPS = 16
"""Up to this many pairs every one of the 2^n sign patterns is tried; beyond it they are sampled."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval, both ends included."""

    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class PairedTest:
    """Result of a test on paired differences: their mean, the two-sided p value, the number of pairs."""

    mean_difference: float
    p_value: float
    pairs: int


def _z(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson_interval(successes: int, episodes: int, confidence: float = 0.95) -> Interval:
    """Score interval of a success rate (Wilson 1927); honest at 0 of n and at n of n, unlike ± 1.96 σ."""
    if not 0 <= successes <= episodes or episodes == 0:
        raise ValueError(f"{successes} successes of {episodes} episodes is not a rate")
    z = _z(confidence)
    rate = successes / episodes
    scale = 1 + z * z / episodes
    centre = (rate + z * z / (2 * episodes)) / scale
    half = z / scale * math.sqrt(rate * (1 - rate) / episodes + z * z / (4 * episodes**2))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def paired_test(a: ArrayLike, b: ArrayLike, seed: int = 0, samples: int = 20_000) -> PairedTest:
    """Sign-flip permutation test of mean(a − b) = 0, two-sided (Fisher 1935).

    `a` and `b` are [n] and paired by row: the same initial state. If the pairing made no difference, each
    difference could as well have had the other sign. Sampled p values count the observed pattern itself, so
    that they are never 0.
    """
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    if difference.ndim != 1 or difference.size == 0 or not np.isfinite(difference).all():
        raise ValueError("a paired test needs two equally long, finite, non-empty vectors")
    count = difference.size
    observed = abs(difference.mean())
    # Sums of the same numbers in another order differ in the last bits; a tie must still count as a tie.
    threshold = observed - 1e-12 * max(1.0, observed)
    if count <= EXACT_SIGN_FLIPS:
        bits = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
        p_value = np.mean(np.abs((1 - 2 * bits) @ difference / count) >= threshold)
    else:
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(samples, count))
        p_value = (1 + np.sum(np.abs(signs @ difference / count) >= threshold)) / (samples + 1)
    return PairedTest(float(difference.mean()), float(p_value), count)


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[[np.ndarray], float] = lambda rows: float(np.mean(rows)),
    seed: int = 0,
    samples: int = 2_000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile bootstrap over episodes. `values` is [n, ...]: row i holds everything about episode i."""
    rows = np.asarray(values)
    if len(rows) == 0:
        raise ValueError("a bootstrap needs at least one episode")
    generator = np.random.default_rng(seed)
    estimates = [statistic(rows[generator.integers(len(rows), size=len(rows))]) for _ in range(samples)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(estimates, [tail, 1 - tail])
    return Interval(float(low), float(high))


def mmrv(*, physics: ArrayLike, learned: ArrayLike) -> float:
    """Mean maximum rank violation of k policies (SimplerEnv, Li et al. 2024, eq. 1).

    (1/k) Σ_i max_j |R_i − R_j| · 1[(S_i < S_j) ≠ (R_i < R_j)] with R = success in physics, the reference, and
    S = success in the learned simulator. It is *not* symmetric, hence the named arguments.
    """
    reference, simulated = _rates(physics, learned, at_least=2)
    swapped = (simulated[:, None] < simulated[None]) != (reference[:, None] < reference[None])
    gaps = np.abs(reference[:, None] - reference[None])
    return float((gaps * swapped).max(axis=1).mean())


def mmrv_noise_floor(rates: ArrayLike, episodes: int, seed: int = 0, samples: int = 2_000) -> float:
    """The MMRV that a *perfect* simulator would show: both sides draw `episodes` trials at the same `rates`."""
    true_rates = np.asarray(rates, dtype=np.float64)
    generator = np.random.default_rng(seed)
    draws = generator.binomial(episodes, true_rates, size=(samples, 2, len(true_rates))) / episodes
    return float(np.mean([mmrv(physics=physics, learned=learned) for physics, learned in draws]))


@dataclass(frozen=True)
class Correlation:
    """Pearson's r over policies with its Fisher interval and the range of r when one policy is left out."""

    r: float
    interval: Interval
    drop_one: Interval


def pearson(*, physics: ArrayLike, learned: ArrayLike, confidence: float = 0.95) -> Correlation:
    """Correlation of the success rates of k ≥ 4 policies; fewer leave the Fisher interval undefined."""
    reference, simulated = _rates(physics, learned, at_least=4)
    r = _r(reference, simulated)
    z, half = math.atanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)), _z(confidence) / math.sqrt(len(reference) - 3)
    kept = [np.arange(len(reference)) != dropped for dropped in range(len(reference))]
    without = [_r(reference[keep], simulated[keep]) for keep in kept]
    fisher = Interval(math.tanh(z - half), math.tanh(z + half))
    return Correlation(r, fisher, Interval(min(without), max(without)))


def _r(a: np.ndarray, b: np.ndarray) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        raise ValueError("a correlation needs success rates that differ between policies")
    return float(np.corrcoef(a, b)[0, 1])


def _rates(physics: ArrayLike, learned: ArrayLike, at_least: int) -> tuple[np.ndarray, np.ndarray]:
    reference, simulated = np.asarray(physics, dtype=np.float64), np.asarray(learned, dtype=np.float64)
    if reference.shape != simulated.shape or reference.ndim != 1 or len(reference) < at_least:
        raise ValueError(
            f"need one success rate a policy for each simulator and at least {at_least} policies, "
            f"got {reference.shape} and {simulated.shape}"
        )
    return reference, simulated
