"""`robosim bench decode`: how many frames a second the learned simulator makes, pixels included."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robosim.bench.output import document, publish
from robosim.bench.paper import PAPER_STEPS, PaperRollout
from robosim.config import RunOptions, compose, resolve_device
from robosim.errors import ConfigError
from robosim.progress import progress
from robosim.simulator.run_folder import check_parts
from robosim.training.presets import load_preset
from robosim.world_model.decoding import commit_frame, refine_frame
from robosim.world_model.world import Precision, RolloutState, WorldModel, seeded_generators, to_uint8

COLUMNS = (
    "steps",
    "frames_per_second",
    "best_frames_per_second",
    "best_batch",
    "times_paper",
    "milliseconds",
)

CLOCK = (
    "wall time from a latent action to a frame of pixels on the host; the fastest of `repeats`, since other users of "
    "the machine can only slow it down; frames of all rows count; the milliseconds are those of the parts at batch 1, "
    "each timed by itself"
)
RANDOM = "random: speed doesn't depend on them"


@dataclass
class DecodeConfig(RunOptions):
    """`model`: a preset, unless `run` names a run folder."""

    model: str = "tiny"
    run: str | None = None  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    precision: Precision = "float32"
    steps: tuple[int, ...] = (1, 2, 4, 8, 25)
    batches: tuple[int, ...] = (1, 4, 16)
    frames: int = 20
    repeats: int = 3
    seconds: float = 10.0
    paper: bool = True

    def __post_init__(self) -> None:
        for name in ("frames", "repeats"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} needs to be at least 1")
        for name in ("steps", "batches"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise ConfigError(f"{name}={list(getattr(self, name))} needs numbers from 1 on")
        if self.seconds <= 0:
            raise ConfigError(f"seconds={self.seconds} needs to be more than 0")


def bench_decode(command: str, overrides: Sequence[str]) -> None:
    """The command."""
    config = compose(command, DecodeConfig, overrides)
    world, weights = make_world(config, resolve_device(config.device))
    result = document(
        "decode",
        ["robosim", command, *overrides],
        model=config.run or config.model,
        weights=weights,
        precision=config.precision,
        threads=torch.get_num_threads(),
        device=world.device.type,
        parameters={name: count(part) for name, part in parts_of(world).items()},
        frame={"size": world.size, "tokens": world.dynamics.num_tokens},
        window=world.dynamics.config.transformer.window,
        frames=config.frames,
        repeats=config.repeats,
        clock=CLOCK,
        **measure(world, config),
    )
    title = f"{result['model']}, {world.device.type}, {config.precision}: frames/s, pixels included"
    publish(result, config.out, title, COLUMNS)


def make_world(config: DecodeConfig, device: str) -> tuple[WorldModel, str]:
    """The world model to time, and a word on its weights."""
    if config.run:
        folder = Path(config.run).expanduser().resolve()
        check_parts(folder)
        return WorldModel.load(folder, device, config.precision), "trained"
    preset = load_preset(config.model)
    torch.manual_seed(config.seed)
    with torch.device(device):
        tokenizer, latent_action, dynamics = preset.build()
    dynamics = dynamics.to(getattr(torch, config.precision))
    return WorldModel(tokenizer, latent_action, dynamics, preset.dynamics.sampling), RANDOM


def parts_of(world: WorldModel) -> dict[str, nn.Module]:
    return {
        "tokenizer": world.tokenizer,
        "latent_action": world.latent_action,
        "dynamics": world.dynamics,
    }


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def measure(world: WorldModel, config: DecodeConfig) -> dict[str, Any]:
    """The figures: `results`, a row for each number of steps, and `paper`."""
    sampling, rates, milliseconds = world.sampling, {}, {}
    total = len(config.steps) * (len(config.batches) + 1) + config.paper
    with progress("decode", total=total, unit="measurement") as bar:
        paper = None
        if config.paper:
            paper = measure_paper(world, config)
            bar.advance()
        for steps in config.steps:
            world.sampling = replace(sampling, steps=steps)
            milliseconds[steps] = measure_parts(world, config)
            bar.advance()
            for batch in config.batches:
                rates[steps, batch] = measure_rate(world, config, batch)
                bar.advance()
    world.sampling = sampling
    rows = [row_of(steps, config.batches, rates, paper) for steps in config.steps]
    rows = [row | {"milliseconds": milliseconds[row["steps"]]} for row in rows]
    return {"paper": paper, "results": rows}


def row_of(
    steps: int,
    batches: Sequence[int],
    rates: dict[tuple[int, int], float],
    paper: dict[str, Any] | None,
) -> dict[str, Any]:
    """One number of steps: frames/s of the smallest batch (1 by default), of each, and of the best."""
    best = max(batches, key=lambda batch: rates[steps, batch])
    alone = rates[steps, min(batches)]
    row = {
        "steps": steps,
        "frames_per_second": round(alone, 3),
        "best_batch": best,
        "best_frames_per_second": round(rates[steps, best], 3),
        "by_batch": {str(batch): round(rates[steps, batch], 3) for batch in batches},
    }
    if paper is not None and 1 in batches:
        # Significant digits: on a busy machine the ratio of a small model can lie far below 1.
        row["times_paper"] = float(f"{alone / paper['frames_per_second']:.4g}")
    return row


def measure_rate(world: WorldModel, config: DecodeConfig, batch: int) -> float:
    """Frames a second of `batch` rows together."""
    state, latents = begin(world, config, batch)
    seconds = fastest(lambda t: world.step(state, latents[:, t]).cpu(), config)
    return batch / seconds


def measure_parts(world: WorldModel, config: DecodeConfig) -> dict[str, float]:
    """Milliseconds of one frame at batch 1, by part."""
    state, latents = begin(world, config, 1)
    latent, dynamics = world.latent_action.snap(latents[:, 0]), world.dynamics
    draft, tokens = world.draft(state.copy(), latent), state.tokens_BN
    past = dynamics, state.cache
    parts: dict[str, Callable[[int], Any]] = {
        "draft": lambda t: world.draft(state, latent),
        "dynamics": lambda t: refine_frame(*past, latent, draft, state.generators, world.sampling),
        "commit": lambda t: commit_frame(*past, tokens, latent, draft),
        "pixels": lambda t: (world.show(state, tokens), to_uint8(state.frames).cpu()),
    }
    if draft is None:
        del parts["draft"]
    return {name: round(1000 * fastest(work, config, world.device), 3) for name, work in parts.items()}


def measure_paper(world: WorldModel, config: DecodeConfig) -> dict[str, Any]:
    """Genie's own way at batch 1, from a full window."""
    window = world.dynamics.config.transformer.window
    frames, latents = start_frames(world, config, 1, window), some_latents(world, config, 1, window)
    rollout = PaperRollout(world, frames, latents)
    seconds = fastest(lambda t: rollout.step(latents[:, t % window]).cpu(), config)
    return {
        "steps": PAPER_STEPS,
        "frames_per_pass": window,
        "frames_per_second": round(1 / seconds, 5),
        "seconds_per_frame": round(seconds, 4),
    }


