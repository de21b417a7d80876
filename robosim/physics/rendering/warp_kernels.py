"""warp and its kernels: started quietly, compiled once a machine with a word about it, and errors in plain words."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import warp as wp

from robosim.errors import UnsupportedError

TYPICAL_SECONDS = 15
"""That a cold compile takes on an idle core, for the announcement."""


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Drop what native code writes: warp warns of a missing GPU driver in a line that no setting turns off."""
    sys.stderr.flush()
    saved = os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn what goes wrong with warp's folder of compiled kernels into `UnsupportedError`."""
    try:
        yield
    except OSError as error:
        raise UnsupportedError(
            f"the renderer can't keep its compiled kernels in {_folder()}: {error.strerror or error}; set the "
            "environment variable WARP_CACHE_PATH to a folder that can be written"
        ) from error
    except Exception as error:
        # warp raises the base class for a module that doesn't load, and passes the parser's error on.
        if type(error) is not Exception and not isinstance(error, json.JSONDecodeError):
            raise
        raise UnsupportedError(
            f"the renderer's compiled kernels in {_folder()} don't load ({error}); delete that folder, and they are "
            "compiled again"
        ) from error


def start() -> None:
    """Start warp. Doing it again does nothing."""
    wp.config.log_level = wp.LOG_ERROR
    with explained(), _silent_stderr():
        wp.init()


@contextlib.contextmanager
def compiling(key: str) -> Iterator[None]:
    """Around work that compiles the kernels named by `key` where no earlier run has: says so, once a machine.

    Other processes wait meanwhile, so that a cold pool compiles once. Whoever is interrupted leaves no trace, and the
    next one compiles.
    """
    stamp = _folder() / f"robosim-{key}"
    if stamp.exists():
        yield
        return
    with _lock(stamp.with_suffix(".lock")):
        if stamp.exists():
            yield
            return
        _say(
            f"compiling the renderer into {_folder()}, once on this machine: about {TYPICAL_SECONDS} seconds"
        )
        started = time.monotonic()
        yield
        _say(f"compiled the renderer in {time.monotonic() - started:.1f} seconds")
        with contextlib.suppress(OSError):
            stamp.touch()


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold `path` against other processes, where it can be written; the system lets go of it if this one dies."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            fcntl.flock(stack.enter_context(path.open("w")), fcntl.LOCK_EX)
        yield


def _folder() -> Path:
    return Path(wp.config.kernel_cache_dir or os.environ.get("WARP_CACHE_PATH", "~/.cache/warp"))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
