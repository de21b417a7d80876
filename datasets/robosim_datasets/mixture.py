"""Several datasets as one clip store, of which each gives its share of the clips.

    <run>/dataset/mixture.json   what was mixed: names, paths, hashes, weights
    <run>/clips/index.json       all episodes, and the shards of the parts, which stay where they are
    <run>/clips/columns/*.h5     motion, the labels of the parts with commands, and what later stages add

No frame is copied or decoded again. The parts' own folders are never written to.

A large set of bare video and a few episodes with commands make a mixture whose labels are those of the few. The other
rows hold NaN (`success`: false), and their episodes say that they aren't labelled.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from robosim.checkpoint import atomic_write_json, json_hash, read_json
from robosim.errors import ConfigError, DatasetError
from robosim.spec import LABELS, EnvSpec, RobotSpec, TaskSpec
from robosim_datasets import clip_files as files
from robosim_datasets.clip_store import MOTION, ClipStore, EpisodeRow, frame_motion, has_commands
from robosim_datasets.folders import StagedFolder

MIXTURE_JSON = "mixture.json"

RUNS = Path("runs")
"""Where a dataset is looked for by its name alone."""

VIEW = "view"
"""The camera of a mixture whose parts have no camera name in common."""

NO_ROBOT = RobotSpec("mixed", (), (), (), ())
"""Of a mixture without commands, or whose parts' commands don't mean the same."""


@dataclass(frozen=True)
class MixConfig:
    """`data`: paths of runs, or their names below runs/. `weights`: one each; None: every clip equally likely."""

    data: tuple[str, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.data:
            raise ConfigError("data=[] names no dataset; set data=[RUN,RUN]")
        if self.weights is None:
            return
        shown = f"weights={list(self.weights)}"
        if len(self.weights) != len(self.data):
            raise ConfigError(
                f"{shown} has {len(self.weights)} numbers for {len(self.data)} datasets in data="
            )
        if not all(math.isfinite(weight) and weight > 0 for weight in self.weights):
            raise ConfigError(f"{shown}: weights are numbers above 0; leave a dataset out of data= instead")


def mix_clips(config: MixConfig, run: Path) -> dict[str, Any]:
    """Make `run`'s clip store a mixture; returns its figures. What is there already as asked for is kept.

    Raises `DatasetError` where a dataset isn't there, is a mixture itself or doesn't fit the first, `OutputError` where
    `run` holds another clip store.
    """
    out = (Path(run) / "clips").resolve()
    stores = _open_parts(config, out)
    names = _names(config.data, stores)
    _check_fit(names, stores)
    if config.weights:
        _check_training(names, stores)
    parts = [
        files.Part(
            name, Path(os.path.relpath(store.path, out)).as_posix(), store.source, len(store.episodes), weight
        )
        for name, store, weight in zip(names, stores, config.weights or itertools.repeat(None), strict=False)
    ]
    if not ((out / files.INDEX).is_file() and ClipStore(out).parts == parts):
        _write_store(out, parts, stores)
    mixed = [
        {**asdict(part), "path": Path(os.path.relpath(out / part.path, out.parent)).as_posix()}
        for part in parts
    ]
    atomic_write_json(out.parent / "dataset" / MIXTURE_JSON, {"parts": mixed})
    return {
        "datasets": names,
        "episodes": sum(len(store.episodes) for store in stores),
        "frames": sum(store.num_frames for store in stores),
        "weights": list(config.weights) if config.weights else None,
    }


def find_clips(name: str) -> Path:
    """The clip store of a dataset, absolute: `name` is the path of a run or a store, or a run's name below runs/."""
    given = Path(name).expanduser()
    beside = [given.parent / "clips"] if given.name == "dataset" else []
    for folder in (given / "clips", given, *beside, RUNS / given / "clips"):
        if (folder / files.INDEX).is_file():
            return folder.resolve()
    raise DatasetError(
        f"data={name} has no clips, neither at {given} nor at {RUNS / given}; `robosim import {name} out=runs/NAME` "
        "makes them"
    )


