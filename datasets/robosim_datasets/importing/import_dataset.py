"""`robosim import`: any source into a dataset of ours and its clip store, in two passes.

The first looks at every episode and says what it found and what it will write; the second reads the frames. A finished
episode waits in a file of its own until the dataset is whole, so that an interrupted import goes on.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from robosim.checkpoint import atomic_write_json, deciding, prepare_folder, read_json
from robosim.errors import DatasetError
from robosim.progress import progress
from robosim_datasets.clip_store import build_clip_store
from robosim_datasets.dataset_writer import DatasetWriter
from robosim_datasets.episode import ENVIRONMENT_STATE, Episode
from robosim_datasets.episode_shards import load_shard, pack, save_shard, shard_path
from robosim_datasets.faults import Fault
from robosim_datasets.importing.config import ImportConfig
from robosim_datasets.importing.findings import print_findings, print_left_out
from robosim_datasets.importing.look import check_numbers, in_threads
from robosim_datasets.importing.plan import Piece, Plan, check_keys, make_plan, nothing_left
from robosim_datasets.importing.resample import fit_frame, resample_actions, resample_outcomes
from robosim_datasets.sources.detect import open_source
from robosim_datasets.sources.source import Source, SourceEpisode

MEGABYTE = 1e6

FIGURES = "import.json"
"""The figures, kept in the dataset: an attempt that was interrupted while decoding doesn't import again."""


def import_clips(config: ImportConfig, run: Path, resume: bool = True) -> dict[str, Any]:
    """The stage: import `config.source` into `run`/dataset, then decode it into `run`/clips; return the figures.

    Damaged episodes are left out, each of them named. Raises `DatasetError` when no good one is left.
    """
    kept = run / "dataset" / FIGURES
    if kept.exists():
        figures = read_json(kept)
    else:
        figures = import_dataset(config, run / "dataset", resume)
        atomic_write_json(kept, figures)
    build_clip_store(run / "dataset", run / "clips")
    return figures | {"megabytes_clips": round(folder_bytes(run / "clips") / MEGABYTE, 2)}


def check_request(config: ImportConfig) -> None:
    """Raise what `import_clips` would raise for keys that don't fit the source, before an earlier import is moved."""
    check_keys(open_source(config.source, config.layout), config)


def import_dataset(config: ImportConfig, out: Path, resume: bool = True) -> dict[str, Any]:
    """Write the dataset `out`, all of it or nothing. Finished episodes wait in `<out>.shards/`."""
    started = time.monotonic()
    source = open_source(config.source, config.layout)
    threads = config.workers or len(os.sched_getaffinity(0))
    plan = make_plan(source, config, threads)
    print_findings(source, plan)
    waiting = out.with_name(f"{out.name}.shards")
    if not resume:
        shutil.rmtree(waiting, ignore_errors=True)
    shards = prepare_folder(waiting / plan.identity[:16])
    written, frames = 0, 0
    with DatasetWriter(out, plan.spec, _provenance(source, config, plan), replace=True) as writer:
        with progress("import", len(plan.pieces), "episode") as bar:
            for episode in _episodes(source, config, plan, shards, threads):
                if episode is not None:
                    writer.add(episode)
                    written, frames = written + 1, frames + episode.length
                bar.advance(1, **{"frames/s": frames / (time.monotonic() - started)})
        if not written:
            raise nothing_left(source, plan.left_out)
        writer.provenance["left_out"] = [fault.sentence() for fault in plan.left_out]
    shutil.rmtree(waiting, ignore_errors=True)
    print_left_out([*source.info.faults, *plan.left_out])
    return {
        "layout": source.info.layout,
        "episodes": written,
        "frames": frames,
        "frames_source": source.info.frames,
        "episodes_left_out": len({fault.episode for fault in plan.left_out}),
        "faults_of_files": len(source.info.faults),
        "seconds": round(time.monotonic() - started, 2),
        "megabytes_source": round(source.info.bytes / MEGABYTE, 2),
        "megabytes_dataset": round(folder_bytes(out) / MEGABYTE, 2),
    }


