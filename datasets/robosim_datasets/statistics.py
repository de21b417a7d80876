"""The statistics that LeRobot's policies normalise with: one set an episode, merged for the whole dataset.

Names, shapes and the merging rule are LeRobot's (`lerobot.datasets.compute_stats`): moments merge exactly,
quantiles by a weighted mean. Video statistics are per channel, [3, 1, 1], with pixels scaled to 0 … 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}

Statistics = dict[str, np.ndarray]

FRAME_STRIDE = 4
"""Every how many frames video statistics look: neighbours are nearly equal."""


def column_statistics(values: np.ndarray) -> Statistics:
    """Statistics of one episode's column, [T, D] or [T]; each result is [D], `count` is [1]."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    quantiles = np.quantile(rows, list(QUANTILES.values()), axis=0)
    return {
        "min": rows.min(axis=0),
        "max": rows.max(axis=0),
        "mean": rows.mean(axis=0),
        "std": rows.std(axis=0),
        "count": np.array([len(rows)]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


def video_statistics(frames: np.ndarray) -> Statistics:
    """Statistics of one episode's frames, uint8 [T, H, W, 3], from a histogram a channel."""
    pixels = frames[::FRAME_STRIDE].reshape(-1, 3)
    counts = np.stack([np.bincount(pixels[:, channel], minlength=256) for channel in range(3)])
    levels = np.arange(256)
    total = len(pixels)
    mean = counts @ levels / total
    variance = counts @ levels.astype(np.float64) ** 2 / total - mean**2
    reached = np.cumsum(counts, axis=1)
    result = {
        "min": np.array([np.flatnonzero(row)[0] for row in counts]),
        "max": np.array([np.flatnonzero(row)[-1] for row in counts]),
        "mean": mean,
        "std": np.sqrt(np.maximum(variance, 0)),
        **{name: (reached < q * total).sum(axis=1) for name, q in QUANTILES.items()},
    }
    scaled = {name: (value / 255.0).reshape(3, 1, 1) for name, value in result.items()}
    return {**scaled, "count": np.array([total])}


def merge_statistics(parts: Sequence[Statistics]) -> Statistics:
    """Statistics of the union of episodes."""
    weights = np.array([part["count"][0] for part in parts], dtype=np.float64)
    share = weights / weights.sum()

    def average(name: str) -> np.ndarray:
        return np.tensordot(share, np.stack([part[name] for part in parts]), axes=1)

    mean = average("mean")
    second_moment = np.tensordot(
        share, np.stack([part["std"] ** 2 + (part["mean"] - mean) ** 2 for part in parts]), axes=1
    )
    return {
        "min": np.min([part["min"] for part in parts], axis=0),
        "max": np.max([part["max"] for part in parts], axis=0),
        "mean": mean,
        "std": np.sqrt(second_moment),
        "count": np.array([int(weights.sum())]),
        **{name: average(name) for name in QUANTILES},
    }
