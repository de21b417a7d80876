"""One progress bar for all long work: rate, time left, and a few figures.

On a terminal it is a live bar; in a log it is a plain line every `LOG_SECONDS` and one at the end.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

LOG_SECONDS = 10.0
"""Pause between two plain lines when stderr isn't a terminal."""

REDRAW_SECONDS = 0.1
"""Shortest pause between two updates of the live bar, so that `advance` stays cheap in a tight loop."""


class Bar:
    """Counts finished units and shows them. `advance` may be called from any thread."""

    def __init__(self, label: str, total: int, unit: str, done: int, live: RichProgress | None) -> None:
        self.label, self.total, self.unit = label, total, unit
        self._done = self._first = done
        self._logged = -1
        self._figures = ""
        self._lock = threading.Lock()
        self._started = self._shown = time.monotonic()
        self._live = live
        self._task = live.add_task(label, total=total, completed=done, rate="", figures="") if live else None

    @property
    def done(self) -> int:
        return self._done

    def advance(self, count: int = 1, **figures: float) -> None:
        """Count `count` more finished units; `figures` (a loss, a PSNR) replace the ones shown before."""
        with self._lock:
            self._done += count
            if figures:
                self._figures = "  ".join(f"{name} {float(value):.4g}" for name, value in figures.items())
            now = time.monotonic()
            if now - self._shown >= (REDRAW_SECONDS if self._live else LOG_SECONDS):
                self._show(now)

    def close(self) -> None:
        """Show the last state, however short the time since the one before; a log gets it once."""
        with self._lock:
            if self._live or self._logged != self._done:
                self._show(time.monotonic())

    def _show(self, now: float) -> None:
        self._shown = now
        seconds = now - self._started
        rate = (self._done - self._first) / seconds if seconds > 0 else 0.0
        rate_text = f"{rate:.3g} {self.unit}/s" if rate > 0 else ""
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=self._done, rate=rate_text, figures=self._figures)
            return
        self._logged = self._done
        left = (self.total - self._done) / rate if rate > 0 else 0.0
        when = f"{_clock(left)} left" if self._done < self.total else f"in {_clock(seconds)}"
        parts = [f"{self.label}: {self._done}/{self.total} {self.unit}s", rate_text, when, self._figures]
        print("  ".join(part for part in parts if part), file=sys.stderr, flush=True)


@contextmanager
def progress(label: str, total: int, unit: str = "step", done: int = 0) -> Iterator[Bar]:
    """Show the progress of `total` units, of which `done` were finished by an earlier run.

    with progress("tokenizer", total=900, done=300) as bar:
        ...
        bar.advance(1, loss=0.12)
    """
    if not sys.stderr.isatty():
        bar = Bar(label, total, unit, done, live=None)
        try:
            yield bar
        finally:
            bar.close()
        return
    with _live_bar() as live:
        bar = Bar(label, total, unit, done, live)
        try:
            yield bar
        finally:
            bar.close()


def _live_bar() -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("  {task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[figures]}"),
        console=Console(stderr=True),
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
