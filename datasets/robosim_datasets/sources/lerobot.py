"""LeRobotDataset v2 and v3 as a source, robosim's own datasets (v3 with `meta/robosim.json`) among them.

Read without LeRobot itself, which reads one version only and takes seconds to import.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from robosim.errors import DatasetError
from robosim.spec import EnvSpec
from robosim_datasets import lerobot_format as own
from robosim_datasets.episode import ENVIRONMENT_STATE
from robosim_datasets.faults import Fault
from robosim_datasets.lerobot_io import open_tables, read_dataset_json, read_spec
from robosim_datasets.sources.lerobot_features import (
    INDEX_KEYS,
    Features,
    Vector,
    guess_action_kind,
    read_features,
)
from robosim_datasets.sources.lerobot_places import Place, Tables, find_faults, read_tables
from robosim_datasets.sources.lerobot_rows import DataFiles, to_array
from robosim_datasets.sources.source import SourceEpisode, SourceInfo
from robosim_datasets.sources.video_frames import decode_numbers, probe
from robosim_datasets.video_dataset import VideoDataset

OTHER_VERSIONS = "robosim reads v2.0, v2.1 and v3; convert the dataset with LeRobot's scripts"


def looks_like_lerobot(path: Path) -> bool:
    """Whether `path` is a folder with LeRobot's `meta/info.json`."""
    try:
        return (Path(path) / own.INFO_JSON).is_file()
    except (OSError, ValueError):
        return False


def open_lerobot(path: Path) -> LeRobotSource:
    """Open a LeRobotDataset v2.0, v2.1 or v3. Raises `DatasetError` when its `meta/info.json` can't be used."""
    root = Path(path)
    info = _read_info(root)
    features = read_features(info["features"], str(root / own.INFO_JSON))
    version = 2 if info["codebase_version"].startswith("v2") else 3
    tables = read_tables(root, info, features.video_keys, version)
    mine = _read_own(root, tables)
    return LeRobotSource(root, info, features, tables, mine)


@dataclass(frozen=True)
class Own:
    """What `meta/robosim.json` adds."""

    dataset: VideoDataset

    @property
    def spec(self) -> EnvSpec:
        return self.dataset.spec

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.dataset.episodes