def label_source(run: Path) -> Path | None:
    """The dataset that the labels of `run` come from, of a mixture the first; None where it is gone."""
    own = Path(run) / "dataset"
    folders = [own]
    if (own / MIXTURE_JSON).is_file():
        stores = [(Path(run) / part["path"]).resolve() for part in read_json(own / MIXTURE_JSON)["parts"]]
        specs = [EnvSpec.from_json(files.read_index(store)["spec"]) for store in stores]
        folders = [
            store.parent / "dataset" for store, spec in zip(stores, specs, strict=True) if has_commands(spec)
        ]
    return next((folder for folder in folders if folder.is_dir()), None)


def merged_spec(specs: Sequence[EnvSpec]) -> EnvSpec:
    """The contract of a mixture; its tasks are those of the first part, see `_merged_tasks` for the others'.

    Of the parts with commands, labels are those that all have, if robot, kind of command and names of states are the
    same throughout: the limits are then the widest. Else there are none, as where no part has commands. The cameras are
    those that all parts have, or the one `VIEW`.
    """
    cameras = tuple(camera for camera in specs[0].cameras if all(camera in spec.cameras for spec in specs))
    labelled = [spec for spec in specs if has_commands(spec)]
    if len({_meaning(spec) for spec in labelled}) == 1:
        robot = replace(
            labelled[0].robot,
            lower=tuple(np.min([spec.robot.lower for spec in labelled], axis=0).tolist()),
            upper=tuple(np.max([spec.robot.upper for spec in labelled], axis=0).tolist()),
        )
        labels = tuple(label for label in LABELS if all(label in spec.labels for spec in labelled))
        spec = replace(labelled[0], tasks=specs[0].tasks, robot=robot, labels=labels)
    else:
        spec = replace(specs[0], robot=NO_ROBOT, action_kind="none", labels=(), state_names=None)
    return replace(spec, cameras=cameras or (VIEW,))


def _open_parts(config: MixConfig, out: Path) -> list[ClipStore]:
    folders = [find_clips(name) for name in config.data]
    stores = []
    for name, folder in zip(config.data, folders, strict=True):
        if folders.count(folder) > 1:
            raise ConfigError(f"data= names {folder} more than once; give it a larger weight instead")
        if folder == out:
            raise ConfigError(f"data={name} is the run that the mixture goes to; set out= to another one")
        store = ClipStore(folder)
        if store.parts:
            parts = ", ".join(part.name for part in store.parts)
            raise DatasetError(f"data={name} is a mixture itself; name its parts in data= instead ({parts})")
        stores.append(store)
    return stores


def _names(data: Sequence[str], stores: Sequence[ClipStore]) -> list[str]:
    """The runs' folder names, or what the user wrote where two are the same."""
    names = [store.path.parent.name if store.path.name == "clips" else store.path.name for store in stores]
    return names if len(set(names)) == len(names) else list(data)


def _check_fit(names: Sequence[str], stores: Sequence[ClipStore]) -> None:
    """Raise `DatasetError` where size or frame rate isn't that of the first."""
    first = stores[0].spec
    for name, store in zip(names, stores, strict=True):
        if store.spec.size != first.size:
            raise DatasetError(
                f"{names[0]} has frames of {first.size} pixels and {name} of {store.spec.size}; collect or import one "
                f"of them again, with size={first.size} or size={store.spec.size}"
            )
        if store.spec.fps != first.fps:
            raise DatasetError(
                f"{names[0]} runs at {first.fps} frames/s and {name} at {store.spec.fps}; import one of them again, "
                f"with fps={first.fps} or fps={store.spec.fps}"
            )


def _check_training(names: Sequence[str], stores: Sequence[ClipStore]) -> None:
    for name, store in zip(names, stores, strict=True):
        if not store.select(split="train"):
            raise DatasetError(
                f"{name} has no training episodes, so it can't have a weight; leave weights= or the dataset out"
            )


def _meaning(spec: EnvSpec) -> tuple[Any, ...]:
    """What must be the same for the labels of two datasets to mean the same."""
    robot = spec.robot
    arm = robot.name, robot.joint_names, robot.joint_units, robot.content or robot.model
    return *arm, spec.action_kind, spec.state_columns, spec.action_columns


