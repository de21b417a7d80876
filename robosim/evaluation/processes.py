"""Jobs shared by a few processes, each of which opens its simulators once."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Lock
from typing import Any, Protocol

from robosim.progress import Bar

POLL_SECONDS = 0.2


class Worker(Protocol):
    """What a process holds open."""

    def do(self, job: Any, on_finish: Callable[[int], None]) -> Any:
        """The result of `job`; `on_finish` is told how many units of it are done whenever some are."""
        ...


def run_jobs(open_worker: Callable[[], Worker], jobs: Sequence[Any], workers: int, bar: Bar) -> list[Any]:
    """Results of `jobs`, in order. `workers` processes share them; 1 works in this process.

    `open_worker` and the jobs must survive pickling on their way to the processes. An error in a job, or Ctrl-C,
    ends all processes at once.
    """
    if workers == 1:
        worker = open_worker()
        return [worker.do(job, bar.advance) for job in jobs]
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(receiver, over, bar), daemon=True)
    watcher.start()
    pool = ProcessPoolExecutor(workers, context, _open, (open_worker, sender, context.Lock()))
    try:
        return list(pool.map(_do, jobs))
    except BaseException:
        # The pool would wait for whole jobs; an interrupted command has to end now.
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        over.set()
        watcher.join()


def _watch(receiver: Connection, over: threading.Event, bar: Bar) -> None:
    """Move the bar. Ends by a flag, not a message: a process that died while sending may hold the lock."""
    while not over.is_set() or receiver.poll():
        if receiver.poll(POLL_SECONDS):
            bar.advance(receiver.recv())


class _Process:
    """What a process of the pool keeps."""

    def __init__(self, open_worker: Callable[[], Worker], sender: Connection, lock: Lock) -> None:
        self.open_worker, self.sender, self.lock = open_worker, sender, lock

    @functools.cached_property
    def worker(self) -> Worker:
        """Opened with the first job: a pool swallows what its initialiser raises, and the user would read of a
        broken pool instead of the missing checkpoint."""
        return self.open_worker()

    def tell(self, count: int) -> None:
        with self.lock:
            self.sender.send(count)


_process: _Process


def _open(open_worker: Callable[[], Worker], sender: Connection, lock: Lock) -> None:
    """Prepare a process."""
    global _process
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    threading.Thread(target=_follow_parent, daemon=True).start()
    _process = _Process(open_worker, sender, lock)


def _follow_parent() -> None:
    """End with the parent, even one that was killed; this process would wait for jobs for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _do(job: Any) -> Any:
    return _process.worker.do(job, _process.tell)
