"""Ctrl-C and SIGTERM, once: `uv run` may hand on a Ctrl-C that the terminal has sent already, and that echo would break
into what saves after the first."""

from __future__ import annotations

import time

INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM."""

ECHO = 3.0
"""Seconds within which a second signal counts as the echo of the first."""


class Interrupt:
    """Handler of a signal: raises `KeyboardInterrupt`, but not for an echo."""

    def __init__(self) -> None:
        self._last = -ECHO

    def __call__(self, signum: int, frame: object) -> None:
        now = time.monotonic()
        if now - self._last >= ECHO:
            self._last = now
            raise KeyboardInterrupt