def _write_store(out: Path, parts: Sequence[files.Part], stores: Sequence[ClipStore]) -> None:
    spec = merged_spec([store.spec for store in stores])
    tasks, rows = _merged_episodes(stores)
    spec = replace(spec, tasks=tasks)
    source = json_hash({"mixture": [(part.source, part.weight) for part in parts], "cameras": spec.cameras})
    folder = StagedFolder(out, marker=files.INDEX)
    try:
        for label in spec.labels:
            files.write_column(folder.path, label, _joined(stores, label), {"mixture": source})
        files.write_column(folder.path, MOTION, _motion(stores, spec.cameras[0]), {"from": "pixels"})
        index = {
            "spec": spec.to_json(),
            "source": source,
            "episodes": [asdict(row) for row in rows],
            "shards": [shard for camera in spec.cameras for shard in _shards(parts, stores, camera)],
            "parts": [asdict(part) for part in parts],
        }
        files.write_index(folder.path, index)
        folder.commit()
    except BaseException:
        folder.abort()
        raise


def _merged_episodes(stores: Sequence[ClipStore]) -> tuple[tuple[TaskSpec, ...], list[EpisodeRow]]:
    """All tasks, and the episodes in the order of the parts.

    A task with the name of another, but not its sentence, horizon or rule, gets a number behind its name. Episodes of
    parts without commands aren't labelled.
    """
    tasks: dict[str, TaskSpec] = {}
    rows: list[EpisodeRow] = []
    offset = 0
    for store in stores:
        names = {task.name: _placed(task, tasks) for task in store.spec.tasks}
        placed = {"labelled": has_commands(store.spec)}
        rows += [
            replace(row, start=offset + row.start, task=names[row.task], **placed) for row in store.episodes
        ]
        offset += store.num_frames
    return tuple(tasks.values()), rows


def _placed(task: TaskSpec, tasks: dict[str, TaskSpec]) -> str:
    """The name under which `task` is among `tasks`, where it is put if it isn't there yet."""
    names = itertools.chain([task.name], (f"{task.name}_{number}" for number in itertools.count(2)))
    renamed = (replace(task, name=name) for name in names)
    return next(other.name for other in renamed if tasks.setdefault(other.name, other) == other)


def _shards(parts: Sequence[files.Part], stores: Sequence[ClipStore], camera: str) -> list[dict[str, Any]]:
    """The index entries of a camera's files, as seen from the mixture."""
    entries, offset = [], 0
    for part, store, own in zip(parts, stores, _own_cameras(stores, camera), strict=True):
        for shard in store.shards(own):
            place = {"file": f"{part.path}/{shard['file']}", "first_frame": offset + shard["first_frame"]}
            entries.append({**shard, **place, "camera": camera})
        offset += store.num_frames
    return entries


def _own_cameras(stores: Sequence[ClipStore], camera: str) -> list[str]:
    """What `camera` of the mixture is called in each part: the same, or their first where they share none."""
    shared = all(camera in store.spec.cameras for store in stores)
    return [camera if shared else store.spec.cameras[0] for store in stores]


def _joined(stores: Sequence[ClipStore], label: str) -> np.ndarray:
    """A label of all parts; NaN, or false, in the rows of those without commands."""
    known = next(store.column(label) for store in stores if has_commands(store.spec))
    nothing = np.nan if known.dtype.kind == "f" else 0
    return np.concatenate(
        [
            store.column(label)
            if has_commands(store.spec)
            else np.full((store.num_frames, *known.shape[1:]), nothing, known.dtype)
            for store in stores
        ]
    )


def _motion(stores: Sequence[ClipStore], camera: str) -> np.ndarray:
    """The motion column of the mixture's first camera, computed anew where that isn't a part's first."""
    columns = []
    for store, own in zip(stores, _own_cameras(stores, camera), strict=True):
        if own == store.spec.cameras[0]:
            columns.append(store.column(MOTION))
        else:
            episodes = range(len(store.episodes))
            columns += [frame_motion(store.frames(episode, camera=own)) for episode in episodes]
    return np.concatenate(columns)