class LeRobotSource:
    """See `Source`. Episode numbers are LeRobot's own."""

    def __init__(
        self, root: Path, info: dict[str, Any], features: Features, tables: Tables, mine: Own | None
    ) -> None:
        self.root = root
        self._fps = float(info["fps"])
        self._features, self._tables, self._own = features, tables, mine
        self._splits = _split_of_episodes(info, tables) if mine is None else {}
        names = {features.state.key, features.action.key, *features.outcomes, *INDEX_KEYS}
        self._files = DataFiles([*sorted(names - {""}), own.NAMES["environment_state"]])
        self.info = self._describe(info)

    def read(self, episode: int) -> SourceEpisode:
        place = self._place(episode)
        where = f"{place.data}, episode {episode}"
        if self._own:
            table = self._own.dataset.read_rows(episode)
        else:
            table = self._files.read(place.data, episode, place.length)
        if table.num_rows != place.length:
            raise DatasetError(f"{where} has {table.num_rows} rows, the episode table says {place.length}")
        self._check_order(table, where)
        features = self._features
        outcomes = {key: to_array(table, key, 1, where)[:, 0] for key in features.outcomes}
        done = outcomes.pop("next.done", None)
        success = outcomes.get("next.success")
        row = self._own.rows[episode] if self._own else None
        return SourceEpisode(
            length=place.length,
            state=_vector(table, features.state, where),
            action=_vector(table, features.action, where),
            instruction=row["instruction"] if row else self._instruction(place, table),
            reward=outcomes.get("next.reward"),
            success=None if success is None else success.astype(bool),
            environment_state=self._environment_state(table, where),
            timestamps=_times(table, where),
            split=row["split"] if row else self._splits.get(episode),
            metadata=_more(place, done),
            row=row,
        )

    def frames(self, episode: int, camera: str, chosen: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
        place = self._place(episode)
        if camera not in self._features.cameras:
            names = ", ".join(self._features.cameras) or "none"
            raise DatasetError(f"{self.root} has no camera {camera!r}; it has {names}")
        numbers = [int(number) for number in chosen]
        if any(not 0 <= number < place.length for number in numbers):
            raise DatasetError(f"{self.root}: episode {episode} has the frames 0 … {place.length - 1}")
        if self._own:
            self._own.dataset.check_video(episode, camera)
        size = self.info.cameras[camera]
        for pixels in self._decode(episode, camera, place, numbers):
            if pixels.shape[:2] != size:
                raise DatasetError(
                    f"{self.root}: camera {camera} shows {pixels.shape[1]}×{pixels.shape[0]} pixels in episode "
                    f"{episode} and {size[1]}×{size[0]} elsewhere; leave the episode out"
                )
            yield pixels

    def _decode(self, episode: int, camera: str, place: Place, numbers: list[int]) -> Iterator[np.ndarray]:
        key = self._features.cameras[camera].key
        clip = place.clips.get(key)
        if clip is None:
            yield from self._files.pictures(place.data, key, episode, numbers, self.root)
            return
        shown = place.length if clip.frames is None else clip.frames
        try:
            yield from decode_numbers(
                clip.path, [number for number in numbers if number < shown], clip.start, self._fps
            )
        except DatasetError as error:
            raise DatasetError(f"episode {episode}, camera {camera}: {error}") from error
        if numbers and numbers[-1] >= shown:
            raise DatasetError(
                f"{clip.path} holds {shown} frames of episode {episode}, which has {place.length} rows; leave the "
                "episode out"
            )

    def _place(self, episode: int) -> Place:
        if not 0 <= episode < self.info.episodes:
            raise DatasetError(f"{self.root} has no episode {episode}; it has 0 … {self.info.episodes - 1}")
        if episode not in self._tables.places:
            raise DatasetError(
                f"{self.root}: the episode table lacks episode {episode}, or its row is damaged; restore meta/ or "
                "leave the episode out"
            )
        return self._tables.places[episode]

    def _instruction(self, place: Place, table: pa.Table) -> str:
        if place.tasks or "task_index" not in table.column_names:
            return (place.tasks or ("",))[0]
        return self._tables.tasks.get(table["task_index"][0].as_py(), "")

    def _environment_state(self, table: pa.Table, where: str) -> np.ndarray | None:
        if self._own is None or "environment_state" not in self._own.spec.labels:
            return None
        return to_array(table, own.NAMES["environment_state"], len(ENVIRONMENT_STATE), where)

    def _check_order(self, table: pa.Table, where: str) -> None:
        if "frame_index" in table.column_names:
            numbers = table["frame_index"].to_numpy()
            if not np.array_equal(numbers, np.arange(len(numbers))):
                raise DatasetError(f"{where}: the column frame_index doesn't count its rows; restore it")

    def _describe(self, info: dict[str, Any]) -> SourceInfo:
        features, places = self._features, self._tables.places
        episodes = self._tables.episodes
        faults = [*self._tables.faults, *find_faults(self.root, self._tables)]
        sizes, notes = self._camera_sizes()
        named = [self._splits.get(number) for number in range(episodes)]
        described = SourceInfo(
            layout=f"LeRobotDataset {info['codebase_version']}",
            name=self.root.resolve().name,
            cameras=sizes,
            fps=self._fps,
            state_names=features.state.names,
            action_names=features.action.names,
            action_kind=guess_action_kind(features.state, features.action),
            robot=str(info.get("robot_type") or ""),
            episodes=episodes,
            frames=sum(place.length for place in places.values()),
            instructions=self._instructions(),
            splits=dict(Counter(split for split in named if split)),
            metadata={"info.json": info},
            notes=(*features.notes, *notes),
            faults=tuple(faults),
            bytes=_bytes(self.root),
        )
        if self._own is not None:
            return _described_by_itself(described, self._own)
        if described.action_kind == "joint_position":
            note = "commands are taken as joint positions: they have the names of the states"
            described = replace(described, notes=(*described.notes, note))
        return described

    def _instructions(self) -> tuple[str, ...]:
        if self._own is not None:
            return tuple(dict.fromkeys(row["instruction"] for row in self._own.rows))
        firsts = [place.tasks[0] for _, place in sorted(self._tables.places.items()) if place.tasks]
        return tuple(dict.fromkeys(text for text in firsts or self._tables.tasks.values() if text))

    def _camera_sizes(self) -> tuple[dict[str, tuple[int, int]], list[str]]:
        """Sizes as `meta/info.json` has them, put right by the first video that can be opened."""
        sizes, notes = {}, []
        for name, camera in self._features.cameras.items():
            sizes[name] = said = (camera.height, camera.width)
            paths = [place.clips[camera.key].path for place in self._tables.places.values() if place.clips]
            for path in list(dict.fromkeys(paths))[:3] if camera.video else []:
                try:
                    facts = probe(path)
                except DatasetError:
                    continue
                sizes[name] = (facts.height, facts.width)
                break
            if sizes[name] != said:
                notes.append(
                    f"camera {name} shows {sizes[name][1]}×{sizes[name][0]} pixels, not {said[1]}×{said[0]} as "
                    "meta/info.json says"
                )
        return sizes, notes


def _read_info(root: Path) -> dict[str, Any]:
    if not root.is_dir():
        raise DatasetError(
            f"there is no folder {root}; give the folder that holds a dataset's meta/info.json"
        )
    path = root / own.INFO_JSON
    info = read_dataset_json(path)
    version = info.get("codebase_version") if isinstance(info, dict) else None
    fps = info.get("fps") if isinstance(info, dict) else None
    if not isinstance(version, str) or not isinstance(info.get("features"), dict):
        raise DatasetError(
            f"{path} is no LeRobotDataset's: it lacks codebase_version or features; restore it"
        )
    if not version.startswith(("v2.", "v3.")):
        raise DatasetError(f"{root} is a LeRobotDataset {version}; {OTHER_VERSIONS}")
    if not isinstance(fps, int | float) or not math.isfinite(fps) or fps <= 0:
        raise DatasetError(f"{path} says fps {fps!r} and not a number of frames a second; mend it there")
    return info


def _read_own(root: Path, tables: Tables) -> Own | None:
    """`meta/robosim.json`, if there is one. Where it is damaged, the rest is still a LeRobotDataset."""
    path = root / own.ROBOSIM_JSON
    if not path.exists():
        return None
    try:
        read_spec(root)
    except DatasetError as error:
        tables.faults.append(Fault("schema", own.ROBOSIM_JSON, f"{error}; read without it"))
        return None
    # Without these two nobody knows where an episode lies or what its numbers are.
    dataset = open_tables(root)
    for name in (own.INFO_JSON, own.EPISODES_PARQUET):
        dataset.check_file(root / name)
    lengths = {row.get("index"): row.get("length") for row in dataset.episodes}
    if lengths != {number: place.length for number, place in tables.places.items()}:
        raise DatasetError(f"{path} and meta/episodes disagree about the episodes; restore them")
    tables.faults += _changed_files(root, dataset.files)
    return Own(dataset)


def _changed_files(root: Path, files: dict[str, dict[str, Any]]) -> list[Fault]:
    """Files of another size than was written; data and videos that are missing have faults by episode already."""
    faults = []
    for name, record in files.items():
        size = os.path.getsize(root / name) if (root / name).is_file() else 0
        if size != record["bytes"] and (size or name.startswith("meta/")):
            faults.append(Fault("damaged", name, f"{size} bytes, written were {record['bytes']}"))
    return faults


def _described_by_itself(info: SourceInfo, mine: Own) -> SourceInfo:
    spec = mine.spec
    kept = {"spec": spec.to_json(), "provenance": mine.dataset.provenance}
    return replace(
        info,
        layout=f"robosim ({info.layout})",
        state_names=spec.state_columns,
        action_names=spec.action_columns,
        action_kind=spec.action_kind,
        robot=spec.robot.name,
        splits=dict(Counter(row["split"] for row in mine.rows)),
        metadata={**info.metadata, "robosim.json": kept},
        notes=tuple(note for note in info.notes if own.NAMES["environment_state"] not in note),
        spec=spec,
    )


def _split_of_episodes(info: dict[str, Any], tables: Tables) -> dict[int, str]:
    """Split by episode, from `splits` in `meta/info.json`: ranges "from:to"."""
    splits: dict[int, str] = {}
    ranges = info.get("splits") or {}
    if not isinstance(ranges, dict):
        tables.faults.append(Fault("schema", own.INFO_JSON, "splits has no ranges by name"))
        return splits
    for name, text in ranges.items():
        try:
            start, stop = (int(number) for number in str(text).split(":"))
        except ValueError:
            tables.faults.append(
                Fault("schema", own.INFO_JSON, f"split {name} is {text!r} and not a range from:to")
            )
            continue
        shared: dict[str, list[int]] = {}
        for number in range(max(start, 0), min(stop, tables.episodes)):
            if (other := splits.setdefault(number, name)) != name:
                shared.setdefault(other, []).append(number)
        tables.faults += [
            Fault(
                "splits",
                own.INFO_JSON,
                f"{other} and {name} both have the episodes {numbers[0]}:{numbers[-1] + 1}",
            )
            for other, numbers in shared.items()
        ]
    return splits


def _vector(table: pa.Table, vector: Vector, where: str) -> np.ndarray:
    if not vector.key:
        return np.zeros((table.num_rows, 0), np.float32)
    return to_array(table, vector.key, len(vector.names), where)


def _times(table: pa.Table, where: str) -> np.ndarray | None:
    if "timestamp" not in table.column_names:
        return None
    times = to_array(table, "timestamp", 1, where, np.float64)[:, 0]
    wrong = np.flatnonzero(~np.isfinite(times))
    wrong = wrong if len(wrong) else np.flatnonzero(np.diff(times) <= 0) + 1
    if len(wrong):
        raise DatasetError(f"{where}: its time stamps don't rise at frame {wrong[0]}; restore it")
    return times


def _more(place: Place, done: np.ndarray | None) -> dict[str, Any]:
    more = dict(place.more)
    if len(place.tasks) > 1:
        more["tasks"] = list(place.tasks)
    if done is not None:
        more["done_frames"] = np.flatnonzero(done).tolist()
    return more


def _bytes(root: Path) -> int:
    files = (path for path in root.rglob("*") if not path.relative_to(root).parts[0].startswith("."))
    return sum(path.stat().st_size for path in files if path.is_file())
