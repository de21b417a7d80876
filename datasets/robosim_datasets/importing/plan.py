"""What an import will write, decided by a first look at the source."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from robosim.checkpoint import deciding, json_hash
from robosim.config import unknown
from robosim.errors import ConfigError, DatasetError
from robosim.spec import ActionKind, EnvSpec, RobotSpec, TaskSpec
from robosim_datasets.faults import Fault
from robosim_datasets.importing.config import ImportConfig, fingerprint
from robosim_datasets.importing.look import Look, look_at_all
from robosim_datasets.sources.source import Source


@dataclass(frozen=True)
class Piece:
    """An episode to be written: frames `rows` of the source's episode `episode`."""

    episode: int
    rows: np.ndarray
    """int64 [T], ascending"""
    split: str
    end: int | None = None
    """Where the next piece of a recording that is cut begins; None: the source's episode ends here."""
    seed: int = 0
    """Its number among all pieces: what tells the parts of one recording apart."""


@dataclass(frozen=True)
class Plan:
    """All that the second pass needs."""

    spec: EnvSpec
    pieces: list[Piece]
    """Train first: LeRobot names splits by ranges."""
    left_out: list[Fault]
    """Why episodes are left out; the second pass may add some."""
    notes: list[str]
    source_fps: float
    identity: str
    """Hash of everything that decides what is written: finished episodes of another plan aren't these."""


def make_plan(source: Source, config: ImportConfig, threads: int) -> Plan:
    """Look at every episode. Raises `DatasetError` when nothing is left, `ConfigError` for keys that don't fit."""
    fps, kind = check_keys(source, config), _action_kind(source, config)
    notes = list(source.info.notes)
    spec_fps = max(1, min(config.fps, round(fps)))
    notes += _notes_on_rates(source, config, fps, spec_fps, kind)
    looks, left_out = look_at_all(source, config, fps, spec_fps, kind, threads)
    cameras = config.cameras or _choose_cameras(source, looks, notes)
    kept = {number: look for number, look in looks.items() if not look.blank.keys() & set(cameras)}
    left_out += [
        Fault("black" if why == "it is black" else "damaged", f"camera {camera}", why, number)
        for number, look in looks.items()
        for camera, why in look.blank.items()
        if camera in cameras
    ]
    pieces = _cut(kept, _splits(kept, config), config, spec_fps)
    if not pieces:
        raise nothing_left(source, left_out)
    spec = _spec(source, cameras, config.size, spec_fps, kind, list(kept.values()), pieces)
    parts = [(p.episode, int(p.rows[0]), int(p.rows[-1]), len(p.rows), p.split) for p in pieces]
    identity = json_hash([deciding(config), fingerprint(source.root), spec.to_json(), parts])
    return Plan(spec, pieces, left_out, notes, fps, identity)


def nothing_left(source: Source, left_out: list[Fault]) -> DatasetError:
    """The sentence where no episode can be imported."""
    faults = [*source.info.faults, *left_out]
    first = f"; the first: {faults[0].sentence()}" if faults else ""
    return DatasetError(f"{source.root}: no episode can be imported{first}")


def check_keys(source: Source, config: ImportConfig) -> float:
    """The source's frames a second. Raises `ConfigError` for keys that don't fit the source."""
    for camera in config.cameras or ():
        if camera not in source.info.cameras:
            raise ConfigError(unknown("camera", camera, source.info.cameras))
    if not source.info.cameras:
        raise DatasetError(f"{source.root} has no camera with colour pictures; a world model needs some")
    own = source.info.spec
    if own is not None and config.action_kind not in ("auto", own.action_kind):
        raise ConfigError(f"action_kind={config.action_kind}: {source.root} itself says {own.action_kind}")
    fps = config.source_fps or source.info.fps
    if not fps:
        raise ConfigError(f"{source.root} doesn't say how many frames a second it has; set source_fps=")
    return float(fps)


def _action_kind(source: Source, config: ImportConfig) -> ActionKind:
    if not source.info.action_names or config.action_kind == "auto":
        return source.info.action_kind
    return config.action_kind


