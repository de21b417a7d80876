"""The one training loop: every model of robosim is trained by `train`.

A module's `forward(batch)` returns `(loss, metrics)`. Batches are a pure function of the step, and all noise of a
batch comes from it, so that a run which was interrupted goes on exactly as if it had not been.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robosim.checkpoint import prepare_folder
from robosim.errors import RobosimError
from robosim.interrupts import ECHO
from robosim.progress import progress
from robosim.training.memory import keep_freed_memory
from robosim.training.snapshot import drop_snapshots, restore_latest, save_snapshot

Batches = Callable[[int], dict[str, Tensor]]


class TrainingError(RobosimError):
    """Training can't go on: the loss or a gradient isn't finite."""

    exit_code = 7


@dataclass
class TrainConfig:
    steps: int = 1000
    batch: int = 32
    """Samples a step: clips, pairs or rows, as the model wants them."""
    learning_rate: float = 1e-3
    warmup: int = 50
    """Steps of linear warm-up; afterwards the rate falls with the square root of what is left."""
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    """Largest gradient norm."""
    precision: Literal["float32", "bfloat16"] = "float32"
    save_every: int = 200
    """Steps between snapshots; an interrupt saves one as well."""
    log_every: int = 10


def learning_rate(config: TrainConfig, step: int) -> float:
    """Warm-up, then ∝ √(1 − progress): most of the run at a high rate, and it ends near zero."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    return config.learning_rate * (warm * math.sqrt(1 - step / config.steps) + 0.005)


def train(
    module: nn.Module,
    batches: Batches,
    config: TrainConfig,
    out: Path,
    label: str,
    identity: dict[str, Any] | None = None,
    device: str = "cpu",
) -> dict[str, float]:
    """Train `module` in place for `config.steps` steps; returns the last logged metrics.

    Snapshots go to `out`, metrics to `out/metrics.jsonl`. `identity` is what else the run depends on (model
    configuration, input hashes, seed): a snapshot of another identity is never continued. Ctrl-C or SIGTERM
    finishes the step, saves and raises `KeyboardInterrupt`. Raises `TrainingError` at a loss or gradient that
    isn't finite, before the optimiser sees it.
    """
    prepare_folder(out)
    keep_freed_memory()
    module.to(device).train()
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
    )
    run = json.loads(json.dumps({"train": asdict(config), "identity": identity or {}}))
    first = restore_latest(out, module, optimiser, run)
    last: dict[str, float] = {}
    with (
        interruptible() as interrupted,
        MetricsLog(out / "metrics.jsonl", first) as log,
        progress(label, config.steps, "step", first) as bar,
    ):
        for step in range(first, config.steps):
            loss, metrics = train_step(module, batches(step), optimiser, config, step, device)
            if step % config.log_every == 0 or step + 1 == config.steps:
                last = {"loss": loss.item()} | {name: float(value) for name, value in metrics.items()}
                log.write({"step": step} | last)
            bar.advance(1, **last)
            done = step + 1
            if interrupted() or (done % config.save_every == 0 and done < config.steps):
                save_snapshot(out, done, module, optimiser, run)
            if interrupted():
                raise KeyboardInterrupt
    module.eval()
    return last


def train_step(
    module: nn.Module,
    batch: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    config: TrainConfig,
    step: int,
    device: str,
) -> tuple[Tensor, dict[str, Any]]:
    """One optimiser step; returns the loss and the metrics."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(config, step)
    batch = {name: value.to(device) for name, value in batch.items()}
    with torch.autocast(device, torch.bfloat16, enabled=config.precision == "bfloat16"):
        loss, metrics = module(batch)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_((p for p in module.parameters() if p.requires_grad), config.clip)
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        raise TrainingError(
            f"step {step}: the loss ({loss.item():.4g}) or its gradient isn't finite; nothing was updated. "
            "Lower learning_rate, or check the dataset"
        )
    optimiser.step()
    return loss.detach(), metrics


def finish(out: Path) -> None:
    """Drop the snapshots of a run whose weights are saved elsewhere."""
    drop_snapshots(out)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a flag; a second Ctrl-C stops at once.

    Signals reach only the main thread; elsewhere the flag stays false.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    first = 0.0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if not asked.is_set():
            first = time.monotonic()
        elif time.monotonic() - first > ECHO:
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class MetricsLog:
    """Metrics as JSON lines. A continued run first drops the lines of steps that it will do again."""

    def __init__(self, path: Path, first: int) -> None:
        kept = []
        if first and path.exists():
            kept = [line for line in path.read_text().splitlines() if _step(line) < first]
        path.write_text("".join(line + "\n" for line in kept))
        self._file = path.open("a")

    def write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()


def _step(line: str) -> float:
    """The step of a logged line; infinity for one that a crash cut short."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return math.inf
