"""`collect`: episodes from MuJoCo into a LeRobotDataset, on all cores, the same whatever their number."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from robosim_datasets.episode import Episode
from robosim_datasets.lerobot_io import DatasetWriter

from robosim.checkpoint import json_hash, prepare_folder
from robosim.errors import ConfigError
from robosim.physics.recording import Recorder
from robosim.physics.robots import get_robot
from robosim.physics.shards import load_shard
from robosim.physics.tasks import TASKS, get_task, make_spec
from robosim.physics.workers import EpisodePlan, record_shard, recording_processes
from robosim.progress import progress


@dataclass
class CollectConfig:
    """What to collect."""

    robot: str = "panda"
    tasks: tuple[str, ...] = tuple(TASKS)
    episodes: int = 340
    """Train and val together, dealt out to the tasks in turn."""
    expert_share: float = 0.5
    """Share of scripted experts among the episodes of each task; the others explore."""
    val_fraction: float = 0.12
    size: int = 64
    """Pixels along each side of a frame."""
    workers: int = 0
    """Processes; 0: one a core. The result doesn't depend on it."""
    seed: int = 0

    def __post_init__(self) -> None:
        get_robot(self.robot)
        for name in self.tasks:
            get_task(name)
        if not self.tasks:
            raise ConfigError(f"tasks is empty; name some of: {', '.join(TASKS)}")
        if self.episodes < 1 or self.size < 16 or self.size % 16 or self.workers < 0:
            raise ConfigError(
                "collect needs episodes ≥ 1, workers ≥ 0, and a size that is a multiple of 16 pixels"
            )
        if not (0 <= self.expert_share <= 1 and 0 <= self.val_fraction < 1):
            raise ConfigError("collect needs 0 ≤ expert_share ≤ 1 and 0 ≤ val_fraction < 1")


def plan_episodes(config: CollectConfig) -> list[EpisodePlan]:
    """All episodes, train first; within a split the tasks take turns and each has its share of experts."""
    num_val = round(config.episodes * config.val_fraction)
    if config.val_fraction > 0 and config.episodes > 1:
        num_val = max(num_val, 1)
    plans = []
    for split, count in (("train", config.episodes - num_val), ("val", num_val)):
        for place in range(count):
            turn = place // len(config.tasks)
            expert = int((turn + 1) * config.expert_share) > int(turn * config.expert_share)
            index = len(plans)
            plans.append(
                EpisodePlan(
                    index=index,
                    task=config.tasks[place % len(config.tasks)],
                    behaviour="expert" if expert else "explore",
                    split=split,
                    seed=int(np.random.SeedSequence((config.seed, index)).generate_state(1)[0]),
                )
            )
    return plans


def collect(config: CollectConfig, out: Path) -> dict[str, Any]:
    """Record every planned episode and write the dataset to `out`; return the figures.

    Finished episodes wait in `<out>.shards/` until the dataset is complete: after Ctrl-C or a crash the same
    configuration goes on from them. An older dataset at `out` stays until the new one replaces it.
    """
    started = time.monotonic()
    out = Path(out)
    plans = plan_episodes(config)
    shards = out.with_name(f"{out.name}.shards") / json_hash(_identity(config))[:16]
    prepare_folder(shards)
    missing = [plan for plan in plans if not _shard(shards, plan).exists()]
    # Made before the workers, so that a cold machine compiles the renderer once and not once a process.
    recorder = Recorder(config.robot, config.size)
    recorded = _record_missing(config, shards, missing, done=len(plans) - len(missing))
    seconds = time.monotonic() - started
    figures = _write(config, out, plans, shards, recorder)
    shutil.rmtree(shards.parent, ignore_errors=True)
    return figures | {"frames_per_second": round(recorded / seconds, 1) if recorded else None}


def _identity(config: CollectConfig) -> dict[str, Any]:
    """What the result depends on: everything but the number of processes."""
    return {name: value for name, value in asdict(config).items() if name != "workers"}


def _shard(folder: Path, plan: EpisodePlan) -> Path:
    return folder / f"episode_{plan.index:06d}.npz"


def _record_missing(config: CollectConfig, shards: Path, plans: list[EpisodePlan], done: int) -> int:
    """Record `plans` on several processes; return the number of frames."""
    if not plans:
        return 0
    workers = min(config.workers or len(os.sched_getaffinity(0)), len(plans))
    frames = 0
    with (
        progress("collect", total=done + len(plans), unit="episode", done=done) as bar,
        recording_processes(workers, config.robot, config.size) as pool,
    ):
        jobs = [pool.submit(record_shard, plan, _shard(shards, plan)) for plan in plans]
        for job in as_completed(jobs):
            frames += job.result()
            bar.advance(1, frames=frames)
    return frames


def _write(
    config: CollectConfig, out: Path, plans: list[EpisodePlan], shards: Path, recorder: Recorder
) -> dict[str, Any]:
    """Put the shards together, in the order of the plan; one that turns out damaged is recorded again."""
    assert recorder.renderer is not None
    provenance = {
        "source": "robosim collect",
        "renderer": recorder.renderer.provenance(),
        "config": _identity(config),
    }
    tally = _Tally()
    spec = make_spec(config.robot, config.tasks, config.size)
    with (
        DatasetWriter(out, spec, provenance, replace=True) as writer,
        progress("write dataset", total=len(plans), unit="episode") as bar,
    ):
        for plan in plans:
            episode = load_shard(_shard(shards, plan))
            if episode is None:
                episode = recorder.record(plan.task, plan.behaviour, plan.seed, plan.split)
            writer.add(episode)
            tally.count(episode)
            bar.advance(1)
    return tally.figures()


class _Tally:
    """Counts for the stage's summary."""

    def __init__(self) -> None:
        self._episodes: list[tuple[str, str, int, bool]] = []

    def count(self, episode: Episode) -> None:
        self._episodes.append((episode.task, episode.behaviour, episode.length, bool(episode.success.any())))

    def figures(self) -> dict[str, Any]:
        successes: dict[str, dict[str, Any]] = {}
        for task, behaviour, _, success in self._episodes:
            entry = successes.setdefault(f"{task}.{behaviour}", {"episodes": 0, "successes": 0})
            entry["episodes"] += 1
            entry["successes"] += success
        frames = sum(length for _, _, length, _ in self._episodes)
        return {"episodes": len(self._episodes), "frames": frames, "outcomes": successes}
