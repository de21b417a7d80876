"""The processes that record episodes, on this machine. They import nothing that only the writing of datasets needs.

The unit of work is one episode, handed to whichever process is free: its seed is its own, so that the result depends
neither on the number of processes nor on who recorded what, nobody waits for the last of somebody's range, and a
crash costs the episodes that were being recorded. (Handing one over takes less than a thousandth of recording it.)
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from robosim_datasets.episode_shards import pack, save_shard, shard_path

from robosim.errors import RobosimError
from robosim.physics.recording import Behaviour, Recorder
from robosim.physics.rendering.renderer import RendererKind
from robosim.physics.tasks import load_task_file
from robosim.physics.variation import Variation

QUEUED = 4
"""Episodes that are under way or wait, a process: enough to keep it busy, few enough for memory to stay flat."""


@dataclass(frozen=True, slots=True)
class EpisodePlan:
    """One episode to record; everything in it follows from these fields."""

    index: int
    task: str
    behaviour: Behaviour
    split: str
    seed: int


@dataclass(frozen=True)
class RecorderSetup:
    """What a process needs to know to make its recorder."""

    robot: str
    size: int
    cameras: tuple[str, ...]
    variation: Variation
    renderer: RendererKind = "warp"
    task_file: str | None = None
    frames: int | None = None

    def recorder(self) -> Recorder:
        if self.task_file:
            load_task_file(self.task_file)
        return Recorder(self.robot, self.size, self.cameras, self.variation, self.renderer, self.frames)


@functools.lru_cache(maxsize=1)
def recorder_for(setup: RecorderSetup) -> Recorder:
    """The process's own recorder, made with its first episode: errors then reach the user with that episode."""
    return setup.recorder()


def record_packed(setup: RecorderSetup, plan: EpisodePlan) -> tuple[int, bytes]:
    """Record one episode; its number of frames and the bytes of its shard."""
    episode = recorder_for(setup).record(plan.task, plan.behaviour, plan.seed, plan.split)
    return episode.length, pack(episode)


def record_on_processes(
    setup: RecorderSetup, plans: Sequence[EpisodePlan], folder: Path, workers: int
) -> Generator[int, None, None]:
    """Record `plans` into shards below `folder`; yields the frames of each episode once it is safe.

    Processes are spawned, not forked: warp and MuJoCo hold threads. An error or Ctrl-C ends them at once; episodes that
    have begun are dropped. Raises `RobosimError` when a process is killed.
    """
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start)
    left = iter(plans)
    running: set[Future[int]] = set()
    try:
        while True:
            for plan in islice(left, QUEUED * workers - len(running)):
                running.add(pool.submit(_record_shard, setup, plan, shard_path(folder, plan.index)))
            if not running:
                break
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (job.result() for job in finished)
    except BrokenProcessPool as error:
        raise RobosimError(
            "a recording process was killed, perhaps for want of memory; finished episodes are kept: "
            "run the same command again to go on, with workers= lower than before"
        ) from error
    except BaseException:
        _end(pool, folder)
        raise
    pool.shutdown()


def _end(pool: ProcessPoolExecutor, folder: Path) -> None:
    """Kill the processes first: a second Ctrl-C while the pool waits for them would leave it waiting for ever."""
    for child in multiprocessing.active_children():
        child.kill()
    pool.shutdown(cancel_futures=True)
    for unfinished in folder.rglob("*.partial"):
        unfinished.unlink(missing_ok=True)


def _record_shard(setup: RecorderSetup, plan: EpisodePlan, path: Path) -> int:
    frames, data = record_packed(setup, plan)
    save_shard(path, data)
    return frames


def _start() -> None:
    """Prepare a process: Ctrl-C, which reaches the whole group, is the parent's affair."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """End with the parent, even one that was killed: the same command may start again at once."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
