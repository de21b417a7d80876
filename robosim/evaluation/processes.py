"""Jobs shared by a few processes, each of which opens its simulators once."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.queues import SimpleQueue
from typing import Any, Protocol

from robosim.progress import Bar


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
    finished: SimpleQueue[int | None] = context.SimpleQueue()
    watcher = threading.Thread(target=_watch, args=(finished, bar), daemon=True)
    watcher.start()
    pool = ProcessPoolExecutor(workers, context, _open, (open_worker, finished))
    try:
        return list(pool.map(_do, jobs))
    except BaseException:
        # The pool would wait for whole jobs; an interrupted command has to end now.
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        finished.put(None)
        watcher.join()


_worker: Worker
_finished: SimpleQueue[int | None]


def _open(open_worker: Callable[[], Worker], finished: SimpleQueue[int | None]) -> None:
    """Prepare a process."""
    global _worker, _finished
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    _worker, _finished = open_worker(), finished


def _do(job: Any) -> Any:
    return _worker.do(job, _finished.put)


def _watch(finished: SimpleQueue[int | None], bar: Bar) -> None:
    while (count := finished.get()) is not None:
        bar.advance(count)
