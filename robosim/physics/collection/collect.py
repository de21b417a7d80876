"""`collect`: episodes from MuJoCo into a LeRobotDataset, on all cores or machines, the same whatever their number."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from robosim_datasets.episode_shards import load_shard, shard_path
from robosim_datasets.lerobot_io import DatasetWriter

from robosim.checkpoint import content_name, json_hash, prepare_folder
from robosim.config import FILE_CHOICES
from robosim.errors import ConfigError
from robosim.physics.collection.workers import EpisodePlan, RecorderSetup, record_on_processes
from robosim.physics.recording import Behaviour, Recorder
from robosim.physics.rendering.renderer import RendererKind
from robosim.physics.tasks import TASKS, load_task_file, make_spec
from robosim.physics.variation import Variation
from robosim.progress import progress

HANDS = ("workers", "launcher", "ray_address")
"""Keys that say who records, and change nothing in what is recorded."""

WRITTEN_AT_ONCE = 2
"""Episodes that are written whenever one has been recorded. Writing takes 0.3 ms a frame, recording about 10 on
one core: done afterwards, it would be 5 % of a collection on 2 cores, and a third on 16."""


@dataclass(frozen=True)
class Mix:
    """Shares of the behaviours among the episodes of each task; only their proportions count."""

    expert: float = 0.5
    noisy: float = 0.0
    """Experts whose hand trembles."""
    stopped: float = 0.0
    """Experts that give up half-way."""
    explore: float = 0.5

    def __post_init__(self) -> None:
        shares = asdict(self).values()
        if min(shares) < 0 or sum(shares) <= 0:
            raise ConfigError("mix needs shares of at least 0, one of them above it")

    def deal(self) -> Iterator[Behaviour]:
        """Behaviours without end: each time the one that has fallen behind its share the most."""
        shares: dict[Behaviour, float] = asdict(self)  # pyright: ignore[reportAssignmentType]
        owed = dict.fromkeys(shares, 0.0)
        while True:
            for name, share in shares.items():
                owed[name] += share
            chosen = max(owed, key=lambda name: owed[name])
            owed[chosen] -= sum(shares.values())
            yield chosen


@dataclass
class CollectConfig:
    """What to collect."""

    robot: str = "panda"
    tasks: tuple[str, ...] = tuple(TASKS)
    episodes: int = 340
    """Train and val together, dealt out to the tasks in turn."""
    mix: Mix = field(default_factory=Mix)
    """How the episodes of each task are made."""
    frames: int | None = None
    """Frames of an episode; an expert's ends with its success. None: as many as the task's horizon allows."""
    variation: Variation = field(default_factory=Variation)
    """What differs from episode to episode beside the start."""
    cameras: tuple[str, ...] = ("front",)
    renderer: RendererKind = "warp"
    """What draws the frames: a ray tracer that needs no system package, or OpenGL."""
    task_file: str | None = None
    """A Python file that registers tasks of one's own."""
    val_fraction: float = 0.12
    size: int = 64
    """Pixels along each side of a frame."""
    workers: int = 0
    """Processes; 0: one a core. The result depends on none of `HANDS`."""
    launcher: Literal["processes", "ray"] = "processes"
    """Who runs them: this machine, or a Ray cluster."""
    ray_address: str | None = None
    """Of a running Ray cluster; None starts one on this machine."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.task_file:
            load_task_file(self.task_file)
        make_spec(self.robot, self.tasks, self.size, self.cameras)
        for name in ("tasks", "cameras"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ConfigError(f"{name}={list(values)} needs at least one name, and none twice")
        if self.episodes < 1:
            raise ConfigError(f"episodes={self.episodes} needs to be at least 1")
        if self.frames is not None and self.frames < 2:
            raise ConfigError(f"frames={self.frames} needs to be at least 2; null: up to the task's horizon")
        if self.workers < 0:
            raise ConfigError(f"workers={self.workers} needs to be at least 0")
        if self.size < 16 or self.size % 16:
            raise ConfigError(f"size={self.size} needs to be a multiple of 16 (pixels)")
        if self.launcher == "ray":
            from robosim.physics.collection.ray_launcher import import_ray

            import_ray()
        if not 0 <= self.val_fraction < 1:
            raise ConfigError(f"val_fraction={self.val_fraction} needs to be at least 0 and below 1")


def plan_episodes(config: CollectConfig) -> list[EpisodePlan]:
    """All episodes, train first; within a split the tasks take turns and each has its share of behaviours."""
    num_val = round(config.episodes * config.val_fraction)
    if config.val_fraction > 0 and config.episodes > 1:
        num_val = max(num_val, 1)
    plans = []
    for split, count in (("train", config.episodes - num_val), ("val", num_val)):
        deals = {task: config.mix.deal() for task in config.tasks}
        for place in range(count):
            index, task = len(plans), config.tasks[place % len(config.tasks)]
            plans.append(
                EpisodePlan(
                    index=index,
                    task=task,
                    behaviour=next(deals[task]),
                    split=split,
                    seed=int(np.random.SeedSequence((config.seed, index)).generate_state(1)[0]),
                )
            )
    return plans


def collect(config: CollectConfig, out: Path, resume: bool = True) -> dict[str, Any]:
    """Record every planned episode and write the dataset to `out`; return the figures.

    Finished episodes wait in `<out>.shards/` until the dataset is complete: after Ctrl-C or a crash the same
    configuration goes on from them, unless `resume` is false. An older dataset at `out` stays until the new one
    replaces it.
    """
    started = time.monotonic()
    out = Path(out)
    plans = plan_episodes(config)
    waiting = out.with_name(f"{out.name}.shards")
    if not resume:
        shutil.rmtree(waiting, ignore_errors=True)
    shards = prepare_folder(waiting / json_hash(_identity(config))[:16])
    setup = RecorderSetup(
        config.robot,
        config.size,
        config.cameras,
        config.variation,
        config.renderer,
        config.task_file,
        config.frames,
    )
    missing = [plan for plan in plans if not shard_path(shards, plan.index).exists()]
    # Before the processes, so that a cold machine compiles the renderer once and not once a process.
    recorder = setup.recorder()
    renderers = [recorder.setting(task, plans[0].seed).renderer for task in config.tasks]
    assert renderers[0] is not None
    provenance = {
        "source": "robosim collect",
        "renderer": renderers[0].provenance(),
        "config": _identity(config),
    }
    spec = make_spec(config.robot, config.tasks, config.size, config.cameras)
    with DatasetWriter(out, spec, provenance, replace=True) as writer:
        assembly = _Assembly(writer, recorder, plans, shards)
        recorded = _record_missing(config, setup, shards, missing, assembly)
        seconds = time.monotonic() - started
        assembly.finish()
    shutil.rmtree(waiting, ignore_errors=True)
    return assembly.figures() | {
        "frames_per_second": round(recorded / seconds, 1) if recorded else None,
        "recording_seconds": round(seconds, 1),
        "writing_seconds": round(time.monotonic() - started - seconds, 1),
    }


def _identity(config: CollectConfig) -> dict[str, Any]:
    """What the result depends on: everything but who records it."""
    asked = {name: value for name, value in asdict(config).items() if name not in HANDS}
    files = {name: Path(asked[name]) for name in FILE_CHOICES if asked[name]}
    return asked | {name: content_name(file) for name, file in files.items() if file.is_file()}


def _record_missing(
    config: CollectConfig,
    setup: RecorderSetup,
    shards: Path,
    plans: list[EpisodePlan],
    assembly: _Assembly,
) -> int:
    """Record `plans` and write what is next in turn meanwhile; return the number of frames."""
    if not plans:
        return 0
    if config.launcher == "ray":
        from robosim.physics.collection.ray_launcher import record_on_ray

        finished = record_on_ray(setup, plans, shards, config.workers, config.ray_address)
    else:
        workers = min(config.workers or len(os.sched_getaffinity(0)), len(plans))
        finished = record_on_processes(setup, plans, shards, workers)
    frames, started = 0, time.monotonic()
    with (
        closing(finished),
        progress("collect", total=assembly.total, unit="episode", done=assembly.total - len(plans)) as bar,
    ):
        for length in finished:
            frames += length
            bar.advance(1, **{"frames/s": frames / (time.monotonic() - started)})
            assembly.write_some()
    return frames


class _Assembly:
    """Puts the shards into the dataset, in the order of the plan, as far as they are there."""

    def __init__(
        self, writer: DatasetWriter, recorder: Recorder, plans: list[EpisodePlan], shards: Path
    ) -> None:
        self._writer, self._recorder = writer, recorder
        self._plans, self._shards = plans, shards
        self._written = self._frames = 0
        self._outcomes: dict[str, dict[str, int]] = {}

    @property
    def total(self) -> int:
        return len(self._plans)

    def write_some(self) -> None:
        """Write the next episodes: few enough to keep nobody waiting, more than one so that a backlog shrinks."""
        for _ in range(WRITTEN_AT_ONCE):
            if self._written == self.total or not shard_path(self._shards, self._written).exists():
                return
            self._write_next()

    def finish(self) -> None:
        """Write all that is left."""
        with progress("write dataset", total=self.total, unit="episode", done=self._written) as bar:
            while self._written < self.total:
                self._write_next()
                bar.advance(1)

    def figures(self) -> dict[str, Any]:
        """Counts for the stage's summary."""
        return {"episodes": self._written, "frames": self._frames, "outcomes": self._outcomes}

    def _write_next(self) -> None:
        plan = self._plans[self._written]
        episode = load_shard(shard_path(self._shards, plan.index))
        if episode is None:  # a shard that was damaged since
            episode = self._recorder.record(plan.task, plan.behaviour, plan.seed, plan.split)
        self._writer.add(episode)
        entry = self._outcomes.setdefault(f"{plan.task}.{plan.behaviour}", {"episodes": 0, "successes": 0})
        entry["episodes"] += 1
        entry["successes"] += bool(episode.success.any())
        self._frames += episode.length
        self._written += 1
