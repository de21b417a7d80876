"""`robosim bench data`: how many random clips a second are read, and what training waits for them.

The clip store and stock LeRobotDataset read the very same clips of the same episodes, on one core, in one process.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from robosim_datasets.clip_store import ClipStore, build_clip_store
from robosim_datasets.dataset_writer import DatasetWriter
from robosim_datasets.episode import Episode
from robosim_datasets.lerobot_format import video_key
from robosim_datasets.lerobot_io import VideoDataset, dataset_hash, open_dataset
from robosim_datasets.mixture import MixConfig, mix_clips
from robosim_datasets.sampler import ClipSampler

from robosim.bench.output import document, publish
from robosim.bench.training import build, fastest, random_batch, wait
from robosim.config import RunOptions, compose, resolve_device
from robosim.errors import ConfigError
from robosim.progress import progress
from robosim.spec import EnvSpec, RobotSpec, TaskSpec
from robosim.training.loop import Batch, TrainConfig, make_optimiser, micro_batches, set_up, train_step
from robosim.training.memory import keep_freed_memory
from robosim.training.presets import Preset, load_preset

SIZE = 64
"""Pixels of the made-up frames."""

BARS = {"clips_per_second": 5000, "times_lerobot": 20}
"""What the clip store is to reach at 16 frames of 64 pixels."""

PARTS = ("tokenizer", "latent_action", "dynamics")

COLUMN_ROWS = 1000
"""Different rows of a made-up column; then they repeat."""

COLUMNS = (
    "what",
    "clips_per_second",
    "milliseconds_a_clip",
    "times_lerobot",
    "seconds_a_step",
    "seconds_a_kept_step",
    "milliseconds_drawing",
    "share_waiting",
)

CLOCKS = (
    "reading: wall time of random clips of one camera, one thread on one core, everything read once before, the "
    "fastest of `repeats`; the clip store checks its files; LeRobotDataset decodes with pyav to uint8 and also reads "
    "the clip's row of the tables, and one frame of each other camera. Training: wall time of optimiser steps with "
    "drawn batches and, in turn, with one batch that is kept, the fastest of `repeats` each; share_waiting is the time "
    "in which a step's batch is drawn over that of the step"
)


@dataclass
class DataBenchConfig(RunOptions):
    """`path`: a run folder or a dataset; None writes one of `episodes` × `length` frames."""

    path: str | None = None
    episodes: int = 100
    length: int = 100
    clip_length: int = 16
    batch: int = 32
    clips: int = 3200
    lerobot_clips: int = 64
    model: str = "nano"
    steps: int = 1
    repeats: int = 5

    def __post_init__(self) -> None:
        for name in ("episodes", "clip_length", "batch", "clips", "lerobot_clips", "repeats"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} needs to be at least 1")
        if self.steps < 0:
            raise ConfigError(f"steps={self.steps} needs to be at least 0")
        if self.path is None and self.length < max(2, self.clip_length):
            raise ConfigError(
                f"length={self.length} needs to be at least 2 and clip_length={self.clip_length}"
            )


def bench_data(command: str, overrides: Sequence[str]) -> None:
    """The command."""
    config = compose(command, DataBenchConfig, overrides)
    device, preset = resolve_device(config.device), load_preset(config.model)
    with tempfile.TemporaryDirectory(prefix="robosim-bench-") as scratch:
        root, store = find_data(config, Path(scratch))
        result = document(
            "data",
            ["robosim", command, *overrides],
            dataset=facts(root, store),
            clip_length=config.clip_length,
            batch=config.batch,
            repeats=config.repeats,
            seed=config.seed,
            model=config.model,
            device=device,
            threads=torch.get_num_threads(),
            clocks=CLOCKS,
            bars=BARS,
            **measure(config, root, store, preset, device, Path(scratch)),
        )
    title = f"random clips of {config.clip_length} frames of {store.spec.size} px"
    publish(result, config.out, title, COLUMNS)


def find_data(config: DataBenchConfig, scratch: Path) -> tuple[Path, ClipStore]:
    """A dataset and its clip store: made up, or that of `path`, decoded into `scratch` where it has no store."""
    if config.path is None:
        root = write_made_up(config, scratch / "dataset")
        return root, build_clip_store(root, scratch / "clips")
    path = Path(config.path).expanduser().resolve()
    root = path / "dataset" if (path / "dataset" / "meta").is_dir() else path
    open_dataset(root)
    beside = root.parent / "clips"
    if (beside / "index.json").is_file() and (store := ClipStore(beside)).source == dataset_hash(root):
        return root, store
    return root, build_clip_store(root, scratch / "clips")


def measure(
    config: DataBenchConfig, root: Path, store: ClipStore, preset: Preset, device: str, scratch: Path
) -> dict[str, Any]:
    """The figures: `results`, a row for each reader and each part that trains."""
    keep_freed_memory()  # as training does
    parts = PARTS if config.steps else ()
    with progress("data", total=2 + len(parts), unit="measurement") as bar:
        rate = store_rate(config, store)
        bar.advance()
        stock, difference = lerobot_rate(config, root, store)
        bar.advance()
        rows = [
            reading_row("clip store", rate) | {"times_lerobot": round(rate / stock, 2)},
            reading_row("LeRobotDataset", stock),
        ]
        labelled = with_columns(store, preset, scratch / "training", config.seed) if parts else store
        for part in parts:
            rows.append(training_row(config, labelled, preset, part, device))
            bar.advance()
    return {"largest_difference_in_grey_levels": difference, "results": rows}


def reading_row(name: str, rate: float) -> dict[str, Any]:
    return {
        "what": name,
        "clips_per_second": round(rate, 2),
        "milliseconds_a_clip": round(1000 / rate, 4),
    }


def store_rate(config: DataBenchConfig, store: ClipStore) -> float:
    """Clips a second through `ClipSampler`."""
    sampler = some_clips(config, store, config.batch)
    read_once(store)
    batches = max(1, config.clips // config.batch)

    def draw() -> None:
        for step in range(batches):
            sampler(step)

    with one_core():
        draw()
        return batches * config.batch / fastest(draw, config.repeats)


def read_once(store: ClipStore) -> None:
    """Touch every frame: a page that is read for the first time costs more than later."""
    for episode in range(len(store.episodes)):
        store.frames(episode).max()


def lerobot_rate(config: DataBenchConfig, root: Path, store: ClipStore) -> tuple[float, int]:
    """Clips a second of stock LeRobotDataset, and how far its frames and the store's are apart at most."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset, key = open_dataset(root), video_key(store.spec.cameras[0])
    offsets = [frame / store.spec.fps for frame in range(config.clip_length)]
    stock = LeRobotDataset(
        "robosim/bench",
        root=root,
        video_backend="pyav",
        return_uint8=True,
        delta_timestamps={key: offsets},
    )
    clips = some_clips(config, store, config.lerobot_clips)(0)
    places = list(zip(clips["episode"].tolist(), clips["start"].tolist(), strict=True))
    numbers = [dataset.places[episode]["dataset_from_index"] + start for episode, start in places]

    def read() -> None:
        for number in numbers:
            stock[number]

    with one_core():
        read()
        rate = len(numbers) / fastest(read, config.repeats)
    difference = 0
    for number, mine in zip(numbers[:8], clips["frames"], strict=False):
        item: Any = stock[number]
        theirs = item[key].permute(0, 2, 3, 1).int()
        difference = max(difference, int((theirs - mine.int()).abs().max()))
    return rate, difference