def _notes_on_rates(
    source: Source, config: ImportConfig, fps: float, spec_fps: int, kind: ActionKind
) -> list[str]:
    """What a user should know of the change of rate."""
    if spec_fps < config.fps:
        return [
            f"{fps:g} frames/s are fewer than {config.fps}: kept at {spec_fps}, as repeated frames would teach that "
            "nothing moves"
        ]
    if spec_fps == round(fps):
        return []
    if kind == "other":
        return [
            "what the commands mean isn't known: of those between two frames the last is kept; with "
            "action_kind=ee_delta (motions of the tool) they are added up"
        ]
    if kind == "ee_delta" and not any("gripper" in name.lower() for name in source.info.action_names):
        return ["no command is called gripper: all numbers of the commands between two frames are added up"]
    return []


def _choose_cameras(source: Source, looks: dict[int, Look], notes: list[str]) -> tuple[str, ...]:
    """The cameras that show something in every episode; else the one that does so most often."""
    there = list(source.info.cameras)
    blank = {camera: sum(camera in look.blank for look in looks.values()) for camera in there}
    for camera in there:
        if blank[camera]:
            number, why = next((n, look.blank[camera]) for n, look in looks.items() if camera in look.blank)
            notes.append(
                f"camera {camera} shows nothing in {blank[camera]} of {len(looks)} episodes (in {number}: {why}); "
                "named in cameras= it is taken, and these episodes are left out"
            )
    full = tuple(camera for camera in there if not blank[camera])
    return full or (min(there, key=lambda camera: blank[camera]),)


def _splits(looks: dict[int, Look], config: ImportConfig) -> dict[int, str]:
    """train or val by episode: the source's own splits if there are both, else a random share is held out."""
    own = {number: "train" if look.split in ("train", None) else "val" for number, look in looks.items()}
    if len(set(own.values())) > 1:
        return own
    numbers = list(looks)
    held_out = round(len(numbers) * config.val_fraction)
    if config.val_fraction > 0 and len(numbers) > 1:
        held_out = max(held_out, 1)
    chosen = np.random.default_rng(config.seed).permutation(len(numbers))[:held_out]
    val = {numbers[place] for place in chosen}
    return {number: "val" if number in val else "train" for number in numbers}


def _cut(looks: dict[int, Look], splits: dict[int, str], config: ImportConfig, fps: int) -> list[Piece]:
    """The pieces in the order in which they are written: recordings longer than `cut` in equal parts.

    Parts of one recording are alike, so they share its split; of a single recording the end is held out.
    """
    pieces: list[Piece] = []
    for number, look in looks.items():
        parts = 1 if config.cut is None else max(1, round(len(look.rows) / max(2, config.cut * fps)))
        groups = np.array_split(look.rows, parts)
        ends = [*(int(group[0]) for group in groups[1:]), None]
        pieces += [Piece(number, g, splits[number], end) for g, end in zip(groups, ends, strict=True)]
    if len(looks) == 1 and len(pieces) > 1 and config.val_fraction > 0:
        train = len(pieces) - max(1, round(len(pieces) * config.val_fraction))
        pieces = [
            replace(piece, split="train" if place < train else "val") for place, piece in enumerate(pieces)
        ]
    ordered = sorted(pieces, key=lambda piece: piece.split != "train")
    return [replace(piece, seed=seed) for seed, piece in enumerate(ordered)]


def _spec(
    source: Source,
    cameras: tuple[str, ...],
    size: int,
    fps: int,
    kind: ActionKind,
    looks: list[Look],
    pieces: list[Piece],
) -> EnvSpec:
    """The contract: the source's own where it is robosim's, else as much as can be known."""
    info = source.info
    if info.spec is not None:
        return replace(info.spec, cameras=cameras, size=size, fps=fps)
    vectors = {"state": info.state_names, "action": info.action_names}
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
    # An outcome that some episodes lack would have to be made up for them.
    outcomes = frozenset.intersection(*(look.outcomes for look in looks))
    return EnvSpec(
        robot=robot,
        tasks=(task,),
        cameras=cameras,
        size=size,
        fps=fps,
        action_kind=kind,
        labels=(*(name for name, names in vectors.items() if names), *sorted(outcomes)),
        state_names=info.state_names,
    )


def task_name(name: str) -> str:
    """A dataset's name as that of its one task: letters, digits and underscores."""
    return re.sub(r"\W+", "_", name).strip("_").lower() or "imported"
