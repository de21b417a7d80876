"""The one training loop: every model of robosim is trained by `train`, on one device or on many.

A module's `forward(batch)` returns `(loss, metrics)`. Batches are a pure function of the step, and all noise of a
batch comes from it, so that a run which was interrupted goes on exactly as if it had not been.

The loss is a mean over `metrics["weight"]` things (masked tokens, frames; without it, the batch's rows). Micro-batches
and processes count by it: the gradient is that of the mean over all things of the whole batch, however it is cut.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from robosim.checkpoint import SAME_RESULT, deciding, prepare_folder
from robosim.errors import ConfigError, RobosimError
from robosim.interrupts import ECHO
from robosim.progress import progress
from robosim.ranks import (
    alone,
    any_rank,
    distributed,
    rank,
    shared_failure,
    sum_over_ranks,
    together,
    world_size,
)
from robosim.training.distributed import gather_weights, local, shard, transformers
from robosim.training.ema import WeightAverage
from robosim.training.logs import MetricsLog
from robosim.training.memory import keep_freed_memory
from robosim.training.schedule import Schedule, rate_factor
from robosim.training.snapshot import TrainingState, restore_latest, save_snapshot

Batch = dict[str, Tensor]


class Batches(Protocol):
    def __call__(self, step: int, rows: slice) -> Batch:
        """These rows of the batch of a step. A row depends on nothing but the step and its place."""
        ...


class TrainingError(RobosimError):
    """Training can't go on: the loss or a gradient isn't finite."""

    exit_code = 7


@dataclass
class TrainConfig:
    """How a model is trained. A run goes on, and a finished one is kept, when fields marked `SAME_RESULT` change."""

    steps: int = 1000
    """0 leaves the weights as they are: those that a stage starts from, see `starting_weights`."""
    batch: int = 32
    """Samples a step, of all processes together: clips, pairs or rows, as the model wants them."""
    learning_rate: float = 1e-3
    schedule: Schedule = "sqrt"
    """How the rate falls after the warm-up, see `rate_factor`."""
    warmup: int = 50
    """Steps of linear warm-up."""
    decay: float = 0.2
    """Share of the steps in which the rate falls, with schedule=wsd."""
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    """Largest gradient norm."""
    accumulate: int = 1
    """Micro-batches a step: less memory, the same gradient. What a model learns about a whole batch (normalisation,
    a codebook, which pairs move most) it then learns about each micro-batch."""
    ema: float = 0.0
    """Decay of the averaged weights, which the run then ends with; 0: none."""
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = field(default=False, metadata=SAME_RESULT)
    """Compile the transformers' blocks."""
    recompute_every: int = field(default=0, metadata=SAME_RESULT)
    """Every n-th block is computed again in the backward pass instead of being kept; 0: none."""
    save_every: int = field(default=200, metadata=SAME_RESULT)
    """Steps between snapshots; an interrupt saves one as well, and so does the end."""
    log_every: int = field(default=10, metadata=SAME_RESULT)
    tensorboard: bool = field(default=True, metadata=SAME_RESULT)

    def __post_init__(self) -> None:
        if min(self.batch, self.accumulate, self.save_every, self.log_every) < 1 or self.steps < 0:
            raise ValueError(
                f"steps must be at least 0, batch, accumulate, save_every and log_every at least 1, got {self}"
            )
        if not 0 <= self.ema < 1 or not 0 < self.decay <= 1:
            raise ValueError(
                f"ema must be in [0, 1) and decay in (0, 1], got ema={self.ema} decay={self.decay}"
            )


def train(
    module: nn.Module,
    batches: Batches,
    config: TrainConfig,
    out: Path,
    label: str,
    identity: dict[str, Any] | None = None,
    device: str = "cpu",
) -> dict[str, float]:
    """Train `module` in place for `config.steps` steps; returns the last logged metrics, none after no step.

    Snapshots go to `out`, metrics to `out/metrics.jsonl` and `out/tensorboard`. The last snapshot is that of the
    trained weights: until the caller drops it (`drop_snapshots`), the same call again costs no step. `identity` is what
    else the run depends on (model configuration, input hashes, seed): a snapshot of another identity is never
    continued. Ctrl-C or SIGTERM finishes the step, saves and raises `KeyboardInterrupt`. Raises `TrainingError` at a
    loss or gradient that isn't finite, before the optimiser sees it.

    In a process group every process must call it with the same `module`. Process 0 leaves with the whole trained
    weights, the others with a module that has none (on the device `meta`).
    """
    rows = micro_batches(config)
    alone(lambda: prepare_folder(out) and None)
    keep_freed_memory()
    trained = set_up(module, config, device)
    state = TrainingState(
        trained, make_optimiser(trained, config), WeightAverage(trained, config.ema) if config.ema else None
    )
    run = json.loads(json.dumps({"train": deciding(config), "identity": identity or {}}))
    first, last = restore_latest(out, state, run)
    talks = rank() == 0
    with (
        interruptible() as interrupted,
        MetricsLog(out, first, config.tensorboard) if talks else nullcontext() as log,
        progress(label, config.steps, "step", first) if talks else nullcontext() as bar,
    ):
        for step in range(first, config.steps):
            parts = together(lambda step=step: [batches(step, part) for part in rows])
            result = train_step(trained, parts, state.optimiser, config, step, device)
            if state.average:
                state.average.update(step)
            if step % config.log_every == 0 or step + 1 == config.steps:
                last = {"loss": result.loss} | result.metrics
                if log:
                    log.write(step, last | {"learning_rate": result.rate, "gradient_norm": result.norm})
            if bar:
                bar.advance(1, **last)
            done = step + 1
            stop = any_rank(interrupted())
            if stop or done % config.save_every == 0 or done == config.steps:
                save_snapshot(out, done, state, run, last)
            if stop:
                raise KeyboardInterrupt
    if state.average:
        state.average.copy_to_module()
    if trained is not module:
        gather_weights(trained, module)
    if talks:
        module.to(device).eval()
    return last


