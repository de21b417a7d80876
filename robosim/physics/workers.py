"""The processes that record episodes. They import nothing that only the writing of datasets needs."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from robosim.physics.recording import Behaviour, Recorder
from robosim.physics.shards import save_shard


@dataclass(frozen=True)
class EpisodePlan:
    """One episode to record; everything in it follows from these fields."""

    index: int
    task: str
    behaviour: Behaviour
    split: str
    seed: int


_recorder: Recorder | None = None
"""The process's own recorder."""


@contextmanager
def recording_processes(count: int, robot: str, size: int) -> Iterator[ProcessPoolExecutor]:
    """`count` processes for `record_shard`.

    Spawned, not forked: warp and MuJoCo hold threads. On an error or Ctrl-C, episodes that have begun are finished
    and the others are dropped.
    """
    pool = ProcessPoolExecutor(
        count,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(robot, size),
    )
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()


def record_shard(plan: EpisodePlan, path: Path) -> int:
    """Record one episode into a shard; return its number of frames."""
    if _recorder is None:
        raise RuntimeError("record_shard runs in `recording_processes` only")
    episode = _recorder.record(plan.task, plan.behaviour, plan.seed, plan.split)
    save_shard(path, episode)
    return episode.length


def _start(robot: str, size: int) -> None:
    global _recorder
    # Ctrl-C reaches the whole process group; the parent alone decides what to do about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _recorder = Recorder(robot, size)
