"""The comparison: one policy, the same starts, two simulators; and held-out episodes replayed by their commands.

Protocol: initial states come from seeds in physics; their first rendered frame and joints start the learned
simulator. Success in physics is a function of the state, in the learned simulator the judge's verdict; the judge
also watches the physics video, which separates its error from the world model's.
"""

from __future__ import annotations

import functools
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from robosim_datasets.clip_store import ClipStore
from robosim_datasets.splits import check_positions

from robosim.checkpoint import atomic_write_json, prepare_folder
from robosim.errors import DatasetError
from robosim.evaluation.agreement import agreement_figures, finite, task_figures
from robosim.evaluation.jobs import ReplayJob, Replays, RolloutJob, Rollouts, Simulators, dataset_renderer
from robosim.evaluation.policies import CommandRange, command_range
from robosim.evaluation.processes import run_jobs
from robosim.evaluation.replay import (
    RecordedClips,
    drift_by_horizon,
    held_out_clips,
    moving_psnr_by_horizon,
    repeat_last,
)
from robosim.evaluation.rollouts import RolloutSet, concatenate, save_arrays, save_rollouts
from robosim.progress import progress
from robosim.spec import TaskSpec

SHARD = 25
"""Episodes that are stepped together. Fixed, so that results don't depend on the number of processes."""


@dataclass(frozen=True)
class CompareConfig:
    """What is compared, and how much of it is kept for looking at."""

    tasks: tuple[str, ...] = ("reach", "soft_push")
    episodes: int = 50
    """Starts a task, shared by the policy in both simulators and by the random policy."""
    replay_clips: int = 24
    """Stretches of held-out episodes a task that are replayed by their recorded commands."""
    replay_steps: int = 16
    kept_episodes: int = 4
    """Episodes a task whose frames are written to disk."""
    task_file: str | None = None
    """A Python file that registers tasks of one's own."""
    robot: str | None = None
    """Where the MJCF file of the dataset's arm lies now, if it was moved."""
    workers: int = 0
    """Processes; 0 takes one for each core, but never more than there are jobs."""
    seed: int = 0


