"""`robosim bench train`: tokens a second, model FLOPs utilisation and peak memory of one part of a preset.

Real training steps on one random batch that is kept: what is timed is training alone, without reading clips.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from robosim.bench.output import document, publish
from robosim.config import RunOptions, compose, resolve_device
from robosim.errors import ConfigError
from robosim.training.ema import WeightAverage
from robosim.training.loop import Batch, TrainConfig, make_optimiser, micro_batches, set_up, train_step
from robosim.training.memory import keep_freed_memory
from robosim.training.presets import Preset, load_preset
from robosim.world_model.dynamics import Dynamics
from robosim.world_model.latent_action import LatentActionModel
from robosim.world_model.st_transformer import STTransformer
from robosim.world_model.tokenizer import Tokenizer
from robosim.world_model.world import make_dynamics

DATA_SHEET = {"H100": 989.0, "H200": 989.0}
"""Dense bfloat16 TFLOP/s that the maker states, by a part of the device's name."""

PEAK_SIZES = (1024, 2048, 4096)
"""Sides of the square matrices whose product is timed for the measured peak."""

COLUMNS = (
    "model",
    "part",
    "parameters",
    "batch",
    "accumulate",
    "clip_length",
    "precision",
    "tokens_per_second",
    "tflops",
    "mfu",
    "peak_memory_gb",
)

CLOCKS = (
    "wall time of `steps` optimiser steps (data to the device, forward and backward of all `accumulate` parts of the "
    "batch, clipping, AdamW, averaged weights), the fastest of `repeats`, after two steps that aren't timed; MFU = "
    "arithmetic of the model (recomputation not counted) over seconds × peak; peak memory: the allocator's "
    "on a GPU, the whole process's on a CPU"
)


@dataclass
class TrainBenchConfig(RunOptions):
    """None leaves a value to the preset."""

    model: str = "tiny"
    part: Literal["dynamics", "tokenizer", "latent_action"] = "dynamics"
    batch: int | None = None
    accumulate: int | None = None
    clip_length: int | None = None
    steps: int = 3
    repeats: int = 5
    precision: Literal["float32", "bfloat16"] | None = None
    recompute_every: int | None = None
    compile: bool | None = None
    peak_tflops: float | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "repeats", "batch", "accumulate", "clip_length", "threads", "peak_tflops"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name}={value} needs to be above 0")


def bench_train(command: str, overrides: Sequence[str]) -> None:
    """The command."""
    config = compose(command, TrainBenchConfig, overrides)
    device = resolve_device(config.device)
    threads = torch.get_num_threads()
    try:
        if config.threads:
            torch.set_num_threads(config.threads)
        result = document(
            "train",
            ["robosim", command, *overrides],
            device=device,
            threads=torch.get_num_threads(),
            steps=config.steps,
            repeats=config.repeats,
            clocks=CLOCKS,
            results=[measure(config, load_preset(config.model), device)],
        )
    finally:
        torch.set_num_threads(threads)
    publish(result, config.out, f"training on {device}, {result['threads']} threads", COLUMNS)


def measure(config: TrainBenchConfig, preset: Preset, device: str) -> dict[str, Any]:
    """The figures of one part."""
    keep_freed_memory()
    own = getattr(preset, config.part)
    clip_length = config.clip_length or own.clip_length
    train = settings(config, own.train)
    rows = micro_batches(train)
    torch.manual_seed(config.seed)
    with torch.device(device):
        model = build(preset, config.part)
    batch = random_batch(preset, model, train.batch, clip_length, config.seed)
    parts = [{name: value[part] for name, value in batch.items()} for part in rows]
    tokens = train.batch * clip_length * num_tokens(preset)
    flops = sum(training_flops(model, part, device, train.precision) for part in parts)
    trained = set_up(model, train, device)
    optimiser = make_optimiser(trained, train)
    average = WeightAverage(trained, train.ema) if train.ema else None
    done = 0

    def some_steps(count: int) -> None:
        nonlocal done
        for _ in range(count):
            train_step(trained, parts, optimiser, train, done, device)
            if average:
                average.update(done)
            done += 1
        wait(device)

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    some_steps(2)
    seconds = fastest(lambda: some_steps(config.steps), config.repeats) / config.steps
    memory = peak_memory(device)  # before the peak rate, whose matrices would count
    peak, source = peak_rate(config, train.precision, device)
    return {
        "model": preset.name,
        "part": config.part,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "batch": train.batch,
        "accumulate": train.accumulate,
        "clip_length": clip_length,
        "tokens_per_frame": num_tokens(preset),
        "precision": train.precision,
        "recompute_every": train.recompute_every,
        "compile": train.compile,
        "ema": train.ema,
        "seconds_per_step": seconds,
        "tokens_per_second": tokens / seconds,
        "frames_per_second": train.batch * clip_length / seconds,
        "tflop_per_step": flops / 1e12,
        "tflops": flops / seconds / 1e12,
        "peak_tflops": peak,
        "peak_from": source,
        "mfu": flops / seconds / 1e12 / peak,
        "peak_memory_gb": memory,
    }


def settings(config: TrainBenchConfig, own: TrainConfig) -> TrainConfig:
    """The preset's training with what the benchmark sets, and room for its steps."""
    names = ("batch", "accumulate", "precision", "recompute_every", "compile")
    chosen = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    return replace(own, steps=2 + config.steps * config.repeats, **chosen)


