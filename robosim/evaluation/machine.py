"""On what a run was made: processor, memory, accelerator, versions."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("robosim", "torch", "mujoco", "mujoco-warp", "lerobot", "numpy")


def machine() -> dict[str, str | int | float]:
    """Facts about this machine and installation, for the summary and the report."""
    facts: dict[str, str | int | float] = {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    if gpu := gpu_name():
        facts["gpu"] = gpu
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts


def cpu_name() -> str:
    """The processor's marketing name on Linux, the architecture elsewhere."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def gpu_name() -> str | None:
    """The first CUDA device that torch sees, if there is one."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