def compare(config: CompareConfig, run: Path, device: str = "cpu") -> dict[str, Any]:
    """Compare the policies of `run` in both simulators; write `compare/` and return its figures.

    Writes compare.json (all figures, and a table of the episodes), `<task>_{physics,learned,random}.npz`
    (`RolloutSet`s; frames of the first `kept_episodes`) and `<task>_replay.npz` (true and predicted frames).
    Raises `DatasetError` when no held-out episode is long enough to replay or the data have no positions,
    `CheckpointError` when a model or policy is missing.
    """
    store = ClipStore(run / "clips")
    check_positions(store, "compare")
    out = prepare_folder(run / "compare")
    jobs = _jobs(config, store)
    cores = os.cpu_count() or 1
    workers = min(config.workers or cores, len(jobs))
    threads = max(1, cores // workers)
    total = sum(3 * len(j.seeds) if isinstance(j, RolloutJob) else 2 * len(j.clips) for j in jobs)
    with progress("compare", total=total, unit="episode") as bar:
        results = run_jobs(
            functools.partial(Simulators, run, device, threads, config.task_file, config.robot),
            jobs,
            workers,
            bar,
        )
    # Starts vary as seeds do; looks and physics are those of the dataset without variation.
    figures: dict[str, Any] = {"tasks": {}, "renderer": dataset_renderer(run), "variation": "none"}
    replays: list[tuple[RecordedClips, Replays]] = []
    verdicts: list[tuple[np.ndarray, np.ndarray]] = []
    for task in config.tasks:
        mine = [result for job, result in zip(jobs, results, strict=True) if job.task == task]
        rolled = join([result for result in mine if isinstance(result, Rollouts)])
        figures["tasks"][task] = task_figures(
            rolled.physics, rolled.learned, rolled.random, rolled.judged, store.spec.task(task), config.seed
        )
        verdicts.append((rolled.physics.success, rolled.learned.success))
        for name in ("physics", "learned", "random"):
            save_rollouts(out / f"{task}_{name}.npz", getattr(rolled, name), config.kept_episodes)
        for job, result in zip(jobs, results, strict=True):
            if isinstance(job, ReplayJob) and job.task == task and isinstance(result, Replays):
                replays.append((job.clips, result))
                _save_replay(out, store.spec.task(task), job.clips, result, config.kept_episodes)
    physics, learned = (np.concatenate(column) for column in zip(*verdicts, strict=True))
    figures["pooled"] = agreement_figures(physics, learned, config.seed)
    figures["replay"] = replay_figures(replays)
    figures["rollout_moving_psnr_db"] = figures["replay"]["moving_psnr_db"]
    atomic_write_json(out / "compare.json", figures)
    for values in figures["tasks"].values():
        del values["table"]
    return figures


def start_seeds(task: str, episodes: int, seed: int) -> tuple[int, ...]:
    """Seeds of the initial states: the same for every policy, and unlike those of collection."""
    generator = np.random.default_rng([seed, zlib.crc32(f"compare {task}".encode())])
    return tuple(int(value) for value in generator.integers(2**31, size=episodes))


def _jobs(config: CompareConfig, store: ClipStore) -> list[RolloutJob | ReplayJob]:
    recorded = recorded_range(store)
    jobs: list[RolloutJob | ReplayJob] = []
    for task in config.tasks:
        seeds = start_seeds(task, config.episodes, config.seed)
        shards = [seeds[first : first + SHARD] for first in range(0, len(seeds), SHARD)]
        jobs += [RolloutJob(task, shard, recorded) for shard in shards]
    for task in config.tasks:
        clips = held_out_clips(store, task, config.replay_steps, config.replay_clips, config.seed)
        if len(clips):
            jobs.append(ReplayJob(task, clips, config.seed))
    if not any(isinstance(job, ReplayJob) for job in jobs):
        raise DatasetError(
            f"{store.path} has no val episode of {config.replay_steps + 1} frames with commands to replay; "
            "collect longer episodes or set replay_steps="
        )
    return jobs


def recorded_range(store: ClipStore) -> CommandRange:
    """The range of all recorded commands; in a mixture some episodes have none."""
    episodes = [store.episodes[position] for position in store.select(labelled=True)]
    commands = [store.column("action")[row.start : row.start + row.length] for row in episodes]
    starts = np.concatenate([np.arange(row.length) == 0 for row in episodes])
    return command_range(np.concatenate(commands), starts)


def join(parts: list[Rollouts]) -> Rollouts:
    """The shards of one task as one result."""
    sets: dict[str, RolloutSet] = {
        name: concatenate([getattr(part, name) for part in parts])
        for name in ("physics", "learned", "random")
    }
    return Rollouts(judged=np.concatenate([part.judged for part in parts]), **sets)


def replay_figures(replays: list[tuple[RecordedClips, Replays]]) -> dict[str, Any]:
    """Fidelity of open-loop replay, pooled over the tasks: PSNR of moving pixels and drift, by horizon.

    Beside the recorded commands stand their rivals: another clip's motions, the start frame repeated (raw, and
    through the tokenizer), and the ceiling, the true frames through the tokenizer; beside the drift, the error of
    the probe on that ceiling.
    """
    true = np.concatenate([clips.frames for clips, _ in replays])
    reconstructed = np.concatenate([result.reconstructed for _, result in replays])
    shown = {
        "moving_psnr_db": np.concatenate([result.own.frames for _, result in replays]),
        "other_motions_moving_psnr_db": np.concatenate([result.other.frames for _, result in replays]),
        "repeat_last_moving_psnr_db": repeat_last(reconstructed),
        "repeat_last_raw_moving_psnr_db": repeat_last(true),
        "ceiling_moving_psnr_db": reconstructed,
    }
    figures: dict[str, Any] = {"clips": len(true), "steps": true.shape[1] - 1}
    for name, frames in shown.items():
        figures[name] = {h: finite(value) for h, value in moving_psnr_by_horizon(frames, true).items()}
    positions = np.concatenate([clips.positions for clips, _ in replays])
    # A task without an object labels its goal as one.
    has_object = (positions[..., 3:6] != positions[..., 6:9]).any(axis=(1, 2))
    for name, columns, rows in (
        ("tool", slice(0, 3), np.ones_like(has_object)),
        ("object", slice(3, 6), has_object),
    ):
        if not rows.any():
            continue
        true_places = positions[rows][..., columns]
        predicted = np.concatenate([getattr(result.own, name) for _, result in replays])[rows]
        read = np.concatenate([getattr(result, name) for _, result in replays])[rows]
        figures[f"{name}_drift_m"] = drift_by_horizon(predicted, true_places)
        figures[f"{name}_probe_error_m"] = drift_by_horizon(read, true_places)
    return figures


def _save_replay(out: Path, task: TaskSpec, clips: RecordedClips, result: Replays, kept: int) -> None:
    """Frames, joints and distances of clips from `kept` different episodes."""
    _, rows = np.unique(clips.episode, return_index=True)
    rows = rows[:kept]
    tool, body, goal = np.split(clips.positions[rows], 3, axis=-1)
    arrays = {
        "episode": clips.episode[rows],
        "start": clips.start[rows],
        "true": clips.frames[rows],
        "predicted": result.own.frames[rows],
        "state": clips.state[rows],
        "agent_pos": result.own.agent_pos[rows],
        "distance_true": task.distance(tool, body, goal),
        "distance_predicted": result.own.distance[rows],
    }
    save_arrays(out / f"{task.name}_replay.npz", arrays)
