"""`robosim bench experts`: how often the scripted expert of every task × arm succeeds from unseen starts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from robosim.bench.cells import Cell, cells, labels, processes
from robosim.bench.output import document, publish
from robosim.config import RunOptions, compose
from robosim.errors import ConfigError
from robosim.evaluation.processes import run_jobs
from robosim.evaluation.statistics import wilson_interval
from robosim.physics.recording import Recorder
from robosim.physics.variation import Variation
from robosim.progress import progress

CHUNK = 5
"""Episodes that a process plays at a time."""

COLUMNS = (
    "task",
    "robot",
    "episodes",
    "successes",
    "rate",
    "interval",
    "mean_frames",
    "measures",
    "warnings",
)


@dataclass
class ExpertsConfig(RunOptions):
    """`task`, `robot`: None for all that exist. `seed`: of the first episode; no test uses one from 50000 on."""

    seed: int = 50_000
    task: str | None = None
    robot: str | None = None
    task_file: str | None = None
    variation: Variation = field(default_factory=Variation)
    episodes: int = 100
    workers: int = 0

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ConfigError(f"episodes={self.episodes} needs to be at least 1")


@dataclass(frozen=True)
class Outcome:
    """How one episode went: whether it succeeded, its frames, the last task distance (metres)."""

    seed: int
    success: bool
    frames: int
    distance: float
    measures: dict[str, float]
    warnings: int


def bench_experts(command: str, overrides: Sequence[str]) -> None:
    """The command."""
    config = compose(command, ExpertsConfig, overrides)
    able, unable = cells(config.task, config.robot, config.task_file)
    rows = measure_experts(config, able)
    result = document(
        "experts",
        ["robosim", command, *overrides],
        seed=config.seed,
        variation=asdict(config.variation),
        confidence=0.95,
        results=rows,
        unsupported=labels(unable),
    )
    publish(result, config.out, f"experts, {config.episodes} unseen seeds each", COLUMNS)


def measure_experts(config: ExpertsConfig, able: Sequence[Cell]) -> list[dict[str, Any]]:
    """One row a cell. The result doesn't depend on the number of processes."""
    seeds = range(config.seed, config.seed + config.episodes)
    jobs = [(cell, seeds[start : start + CHUNK]) for cell in able for start in range(0, len(seeds), CHUNK)]
    workers = min(processes(config.workers), len(jobs))
    with progress("experts", total=len(able) * len(seeds), unit="episode") as bar:
        done = run_jobs(functools.partial(Player, config.variation), jobs, workers, bar)
    outcomes: dict[Cell, list[Outcome]] = {cell: [] for cell in able}
    for (cell, _), part in zip(jobs, done, strict=True):
        outcomes[cell] += part
    return [cell.label | summarise(played) for cell, played in outcomes.items()]


class Player:
    """Plays experts' episodes without pictures; a process holds one."""

    def __init__(self, variation: Variation) -> None:
        self._recorder = functools.cache(lambda robot: Recorder(robot, size=None, variation=variation))

    def do(self, job: tuple[Cell, Sequence[int]], on_finish: Callable[[int], None]) -> list[Outcome]:
        cell, seeds = job
        cell.load()
        outcomes = []
        for seed in seeds:
            recorder = self._recorder(cell.robot)
            track = recorder.simulate(recorder.setting(cell.task, seed), "expert", seed)
            outcomes.append(
                Outcome(
                    seed,
                    bool(track.success[-1]),
                    len(track.state),
                    float(track.distance[-1]),
                    track.measures,
                    track.warnings,
                )
            )
            on_finish(1)
        return outcomes


def summarise(played: Sequence[Outcome]) -> dict[str, Any]:
    """The figures of one cell."""
    successes = sum(outcome.success for outcome in played)
    interval = wilson_interval(successes, len(played))
    return {
        "episodes": len(played),
        "successes": successes,
        "rate": successes / len(played),
        "interval": [round(interval.low, 4), round(interval.high, 4)],
        "mean_frames": float(np.mean([outcome.frames for outcome in played])),
        "mean_final_distance_m": float(np.mean([outcome.distance for outcome in played])),
        "measures": {
            name: float(np.mean([outcome.measures[name] for outcome in played]))
            for name in played[0].measures
        },
        "warnings": sum(outcome.warnings for outcome in played),
        "failed_seeds": [outcome.seed for outcome in played if not outcome.success],
    }
