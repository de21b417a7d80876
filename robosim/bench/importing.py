"""`robosim bench import`: seconds and megabytes of an import, by layout.

One made-up recording is written in every layout, so that the rows differ by layout alone; datasets of one's own can
stand beside it.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robosim_datasets.clip_store import build_clip_store
from robosim_datasets.importing.config import ImportConfig
from robosim_datasets.importing.import_dataset import folder_bytes, import_dataset

from robosim.bench.layouts import (
    Recording,
    make_recording,
    write_aloha,
    write_rlds,
    write_robomimic,
    write_videos,
)
from robosim.bench.lerobot_layouts import write_lerobot_v2, write_lerobot_v3
from robosim.bench.output import document, publish
from robosim.config import RunOptions, compose, unknown
from robosim.errors import ConfigError

WRITERS: dict[str, Callable[[Path, Recording], Any]] = {
    "lerobot_v3": lambda folder, recording: write_lerobot_v3(folder, recording.episodes, FPS),
    "lerobot_v2": lambda folder, recording: write_lerobot_v2(folder, recording.episodes, FPS),
    "rlds": lambda folder, recording: write_rlds(folder, recording, picture="jpeg"),
    "aloha": write_aloha,
    "robomimic": lambda folder, recording: write_robomimic(folder / "demos.hdf5", recording),
    "video": write_videos,
}

FPS = 30.0
"""Frames a second of the made-up recording."""

COLUMNS = (
    "source",
    "layout",
    "episodes",
    "frames_before",
    "frames_after",
    "seconds",
    "frames_per_second",
    "megabytes_source",
    "megabytes_dataset",
    "megabytes_clips",
)

CLOCKS = (
    "seconds: wall time from opening the source to the finished dataset and clips; frames_per_second: pictures of all "
    "cameras in the result over these seconds; each import once, after a small one that isn't timed"
)


@dataclass
class ImportBenchConfig(RunOptions):
    """The made-up recording, and what is imported beside it."""

    layouts: tuple[str, ...] = tuple(WRITERS)
    episodes: int = 4
    length: int = 150
    height: int = 480
    width: int = 640
    sources: tuple[str, ...] = ()
    source_fps: float | None = None
    size: int = 64
    workers: int = 0

    def __post_init__(self) -> None:
        for layout in self.layouts:
            if layout not in WRITERS:
                raise ConfigError(unknown("layout", layout, WRITERS))
        for name in ("episodes", "length", "height", "width"):
            if getattr(self, name) < 2:
                raise ConfigError(f"{name}={getattr(self, name)} needs to be at least 2")


def bench_import(command: str, overrides: Sequence[str]) -> None:
    """The command."""
    config = compose(command, ImportBenchConfig, overrides)
    # What an import says belongs to its own command; stdout is for the JSON alone.
    with (
        contextlib.redirect_stdout(sys.stderr),
        tempfile.TemporaryDirectory(prefix="robosim-import-") as folder,
    ):
        results = measure_all(config, Path(folder))
    result = document(
        "import",
        ["robosim", command, *overrides],
        recording={name: getattr(config, name) for name in ("episodes", "length", "height", "width")},
        clocks=CLOCKS,
        results=results,
    )
    publish(result, config.out, "imports", COLUMNS)


def measure_all(config: ImportBenchConfig, folder: Path) -> list[dict[str, Any]]:
    """One row for each layout and each source of one's own."""
    small = make_recording(episodes=2, length=8, fps=FPS)
    write_rlds(folder / "small", small)
    measure(ImportConfig(str(folder / "small"), source_fps=FPS, size=16), folder / "first")
    size = (config.height, config.width)
    episodes = config.episodes if config.layouts else 0
    recording = make_recording(episodes, config.length, size, config.seed, fps=FPS)
    rows = []
    for layout in config.layouts:
        source = folder / layout
        WRITERS[layout](source, recording)
        asked = ImportConfig(str(source), source_fps=FPS, size=config.size, workers=config.workers)
        rows.append({"source": "made up", **measure(asked, folder / f"{layout}-run"), "layout": layout})
    for place in config.sources:
        asked = ImportConfig(place, source_fps=config.source_fps, size=config.size, workers=config.workers)
        rows.append({"source": Path(place).name, **measure(asked, folder / f"own-{len(rows)}")})
    return rows


def measure(config: ImportConfig, run: Path) -> dict[str, Any]:
    """Import into the new folder `run`, and what it took."""
    started = time.perf_counter()
    figures = import_dataset(config, run / "dataset")
    store = build_clip_store(run / "dataset", run / "clips")
    seconds = time.perf_counter() - started
    return {
        "layout": figures["layout"],
        "episodes": figures["episodes"],
        "frames_before": figures["frames_source"],
        "frames_after": figures["frames"],
        "cameras": len(store.spec.cameras),
        "seconds": seconds,
        "frames_per_second": figures["frames"] * len(store.spec.cameras) / seconds,
        "megabytes_source": figures["megabytes_source"],
        "megabytes_dataset": figures["megabytes_dataset"],
        "megabytes_clips": folder_bytes(run / "clips") / 1e6,
    }