def begin(world: WorldModel, config: DecodeConfig, batch: int) -> tuple[RolloutState, Tensor]:
    """Rollouts just begun (the ring is attended to as a whole, so its filling costs no time), and latent actions."""
    state = world.start(
        start_frames(world, config, batch, 1),
        generators=seeded_generators(range(config.seed, config.seed + batch)),
    )
    return state, some_latents(world, config, batch, config.frames)


def start_frames(world: WorldModel, config: DecodeConfig, batch: int, length: int) -> Tensor:
    """Noise, uint8 [batch, length, H, W, 3]."""
    generator = torch.Generator().manual_seed(config.seed)
    shape = batch, length, world.size, world.size, 3
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def some_latents(world: WorldModel, config: DecodeConfig, batch: int, length: int) -> Tensor:
    """Random latent actions [batch, length, A]."""
    generator = torch.Generator().manual_seed(config.seed + 1)
    return torch.randn(batch, length, world.latent_dim, generator=generator).clamp(-1, 1).to(world.device)


@torch.no_grad()
def fastest(work: Callable[[int], Any], config: DecodeConfig, device: torch.device | None = None) -> float:
    """Seconds of one call of `work(t)`, t = 0 … `frames` − 1: the mean of a repeat, the fastest of `repeats`.

    Ends early after `config.seconds`. `device`: to wait for, where `work` leaves its results there.
    """
    work(0)  # the first call allocates
    settle(device)
    best, begun = float("inf"), time.perf_counter()
    for _ in range(config.repeats):
        started = now = time.perf_counter()
        done = 0
        while done < config.frames and (done == 0 or now - begun < config.seconds):
            work(done)
            settle(device)
            done += 1
            now = time.perf_counter()
        best = min(best, (now - started) / done)
        if now - begun >= config.seconds:
            break
    return best


def settle(device: torch.device | None) -> None:
    """Wait until the device has done what it was given."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
