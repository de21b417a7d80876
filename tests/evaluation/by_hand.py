"""Held-out stretches made by hand, and a clip store whose values tell their places."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from robosim.evaluation.stretches import Stretches


def stretches_of(
    frames: torch.Tensor,
    context: int = 1,
    length: list[int] | None = None,
    task: list[str] | None = None,
    positions: np.ndarray | None = None,
    **labels: Any,
) -> Stretches:
    """Stretches of `frames` uint8 [N,T,H,W,3]: of one task, whole, without labels, where nothing else is said."""
    count, time = frames.shape[:2]
    given = {
        "command": np.full((count, time, 0), np.nan, np.float32),
        "before": np.full((count, 0), np.nan, np.float32),
        "state": np.full((count, time, 0), np.nan, np.float32),
    }
    return Stretches(
        task=np.array(task or ["reach"] * count),
        episode=np.arange(count),
        start=np.zeros(count, int),
        length=np.array(length or [time] * count),
        context=context,
        frames=frames,
        positions=np.full((count, time, 9), np.nan, np.float32) if positions is None else positions,
        **(given | labels),
    )


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Frames uint8 [...,3] of random pixels."""
    return torch.randint(
        0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


class NoBar:
    """A progress bar that nobody looks at."""

    def advance(self, count: int = 1, **figures: float) -> None:
        pass


def telling_store(spec: Any, rows: list[tuple[int, str]], tasks: list[str] | None = None) -> Any:
    """Episodes of (length, split); frames and labels hold the row that they lie in, commands 1000 more."""
    starts = np.cumsum([0] + [length for length, _ in rows])
    episodes = [
        SimpleNamespace(start=int(start), length=length, split=split, task=task)
        for start, (length, split), task in zip(starts, rows, tasks or ["reach"] * len(rows), strict=False)
    ]
    count = np.arange(starts[-1], dtype=np.float32)[:, None]
    columns = {
        "action": count + np.full((1, 3), 1000, np.float32),
        "state": count + np.zeros((1, 3), np.float32),
        "environment_state": count + np.zeros((1, 9), np.float32),
    }

    def frames(
        episode: int, start: int = 0, stop: int | None = None, camera: str | None = None
    ) -> np.ndarray:
        first = episodes[episode].start
        stop = episodes[episode].length if stop is None else stop
        values = np.arange(first + start, first + stop).astype(np.uint8)
        return np.broadcast_to(values[:, None, None, None], (stop - start, 16, 16, 3))

    def select(split: str | None = None, task: str | None = None, labelled: bool | None = None) -> list[int]:
        return [
            i for i, row in enumerate(episodes) if split in (None, row.split) and task in (None, row.task)
        ]

    return SimpleNamespace(
        path="clips", spec=spec, episodes=episodes, column=columns.__getitem__, frames=frames, select=select
    )