def build(preset: Preset, part: str) -> nn.Module:
    """The part alone, with random weights."""
    if part == "tokenizer":
        return Tokenizer(preset.tokenizer.model, preset.size)
    if part == "latent_action":
        return LatentActionModel(preset.latent_action.model, preset.size)
    with torch.device("meta"):
        tokenizer = Tokenizer(preset.tokenizer.model, preset.size)
        latent_action = LatentActionModel(preset.latent_action.model, preset.size)
    return make_dynamics(preset.dynamics.model, tokenizer, latent_action)


def num_tokens(preset: Preset) -> int:
    return (preset.size // preset.tokenizer.model.patch) ** 2


def random_batch(preset: Preset, model: nn.Module, batch: int, clip_length: int, seed: int) -> Batch:
    """A batch of the shapes that training has. Speed doesn't depend on what is in it."""
    generator = torch.Generator().manual_seed(seed)
    made: dict[str, Tensor] = {"noise_seed": torch.arange(batch)}
    if isinstance(model, Dynamics):
        shape = batch, clip_length, model.num_tokens
        made["tokens"] = torch.randint(model.digits.num_codes, shape, generator=generator, dtype=torch.int16)
        made["latent_action"] = torch.randn(batch, clip_length, model.latent_dim, generator=generator)
        if model.config.draft:
            made["draft"] = torch.randn(*shape, model.draft_features, generator=generator).half()
    else:
        shape = batch, clip_length, preset.size, preset.size, 3
        made["frames"] = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    return made


def training_flops(model: nn.Module, batch: Batch, device: str, precision: str) -> float:
    """Arithmetic of a training step: three times that of the forward pass (one there, two back).

    The dynamics' forward pass is counted by formula, with as many masked tokens as this batch has; that of the other
    parts, whose convolutions have no short one, by PyTorch's counter.
    """
    if isinstance(model, Dynamics):
        clips, frames = batch["tokens"].shape[:2]
        masked = int(model.training_mask(batch["noise_seed"], frames).sum())
        return 3.0 * dynamics_flops(model, clips, frames, masked)
    model.to(device)
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
        return 3.0 * counted_flops(lambda: model({name: value.to(device) for name, value in batch.items()}))


def counted_flops(work: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products and convolutions in `work`, attention written out."""
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        work()
    return counter.get_total_flops()


def dynamics_flops(model: Dynamics, batch: int, time: int, masked: int) -> int:
    """Floating-point operations of a forward pass on [batch, time] frames, a product and a sum counting as two.

    A token's matrix products are its weights twice: 2 (draft features × D) at the input, then in every block
    2 · 4D² for the attention within the frame, as much for that over time where the block has one, and 2 · 2fD² for
    the feed-forward of ratio f. Attention itself is queries × keys and weights × values, 2 · 2ND a token within a
    frame of N locations, 2 · 2TD over a clip of T frames (all of them, also where the band hides some). The latent
    action costs 2AD a frame, each modulated norm 2 · 2D² a frame, and the head 2DV a *masked* token; there the
    draft's prior takes 2 · 2CD for its widths and 2 · 2CV for its distances to all codes.
    """
    dim = model.config.transformer.dim
    frames = batch * time
    body = frames * transformer_flops(model.body, time)
    features = model.draft_features * model.num_tokens if model.config.draft else 0
    inputs = 2 * frames * dim * (features + model.latent_dim)
    return body + inputs + masked * (2 * dim * model.head.out_features + prior_flops(model))


def prior_flops(model: Dynamics) -> int:
    """What the draft's prior costs a masked token, see `dynamics_flops`."""
    if not model.config.has_prior:
        return 0
    widths = model.draft_prior.sharpness
    products = 2 * widths.in_features * widths.out_features
    if model.config.prediction == "digits":
        return products
    # Both drafts' pull, and what holds a code back: each C numbers with every code.
    return products + 2 * model.draft_features * model.digits.num_codes


def transformer_flops(transformer: STTransformer, time: int) -> int:
    """Floating-point operations a frame of a clip of `time` frames, see `dynamics_flops`."""
    config, locations = transformer.config, transformer.locations
    dim, hidden = config.dim, int(config.dim * config.feedforward)
    blocks, temporal = config.layers, transformer.temporal_layers
    products = 8 * dim * dim * (blocks + temporal) + 4 * dim * hidden * blocks
    attention = 4 * dim * (locations * blocks + time * temporal)
    norms = 2 * blocks + temporal + 1 if transformer.modulated else 0
    return locations * (products + attention) + norms * 4 * dim * dim


def peak_rate(config: TrainBenchConfig, precision: str, device: str) -> tuple[float, str]:
    """TFLOP/s that count as 100 %, and where they come from."""
    if config.peak_tflops:
        return config.peak_tflops, "peak_tflops="
    if device == "cuda" and precision == "bfloat16":
        for name, peak in DATA_SHEET.items():
            if name in torch.cuda.get_device_name():
                return peak, f"data sheet of the {name}, dense bfloat16"
    return measured_peak(precision, device), f"largest {precision} matrix product of this run"


def measured_peak(precision: str, device: str) -> float:
    """TFLOP/s of the fastest square matrix product."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    rates = []
    for size in PEAK_SIZES:
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

        def multiply(a: Tensor = a, b: Tensor = b) -> None:
            torch.mm(a, b)
            wait(device)

        multiply()
        rates.append(2 * size**3 / fastest(multiply, 5) / 1e12)
    return max(rates)


def fastest(work: Callable[[], None], repeats: int) -> float:
    """Seconds of wall time, the fewest of `repeats`."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_memory(device: str) -> float:
    """Gigabytes (2^30 bytes)."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
