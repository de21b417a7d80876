"""What an import will write, decided by a first look at the source: every episode's numbers, two pictures of each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from robosim.config import unknown
from robosim.errors import ConfigError, DatasetError
from robosim.progress import progress
from robosim.spec import ActionKind, EnvSpec, RobotSpec, TaskSpec
from robosim_datasets.faults import Fault
from robosim_datasets.importing.config import ImportConfig
from robosim_datasets.importing.resample import choose_rows, resample_actions
from robosim_datasets.sources.source import Source, SourceEpisode

BLACK = 8
"""Grey levels of the brightest pixel up to which a picture shows nothing."""


@dataclass(frozen=True)
class Piece:
    """An episode to be written: frames `rows` of the source's episode `episode`."""

    episode: int
    rows: np.ndarray
    """int64 [T], ascending"""
    split: str
    last: bool
    """Whether the source's episode ends here too; a recording that is cut has several pieces."""


@dataclass(frozen=True)
class Plan:
    """All that the second pass needs."""

    spec: EnvSpec
    pieces: list[Piece]
    """Train first: LeRobot names splits by ranges."""
    faults: list[Fault]
    """Why episodes are left out."""
    notes: list[str]
    source_fps: float


@dataclass(frozen=True)
class _Look:
    """What the first look at one episode shows."""

    rows: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    instruction: str
    split: str | None
    blank: frozenset[str]


def make_plan(source: Source, config: ImportConfig, threads: int) -> Plan:
    """Look at every episode. Raises `DatasetError` when nothing is left, `ConfigError` for keys that don't fit."""
    notes = list(source.info.notes)
    fps = _source_fps(source, config)
    kind = _action_kind(source, config)
    spec_fps = max(1, min(config.fps, int(fps)))
    if spec_fps < config.fps:
        notes.append(
            f"{fps:g} frames/s are fewer than {config.fps}: kept at {spec_fps}, as repeated frames would teach that "
            "nothing moves"
        )
    looks, faults = _look_at_all(source, partial(_look, source, fps, spec_fps, kind), config, threads)
    cameras = _choose_cameras(source, looks, config, notes)
    kept = {number: look for number, look in looks.items() if not look.blank & set(cameras)}
    faults += [
        Fault("black", ", ".join(sorted(look.blank & set(cameras))), "shows nothing; left out", number)
        for number, look in looks.items()
        if number not in kept
    ]
    pieces = _cut(kept, _splits(kept, config), config, spec_fps)
    if not pieces:
        first = f"; the first: {faults[0].sentence()}" if faults else ""
        raise DatasetError(f"{source.root}: no episode can be imported{first}")
    spec = _spec(source, cameras, config.size, spec_fps, kind, list(kept.values()), pieces)
    return Plan(spec, pieces, faults, notes, fps)


def _source_fps(source: Source, config: ImportConfig) -> float:
    fps = config.source_fps or source.info.fps
    if not fps:
        raise ConfigError(f"{source.root} doesn't say how many frames a second it has; set source_fps=")
    return float(fps)


def _action_kind(source: Source, config: ImportConfig) -> ActionKind:
    if not source.info.action_names or config.action_kind == "auto":
        return source.info.action_kind
    return config.action_kind


def _look_at_all(
    source: Source, look: Any, config: ImportConfig, threads: int
) -> tuple[dict[int, _Look], list[Fault]]:
    """What every episode shows, by its number; and why others can't be read."""
    numbers = range(min(source.info.episodes, config.episodes or source.info.episodes))
    looks: dict[int, _Look] = {}
    faults = list(source.info.faults)

    def attempt(number: int) -> _Look | DatasetError:
        try:
            return look(number)
        except DatasetError as error:
            return error

    pool = ThreadPoolExecutor(threads)
    try:
        with progress("look at the source", len(numbers), "episode") as bar:
            for number, seen in zip(numbers, pool.map(attempt, numbers), strict=True):
                if isinstance(seen, DatasetError):
                    faults.append(Fault("damaged", source.root.name, f"{seen}; left out", number))
                elif len(seen.rows) < 2:
                    what = f"{len(seen.rows)} frames are left of it, 2 are needed; left out"
                    faults.append(Fault("length", source.root.name, what, number))
                else:
                    looks[number] = seen
                bar.advance()
    finally:
        pool.shutdown(cancel_futures=True)
    return looks, faults