def micro_batches(config: TrainConfig) -> list[slice]:
    """The rows of every batch that this process takes, one slice a micro-batch."""
    parts = world_size() * config.accumulate
    if config.batch % parts:
        raise shared_failure(
            ConfigError(
                f"batch={config.batch} can't be cut into {world_size()} processes × accumulate="
                f"{config.accumulate} equal parts; set it to a multiple of {parts}"
            )
        )
    size = config.batch // parts
    first = rank() * config.accumulate
    return [slice(number * size, (number + 1) * size) for number in range(first, first + config.accumulate)]


def set_up(module: nn.Module, config: TrainConfig, device: str) -> nn.Module:
    """`module` ready to be trained on `device`: recomputation, compiled blocks, and sharded where there are others.

    Sharding takes the module's weights, see `shard`.
    """
    for transformer in transformers(module):
        transformer.recompute_every = config.recompute_every  # pyright: ignore[reportAttributeAccessIssue]
    trained = shard(module, device, config.precision) if distributed() else module.to(device)
    if config.compile and compiler_works(device):
        for transformer in transformers(trained):
            for block in transformer.blocks:
                block.compile()
    return trained.train()


def compiler_works(device: str) -> bool:
    """Whether torch.compile finds what it needs on this machine; says so where not."""
    try:
        torch.compile(lambda x: torch.sin(x) + 1)(torch.ones(8, device=device))
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if rank() == 0:
            print(
                f"  compile=true: no working compiler here, training goes on without ({reason})", flush=True
            )
        return False
    return True


def make_optimiser(module: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    parameters = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        parameters, config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
    )


class Step(NamedTuple):
    """What a step did: loss and metrics over the whole batch, gradient norm before clipping, learning rate."""

    loss: float
    metrics: dict[str, float]
    norm: float
    rate: float


def train_step(
    module: nn.Module,
    parts: Sequence[Batch],
    optimiser: torch.optim.Optimizer,
    config: TrainConfig,
    step: int,
    device: str,
) -> Step:
    """One optimiser step on this process's micro-batches."""
    rate = config.learning_rate * rate_factor(
        config.schedule, step, config.steps, config.warmup, config.decay
    )
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad(set_to_none=True)
    names, sums = backward(module, parts, config.precision, device)
    gradients = [local(p.grad) for p in module.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    # One exchange, and one look at the device, a step.
    squared, weight, *totals = sum_over_ranks(torch.cat([norm.double().square()[None], sums])).tolist()
    weight = max(weight, 1.0)
    # A sharded module's gradients are means over the processes.
    scale = world_size() / weight
    size = math.sqrt(squared) * scale if squared >= 0 else math.nan
    means = [total / weight for total in totals]
    if not (math.isfinite(means[0]) and math.isfinite(size)):
        raise shared_failure(
            TrainingError(
                f"step {step}: the loss ({means[0]:.4g}) or its gradient isn't finite; nothing was updated. "
                "Lower learning_rate, or check the dataset"
            )
        )
    factor = scale * min(1.0, config.clip / (size + 1e-6))
    for gradient in gradients:
        gradient.mul_(factor)
    optimiser.step()
    return Step(means[0], dict(zip(names, means[1:], strict=True)), size, rate)


def backward(
    module: nn.Module, parts: Sequence[Batch], precision: str, device: str
) -> tuple[list[str], Tensor]:
    """Gradients of the *sum* over all things that the parts' losses are means of.

    Returns the metrics' names, and float64 sums over the parts: the weights, then loss and metrics times weight.
    """
    names: list[str] = []
    sums: list[Tensor] = []
    for part in parts:
        batch = {name: value.to(device, non_blocking=True) for name, value in part.items()}
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            loss, metrics = module(batch)
        rows = len(next(iter(batch.values())))
        weight = torch.as_tensor(metrics.pop("weight", rows), dtype=torch.float32, device=device)
        (loss * weight).backward()
        names = list(metrics)
        means = [
            torch.as_tensor(value, device=device).detach().float() for value in (loss, *metrics.values())
        ]
        sums.append(torch.stack([weight, *(mean * weight for mean in means)]).double())
    return names, torch.stack(sums).sum(0)


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