def some_clips(config: DataBenchConfig, store: ClipStore, batch: int) -> ClipSampler:
    return ClipSampler(store, list(range(len(store.episodes))), config.clip_length, batch, config.seed)


def with_columns(store: ClipStore, preset: Preset, run: Path, seed: int) -> ClipStore:
    """`store` with the columns that the dynamics reads, of random numbers; `store` itself stays as it is."""
    mix_clips(MixConfig((str(store.path),)), run)
    labelled = ClipStore(run / "clips")
    model = build(replace(preset, size=store.spec.size), "dynamics")
    made = random_batch(preset, model, min(COLUMN_ROWS, store.num_frames), 1, seed)
    for name in set(made) - {"noise_seed"}:
        values = made[name][:, 0].numpy()
        labelled.add_column(name, np.resize(values, (store.num_frames, *values.shape[1:])), {"by": "bench"})
    return labelled


def training_row(
    config: DataBenchConfig, store: ClipStore, preset: Preset, part: str, device: str
) -> dict[str, Any]:
    """Optimiser steps of one part of a preset, with batches that are drawn and with one that is kept."""
    own = getattr(preset, part)
    train = replace(own.train, steps=2 + 2 * config.steps * config.repeats)
    torch.manual_seed(config.seed)
    with torch.device(device):
        model = build(replace(preset, size=store.spec.size), part)
    columns = ("frames",) if part != "dynamics" else ("tokens", "latent_action")
    if part == "dynamics" and own.model.draft:
        columns = (*columns, "draft")
    episodes = list(range(len(store.episodes)))
    sampler = ClipSampler(store, episodes, own.clip_length, train.batch, config.seed, columns)
    steps = Steps(set_up(model, train, device), sampler, train, device)
    steps.drawn(1)
    steps.kept(1)
    read_once(store)
    drawn, kept = [], []
    for _ in range(config.repeats):  # in turn: what slows the machine down meets both
        drawn.append(steps.drawn(config.steps))
        kept.append(steps.kept(config.steps))
    seconds, drawing = min(pair[0] for pair in drawn), min(pair[1] for pair in drawn)
    return {
        "what": f"{preset.name} {part}, batch {train.batch} × {own.clip_length}",
        "seconds_a_step": round(seconds / config.steps, 5),
        "seconds_a_kept_step": round(min(kept) / config.steps, 5),
        "milliseconds_drawing": round(1000 * drawing / config.steps, 4),
        "share_waiting": round(drawing / seconds, 5),
    }


