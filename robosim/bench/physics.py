"""`robosim bench physics`: how fast every task × arm is simulated and rendered, and a sheet to look at them."""

from __future__ import annotations

import functools
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np

from robosim.bench.cells import Cell, cells, labels, processes
from robosim.bench.output import document, publish
from robosim.bench.sheet import contact_sheet, save_sheet
from robosim.config import RunOptions, compose
from robosim.errors import ConfigError, RobosimError
from robosim.physics.recording import Recorder, Track
from robosim.progress import progress
from robosim.spec import CONTROL_HZ

SIZES = (64, 128)
"""Pixels along each side of a frame."""

COLUMNS = (
    "task",
    "robot",
    "control_steps_per_second",
    "render_ms_64",
    "render_ms_128",
    "frames_per_second_core",
    "frames_per_second_all",
)

CLOCKS = (
    "one-core figures are CPU time of one process (time.process_time), those of all cores wall time between barriers; "
    "compiling scenes and kernels, and a process's first picture, are left out of both; everything is timed `repeats` "
    "times and the fastest counts, since other users of the machine can only slow it down"
)

RETREAT = 12
"""Control periods after success that the sheet's episode goes on for: the hand leaves, and what it did can be seen."""

WAIT = 600.0
"""Seconds after which a process that hasn't reached the barrier is given up."""


@dataclass
class PhysicsConfig(RunOptions):
    """`task`, `robot`: None for all that exist; `episodes` of the expert are measured a cell (and a core)."""

    seed: int = 50_000
    task: str | None = None
    robot: str | None = None
    task_file: str | None = None
    episodes: int = 3
    repeats: int = 5
    workers: int = 0
    sheet: str | None = None

    def __post_init__(self) -> None:
        for name in ("episodes", "repeats"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} needs to be at least 1")


def bench_physics(command: str, overrides: Sequence[str]) -> None:
    """The command."""
    config = compose(command, PhysicsConfig, overrides)
    able, unable = cells(config.task, config.robot, config.task_file)
    workers = processes(config.workers)
    rows, strips = [], []
    with progress("one core", total=len(able), unit="cell") as bar:
        for cell in able:
            row, pictures = measure_cell(cell, config.seed, config.episodes, config.repeats)
            rows.append(cell.label | row)
            strips.append((" · ".join(cell.label.values()), pictures))
            bar.advance()
    rates = measure_together(able, config.seed, config.episodes, config.repeats, workers)
    rows = [row | {"frames_per_second_all": rate} for row, rate in zip(rows, rates, strict=True)]
    result = document(
        "physics",
        ["robosim", command, *overrides],
        seed=config.seed,
        control_hz=CONTROL_HZ,
        processes=workers,
        repeats=config.repeats,
        clocks=CLOCKS,
        results=rows,
        unsupported=labels(unable),
    )
    if config.sheet:
        save_sheet(contact_sheet(strips), Path(config.sheet).expanduser().resolve())
    publish(
        result, config.out, f"physics at {CONTROL_HZ} Hz, {workers} processes for the last column", COLUMNS
    )


def measure_cell(cell: Cell, seed: int, episodes: int, repeats: int = 1) -> tuple[dict[str, Any], np.ndarray]:
    """The figures of one core, and five pictures [5,128,128,3] of the first episode."""
    recorder = Recorder(cell.robot, size=None)
    setting = recorder.setting(cell.task, seed)
    seeds = range(seed, seed + episodes)
    tracks = [recorder.simulate(setting, "expert", each) for each in seeds]
    physics = fastest(lambda: [recorder.simulate(setting, "expert", each) for each in seeds], repeats)
    frames = sum(len(track.state) for track in tracks)
    row: dict[str, Any] = {"frames": frames, "control_steps_per_second": round(frames / physics, 1)}
    seconds = {}
    pictures = np.empty(0)
    for size in SIZES:
        renderer = Recorder(cell.robot, size).setting(cell.task, seed).renderer
        assert renderer is not None
        renderer.render(tracks[0].visible[:1])
        visible = np.concatenate([track.visible for track in tracks])
        seconds[size] = fastest(functools.partial(renderer.render, visible), repeats)
        row[f"render_ms_{size}"] = round(1000 * seconds[size] / frames, 3)
        pictures = renderer.render(moments(recorder.simulate(setting, "expert", seed, after=RETREAT)))[
            "front"
        ]
    row["frames_per_second_core"] = round(frames / (physics + seconds[SIZES[0]]), 1)
    return row, pictures


def moments(track: Track) -> np.ndarray:
    """Start, quarter, half, three quarters and end [5,P] of an episode."""
    return track.visible[np.linspace(0, len(track.visible) - 1, 5).round().astype(int)]


def fastest(work: Callable[[], Any], repeats: int) -> float:
    """Seconds of this process's CPU time that `work` takes, the fastest of `repeats`."""
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


def measure_together(
    able: Sequence[Cell], seed: int, episodes: int, repeats: int, workers: int
) -> list[float]:
    """Frames a second of `workers` processes that record at 64 px at the same time, for each cell."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(workers)
    pipes, children = [], []
    for number in range(workers):
        receiver, sender = context.Pipe(duplex=False)
        seeds = range(seed + number * episodes, seed + (number + 1) * episodes)
        arguments = (able, seeds, repeats, barrier, sender)
        child = context.Process(target=_record_cells, args=arguments, daemon=True)
        child.start()
        sender.close()
        pipes.append(receiver)
        children.append(child)
    try:
        with progress(f"{workers} processes", total=len(able), unit="cell") as bar:
            return [_best_rate(pipes, repeats, bar.advance) for _ in able]
    finally:
        for child in children:
            child.terminate()
            child.join()


def _best_rate(pipes: Sequence[Connection], repeats: int, advance: Callable[[], None]) -> float:
    """Frames/s of all processes together in their fastest repeat of a cell."""
    try:
        rates = []
        for _ in range(repeats):
            frames, seconds = zip(*(pipe.recv() for pipe in pipes), strict=True)
            rates.append(sum(frames) / max(seconds))
    except EOFError as error:
        raise RobosimError("a process of the benchmark ended early; its error stands above") from error
    advance()
    return round(max(rates), 1)


def _record_cells(
    able: Sequence[Cell], seeds: Sequence[int], repeats: int, barrier: Barrier, sender: Connection
) -> None:
    """In a process of its own: record the expert in every cell, at the same time as the others; send frames/s."""
    for cell in able:
        cell.load()
        recorder = Recorder(cell.robot, SIZES[0])
        recorder.record(cell.task, "expert", seeds[0])
        for _ in range(repeats):
            barrier.wait(WAIT)
            started = time.perf_counter()
            frames = sum(recorder.record(cell.task, "expert", seed).length for seed in seeds)
            sender.send((frames, time.perf_counter() - started))
        barrier.wait(WAIT)  # nobody prepares the next cell while others still measure