def _look(source: Source, fps: float, spec_fps: int, kind: ActionKind, number: int) -> _Look:
    episode = source.read(number)
    check_numbers(source, episode)
    rows = choose_rows(episode.length, fps, spec_fps, episode.timestamps)
    action = resample_actions(episode.action, rows, kind, source.info.action_names)
    blank = set()
    for camera in source.info.cameras:
        few = list(dict.fromkeys([0, episode.length // 2]))
        if max(frame.max() for frame in source.frames(number, camera, few)) <= BLACK:
            blank.add(camera)
    return _Look(
        rows, action.min(axis=0), action.max(axis=0), episode.instruction, episode.split, frozenset(blank)
    )


def check_numbers(source: Source, episode: SourceEpisode) -> None:
    """Raise `DatasetError` unless states and commands are there, of one length and finite."""
    for name, values, names in (
        ("state", episode.state, source.info.state_names),
        ("action", episode.action, source.info.action_names),
    ):
        if values.shape != (episode.length, len(names)):
            raise DatasetError(f"its {name} is {values.shape} and not {(episode.length, len(names))}")
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            raise DatasetError(f"its {name} isn't finite at frame {row}")


def _choose_cameras(
    source: Source, looks: dict[int, _Look], config: ImportConfig, notes: list[str]
) -> tuple[str, ...]:
    """The cameras asked for, or all that show something in every episode; else the one that does so most often."""
    there = list(source.info.cameras)
    for camera in config.cameras or ():
        if camera not in there:
            raise ConfigError(unknown("camera", camera, there))
    blank = {camera: sum(camera in look.blank for look in looks.values()) for camera in there}
    for camera in there:
        if blank[camera] and not config.cameras:
            notes.append(f"camera {camera} is black in {blank[camera]} of {len(looks)} episodes")
    if config.cameras:
        return config.cameras
    full = tuple(camera for camera in there if not blank[camera])
    if not there:
        raise DatasetError(f"{source.root} has no camera with colour pictures; a world model needs some")
    return full or (min(there, key=lambda camera: blank[camera]),)


def _splits(looks: dict[int, _Look], config: ImportConfig) -> dict[int, str]:
    """train or val by episode: the source's own splits if it has more than one, else a random share is held out."""
    own = {number: look.split for number, look in looks.items()}
    if len(set(own.values())) > 1:
        return {number: "train" if split in ("train", None) else "val" for number, split in own.items()}
    numbers = list(looks)
    held_out = round(len(numbers) * config.val_fraction)
    if config.val_fraction > 0 and len(numbers) > 1:
        held_out = max(held_out, 1)
    chosen = np.random.default_rng(config.seed).permutation(len(numbers))[:held_out]
    val = {numbers[place] for place in chosen}
    return {number: "val" if number in val else "train" for number in numbers}


def _cut(looks: dict[int, _Look], splits: dict[int, str], config: ImportConfig, fps: int) -> list[Piece]:
    """The pieces in the order in which they are written: recordings longer than `cut` in equal parts.

    Parts of one recording are alike, so they share its split; of a single recording the end is held out.
    """
    pieces: list[Piece] = []
    for number, look in looks.items():
        parts = 1 if config.cut is None else max(1, round(len(look.rows) / max(2, config.cut * fps)))
        groups = np.array_split(look.rows, parts)
        pieces += [Piece(number, group, splits[number], group is groups[-1]) for group in groups]
    if len(looks) == 1 and len(pieces) > 1 and config.val_fraction > 0:
        train = len(pieces) - max(1, round(len(pieces) * config.val_fraction))
        pieces = [
            replace(piece, split="train" if place < train else "val") for place, piece in enumerate(pieces)
        ]
    return sorted(pieces, key=lambda piece: piece.split != "train")


def _spec(
    source: Source,
    cameras: Sequence[str],
    size: int,
    fps: int,
    kind: ActionKind,
    looks: list[_Look],
    pieces: list[Piece],
) -> EnvSpec:
    """The contract: the source's own where it is robosim's, else as much as can be known."""
    info = source.info
    if info.spec is not None:
        return replace(info.spec, cameras=tuple(cameras), size=size, fps=fps)
    first = source.read(pieces[0].episode)
    found = {
        "state": bool(info.state_names),
        "action": bool(info.action_names),
        "reward": first.reward is not None,
        "success": first.success is not None,
    }
    robot = RobotSpec(
        name=info.robot or "unknown",
        joint_names=info.action_names,
        joint_units=("unknown",) * len(info.action_names),
        lower=tuple(np.min([look.lower for look in looks], axis=0).tolist()),
        upper=tuple(np.max([look.upper for look in looks], axis=0).tolist()),
    )
    sentences = [look.instruction for look in looks if look.instruction]
    task = TaskSpec(
        name=task_name(info.name),
        instruction=Counter(sentences).most_common(1)[0][0] if sentences else "",
        horizon=max(len(piece.rows) for piece in pieces),
        success_distance=0.0,
        subject="none",
    )
    return EnvSpec(
        robot=robot,
        tasks=(task,),
        cameras=tuple(cameras),
        size=size,
        fps=fps,
        action_kind=kind,
        labels=tuple(name for name, there in found.items() if there),
        state_names=info.state_names,
    )


def task_name(name: str) -> str:
    """A dataset's name as that of its one task: letters, digits and underscores."""
    return re.sub(r"\W+", "_", name).strip("_").lower() or "imported"