def _episodes(
    source: Source, config: ImportConfig, plan: Plan, shards: Path, threads: int
) -> Iterator[Episode | None]:
    """Every piece as an episode, in order, None for one that turns out damaged; read by threads, kept in shards."""

    def convert(index: int) -> Fault | None:
        piece, path = plan.pieces[index], shard_path(shards, index)
        if path.exists():
            return None
        try:
            episode = make_episode(source, config, plan, piece)
            episode.check(plan.spec)
        except DatasetError as error:
            return Fault("damaged", source.root.name, str(error), piece.episode)
        save_shard(path, pack(episode))
        return None

    for index, fault in in_threads(convert, range(len(plan.pieces)), threads):
        if fault is not None:
            plan.left_out.append(fault)
            yield None
            continue
        episode = load_shard(shard_path(shards, index))
        if episode is None:  # damaged by whatever interrupted the last attempt
            shard_path(shards, index).unlink(missing_ok=True)
            if (fault := convert(index)) is not None:
                plan.left_out.append(fault)
            episode = load_shard(shard_path(shards, index))
        yield episode


def make_episode(source: Source, config: ImportConfig, plan: Plan, piece: Piece) -> Episode:
    """One piece of a source's episode in our rate, size and words."""
    read, spec, rows = source.read(piece.episode), plan.spec, piece.rows
    check_numbers(source, read)
    end = read.length if piece.end is None else piece.end
    frames = {camera: np.empty((len(rows), spec.size, spec.size, 3), np.uint8) for camera in spec.cameras}
    for camera, pictures in frames.items():
        for place, frame in enumerate(source.frames(piece.episode, camera, rows)):
            pictures[place] = fit_frame(righted(frame, config), spec.size, config.fit)
    kind, names = spec.action_kind, source.info.action_names
    positions = np.zeros((len(rows), len(ENVIRONMENT_STATE) if "environment_state" in spec.labels else 0))
    if read.environment_state is not None and positions.size:
        positions = read.environment_state[rows]
    return Episode(
        frames=frames,
        state=read.state[rows].astype(np.float32),
        action=resample_actions(read.action, rows, kind, names, piece.end),
        environment_state=positions.astype(np.float32),
        reward=_outcome(read.reward, np.float32, rows, end),
        success=_outcome(read.success, np.bool_, rows, end),
        instruction=read.instruction,
        split=piece.split,
        **_told(read, piece, plan),
    )


def righted(frame: np.ndarray, config: ImportConfig) -> np.ndarray:
    """A frame [H, W, 3] as it should have been recorded."""
    if config.swap_red_blue:
        frame = frame[..., ::-1]
    if config.upside_down:
        frame = frame[::-1]
    return np.ascontiguousarray(frame)


def _told(read: SourceEpisode, piece: Piece, plan: Plan) -> dict[str, Any]:
    """What robosim's own datasets say of an episode, or where it comes from."""
    if read.row is not None:
        names = ("task", "behaviour", "seed", "factors", "measures", "source")
        return {name: read.row[name] for name in names if name in read.row}
    first, last = int(piece.rows[0]), int(piece.rows[-1])
    about = {
        "episode": piece.episode,
        "frames": read.length,
        "first": first,
        "last": last,
        "split": read.split,
    }
    return {
        "task": plan.spec.tasks[0].name,
        "behaviour": "recorded",
        "seed": piece.seed,
        "source": about | ({"metadata": read.metadata} if read.metadata else {}),
    }


def _outcome(values: np.ndarray | None, dtype: Any, rows: np.ndarray, end: int) -> np.ndarray:
    if values is None:
        return np.zeros(len(rows), dtype)
    return resample_outcomes(values[:end].astype(dtype), rows)


def _provenance(source: Source, config: ImportConfig, plan: Plan) -> dict[str, Any]:
    """What `meta/robosim.json` keeps of the source, beside each episode's own."""
    info = source.info
    return {
        "source": "robosim import",
        "config": deciding(config),
        "layout": info.layout,
        "name": info.name,
        "fps": plan.source_fps,
        "cameras": {name: list(size) for name, size in info.cameras.items()},
        "splits": info.splits,
        "metadata": info.metadata,
        "notes": plan.notes,
        "faults": [fault.sentence() for fault in info.faults],
    }


def folder_bytes(folder: Path) -> int:
    """Size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
