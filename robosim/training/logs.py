"""What a training run writes down as it goes: JSON lines for programs, TensorBoard events for people."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from robosim.checkpoint import prepare_folder


class MetricsLog:
    """Metrics as JSON lines in `metrics.jsonl`, and as events in `tensorboard/`.

    A run that goes on at step `first` drops the lines of steps that it will do again, and tells TensorBoard to.
    """

    def __init__(self, out: Path, first: int, tensorboard: bool) -> None:
        path, kept = prepare_folder(out) / "metrics.jsonl", []
        if first and path.exists():
            kept = [line for line in path.read_text().splitlines() if _step(line) < first]
        path.write_text("".join(line + "\n" for line in kept))
        self._file = path.open("a")
        self._events = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(out / "tensorboard", purge_step=first)

    def write(self, step: int, row: dict[str, float]) -> None:
        self._file.write(json.dumps({"step": step} | row) + "\n")
        self._file.flush()
        if self._events:
            for name, value in row.items():
                self._events.add_scalar(name, value, step)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()
        if self._events:
            self._events.close()


def _step(line: str) -> float:
    """The step of a logged line; infinity for one that a crash cut short."""
    try:
        row: Any = json.loads(line)
        return row["step"]
    except (ValueError, KeyError):
        return math.inf