class Steps:
    """Optimiser steps, as the training loop takes them."""

    def __init__(self, model: torch.nn.Module, sampler: ClipSampler, train: TrainConfig, device: str) -> None:
        self._model, self._sampler, self._train, self._device = model, sampler, train, device
        self._optimiser, self._rows = make_optimiser(model, train), micro_batches(train)
        self._done = 0
        self._batch = self._draw()

    def drawn(self, count: int) -> tuple[float, float]:
        """Seconds of `count` steps, and those of them in which batches were drawn."""
        drawing = 0.0

        def draw() -> list[Batch]:
            nonlocal drawing
            started = time.perf_counter()
            parts = self._draw()
            drawing += time.perf_counter() - started
            return parts

        seconds = self._take(count, draw)
        return seconds, drawing

    def kept(self, count: int) -> float:
        """Seconds of `count` steps on one batch."""
        return self._take(count, lambda: self._batch)

    def _draw(self) -> list[Batch]:
        return [self._sampler(self._done, part) for part in self._rows]

    def _take(self, count: int, batch: Callable[[], list[Batch]]) -> float:
        started = time.perf_counter()
        for _ in range(count):
            train_step(self._model, batch(), self._optimiser, self._train, self._done, self._device)
            self._done += 1
        wait(self._device)
        return time.perf_counter() - started


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this thread, and those that it starts, on one core where the system can, and torch on one thread."""
    threads = torch.get_num_threads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else set()
    torch.set_num_threads(1)
    if cores:
        os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        if cores:
            os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)


def facts(root: Path, store: ClipStore) -> dict[str, Any]:
    """What was read."""
    dataset = open_dataset(root)
    return {
        "episodes": len(store.episodes),
        "frames": store.num_frames,
        "size": store.spec.size,
        "cameras": len(store.spec.cameras),
        "video_mb": round(video_megabytes(dataset), 2),
        "decoded_mb": round(store.num_frames * len(store.spec.cameras) * store.spec.size**2 * 3 / 1e6, 1),
    }


def video_megabytes(dataset: VideoDataset) -> float:
    return sum(file["bytes"] for name, file in dataset.files.items() if name.startswith("videos/")) / 1e6


def write_made_up(config: DataBenchConfig, root: Path) -> Path:
    """A dataset of discs that move over a textured table, with a state and a command of seven joints."""
    joints = tuple(f"joint_{number}" for number in range(1, 8))
    robot = RobotSpec("bench", joints, ("rad",) * 7, (-3.0,) * 7, (3.0,) * 7)
    task = TaskSpec("bench", "move the disc", config.length, 0.0, "none")
    spec = EnvSpec(robot, (task,), cameras=("front",), size=SIZE, labels=("state", "action"))
    generator = np.random.default_rng(config.seed)
    with (
        DatasetWriter(root, spec, {"made_up": {"seed": config.seed}}) as writer,
        progress("write", config.episodes, "episode") as bar,
    ):
        for _ in range(config.episodes):
            writer.add(made_up_episode(generator, config.length, len(joints)))
            bar.advance()
    return root


def made_up_episode(generator: np.random.Generator, length: int, joints: int) -> Episode:
    """One disc's random walk; joints and commands are another."""
    path = np.cumsum(generator.normal(0, 1.5, (length, 2)), 0) + generator.uniform(16, 48, 2)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    table = np.stack([90 + rows, 80 + columns, 120 - rows // 2], -1) + generator.integers(
        -6, 7, (SIZE, SIZE, 3)
    )
    frames = np.repeat(table[None], length, 0).astype(np.uint8)
    distance = np.hypot(rows - path[:, 0, None, None], columns - path[:, 1, None, None])
    frames[distance < 7] = (220, 70, 40)
    angles = np.cumsum(generator.normal(0, 0.02, (length, joints)), 0).astype(np.float32)
    return Episode(
        frames={"front": frames},
        state=angles,
        action=angles,
        environment_state=np.zeros((length, 0), np.float32),
        reward=np.zeros(length, np.float32),
        success=np.zeros(length, np.bool_),
        task="bench",
        instruction="move the disc",
        behaviour="made up",
        split="train",
        seed=0,
    )
