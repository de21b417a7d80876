"""RLDS datasets in the Open-X layout: TFRecord files whose records are episodes.

Opening reads every file once, so that all checksums are checked and every damaged episode is known, and decodes no
picture but those of a camera that shows one and the same picture throughout an episode: they may be black.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robosim.errors import DatasetError
from robosim.spec import ActionKind
from robosim_datasets.faults import Fault
from robosim_datasets.sources import tfrecord
from robosim_datasets.sources.opening import one_by_one
from robosim_datasets.sources.pictures import ERRORS, decode_picture, is_black, picture_size
from robosim_datasets.sources.rlds_features import (
    Columns,
    Feature,
    choose_columns,
    count_fault,
    infer_features,
    number_names,
    step_count,
)
from robosim_datasets.sources.rlds_files import (
    KNOWN,
    SHARD,
    Known,
    read_layout,
    record_files,
)
from robosim_datasets.sources.source import SourceEpisode, SourceInfo
from robosim_datasets.sources.tfrecord import Record, Values


@dataclass
class _Entry:
    """What opening found out about one episode."""

    path: Path
    record: Record
    number_in_file: int
    split: str | None
    length: int = 0
    fault: str = ""
    """Why it can't be used; "" if it can."""
    instruction: str = ""
    black: tuple[str, ...] = ()
    """Cameras that show nothing."""
    denied: tuple[str, ...] = ()
    """Cameras that do show something, although `has_image_*` says otherwise."""
    end_marked: bool = True


class RldsSource:
    """An opened RLDS dataset."""

    def __init__(self, path: Path) -> None:
        self.root = path
        self._last = threading.local()
        files = record_files(path)
        self._layout = read_layout(files[0].parent, files, whole=path.is_dir())
        self._entries: list[_Entry] = []
        for file in one_by_one(files):
            self._scan(file)
        self._columns = choose_columns(self._layout.features)
        shown = self._shown_cameras()
        self._cameras = {name: f for name, f in self._columns.cameras.items() if shown[name]}
        self.info = self._describe(files, shown)

    def read(self, episode: int) -> SourceEpisode:
        entry, values = self._load(episode)
        length, known = entry.length, self._features_of(values)
        metadata: dict[str, Any] = {"file": entry.path.name, "record": entry.number_in_file}
        for feature in known:
            if not feature.in_steps and feature.kind != "unread" and len(values.get(feature.name, ())) == 1:
                metadata[feature.name.rsplit("/", 1)[-1]] = _plain(values[feature.name][0], feature)
            elif feature.in_steps and feature.kind == "text" and feature not in self._columns.instructions:
                metadata[feature.short] = _plain(values[feature.name][0], feature)
        if entry.black:
            metadata["black_cameras"] = list(entry.black)
        reward = values.get("steps/reward")
        rewarded = isinstance(reward, np.ndarray) and len(reward) == length
        return SourceEpisode(
            length=length,
            state=_concatenate(self._columns.state, values, length),
            action=_concatenate(self._columns.action, values, length),
            instruction=entry.instruction,
            reward=np.array(reward, np.float32) if rewarded else None,
            split=entry.split,
            metadata=metadata,
        )

    def frames(self, episode: int, camera: str, chosen: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
        entry, values = self._load(episode)
        feature = self._columns.cameras.get(camera)
        if feature is None:
            raise DatasetError(f"{self.root} has no camera {camera!r}; it has {', '.join(self._cameras)}")
        pictures, last = values[feature.name], (-1, np.empty(0, np.uint8))
        for number in map(int, chosen):
            if not 0 <= number < entry.length:
                raise DatasetError(f"{self._where(episode)} ends before frame {number} of camera {camera}")
            if number != last[0]:
                last = number, self._decode(pictures[number], feature, f"{camera}, frame {number}", episode)
            yield last[1]

    def _decode(self, data: bytes, feature: Feature, where: str, episode: int) -> np.ndarray:
        try:
            picture = decode_picture(data)
        except ERRORS as error:
            message = f"{self._where(episode)}: the picture of {where} can't be decoded ({error})"
            raise DatasetError(f"{message}; restore the file or leave the episode out") from error
        if None not in feature.shape and picture.shape != feature.shape:
            raise DatasetError(
                f"{self._where(episode)}: the picture of {where} has the shape {picture.shape}, features.json says "
                f"{feature.shape}; leave the episode out"
            )
        return picture

    def _load(self, episode: int) -> tuple[_Entry, dict[str, Values]]:
        """An episode's features. Raises `DatasetError` for one that is damaged or doesn't exist.

        A thread keeps its last one: numbers and cameras of an episode are read one after another.
        """
        if not 0 <= episode < len(self._entries):
            raise DatasetError(
                f"{self.root} has no episode {episode}; it has {len(self._entries)}, counted from 0"
            )
        entry = self._entries[episode]
        if entry.fault:
            raise DatasetError(
                f"{self._where(episode)} is damaged: {entry.fault}; restore it or leave it out"
            )
        number, values = getattr(self._last, "record", (None, None))
        if number != episode or values is None:
            self._last.record = None, None  # two records at a time may be too much
            values = tfrecord.parse_example(tfrecord.read_record(entry.path, entry.record))
            self._last.record = episode, values
        return entry, values

    def _where(self, episode: int) -> str:
        entry = self._entries[episode]
        return f"{entry.path}: episode {episode} (record {entry.number_in_file} of the file)"

    def _scan(self, path: Path) -> None:
        """Check a file and make an entry of each of its records."""
        scan = tfrecord.scan_records(path)
        self._layout.faults += scan.faults
        shard = SHARD.search(path.name)
        split = shard["split"] if shard else None
        key = (shard["split"], int(shard["index"]), int(shard["count"])) if shard else None
        expected = self._layout.records.get(key) if key else None
        if expected is not None and expected != len(scan.records):
            what = f"has {len(scan.records)} episodes where dataset_info.json says {expected}"
            self._layout.faults.append(Fault("length", path.name, what))
        for number, record in enumerate(scan.records):
            entry = _Entry(path, record, number, split)
            if number in scan.damaged:
                entry.fault = f"checksum: its data at byte {record.start} aren't what was written"
            else:
                try:
                    self._inspect(entry)
                except DatasetError as error:
                    entry.fault = f"schema: {error}"
            self._entries.append(entry)

    def _inspect(self, entry: _Entry) -> None:
        """Fill in what a record says about its episode."""
        values = tfrecord.parse_example(tfrecord.read_record(entry.path, entry.record))
        features = self._features_of(values)
        entry.length = step_count(values, features)
        missing = count_fault(features, values, entry.length)
        if not entry.length:
            entry.fault = "length: it has no steps"
        elif missing:
            entry.fault = f"length: {missing}"
        else:
            entry.fault = _bounds_fault(values)
        if entry.fault:
            return
        last = values.get("steps/is_last")
        entry.end_marked = last is None or bool(last[-1])
        columns = choose_columns(features)
        entry.instruction = _instruction(columns, values)
        entry.black = tuple(name for name, f in columns.cameras.items() if _is_blank(values[f.name]))
        entry.denied = tuple(
            name
            for name in columns.cameras
            if name not in entry.black and not _first(values, f"episode_metadata/has_{name}", True)
        )

    def _features_of(self, values: Mapping[str, Values]) -> list[Feature]:
        """The dataset's features; the first record that is whole tells them where features.json doesn't."""
        if not self._layout.features:
            self._layout.features = infer_features(values)
            if self._layout.features:
                self._layout.notes.append(
                    "without a features.json that can be read, names and shapes are inferred"
                )
        return self._layout.features

    def _shown_cameras(self) -> Counter[str]:
        """In how many episodes each camera shows something."""
        good = [entry for entry in self._entries if not entry.fault]
        return Counter(name for entry in good for name in self._columns.cameras if name not in entry.black)

    def _describe(self, files: Sequence[Path], shown: Counter[str]) -> SourceInfo:
        good = [entry for entry in self._entries if not entry.fault]
        if not good:
            reason = self._entries[0].fault if self._entries else "it holds no records"
            reason = self._layout.faults[0].sentence() if self._layout.faults else reason
            raise DatasetError(f"{self.root} has no episode that can be read ({reason}); restore it")
        columns, known = self._columns, KNOWN.get(self._layout.name)
        names = known.names if known else ()
        action, state = number_names(columns.action), number_names(columns.state)
        kind: ActionKind = "none" if not action else known.action_kind if known else "other"
        features = {
            f.name: {"dtype": f.dtype, "shape": list(f.shape), "description": f.description}
            for f in self._layout.features
        }
        return SourceInfo(
            layout="RLDS (TFRecord)",
            name=self._layout.name,
            cameras={name: self._camera_size(name, feature) for name, feature in self._cameras.items()},
            fps=float(known.fps) if known else None,
            state_names=names if len(names) == len(state) else state,
            action_names=names if len(names) == len(action) else action,
            action_kind=kind,
            robot=known.robot if known else "unknown",
            episodes=len(self._entries),
            frames=sum(entry.length for entry in good),
            instructions=tuple(dict.fromkeys(entry.instruction for entry in good if entry.instruction)),
            splits=dict(Counter(entry.split for entry in self._entries if entry.split)),
            metadata={"dataset_info": self._layout.info, "features": features},
            notes=(*self._layout.notes, *self._notes(good, shown, known)),
            faults=tuple(self._layout.faults),
            bytes=sum(file.stat().st_size for file in files),
        )

    def _camera_size(self, name: str, feature: Feature) -> tuple[int, int]:
        height, width = feature.shape[:2]
        if height and width:
            return height, width
        for episode, entry in enumerate(self._entries):
            if not entry.fault and name not in entry.black:
                _, values = self._load(episode)
                try:
                    return picture_size(values[feature.name][0])
                except ERRORS:
                    continue
        raise DatasetError(f"{self.root}: no picture of camera {name} can be decoded; restore it")

    def _notes(self, good: Sequence[_Entry], shown: Counter[str], known: Known | None) -> Iterator[str]:
        if known is None:
            yield "RLDS doesn't say how many frames a second there are: set source_fps="
        else:
            yield f"{known.fps:g} frames/s is what the makers of {self._layout.name} say; the files don't"
        for name in self._columns.cameras:
            if not shown[name]:
                yield f"camera {name} is black in all episodes and is left out"
            elif shown[name] < len(good):
                yield f"camera {name} shows something in only {shown[name]} of {len(good)} episodes"
        denied = sorted({name for entry in good for name in entry.denied})
        if denied:
            yield f"has_image_* denies pictures that are there ({', '.join(denied)}); the pictures are believed"
        if len(self._columns.state) > 1:
            yield f"the state is {', '.join(f.short for f in self._columns.state)}, in this order"
        if len(self._columns.action) > 1:
            yield f"the action is {', '.join(f.short for f in self._columns.action)}, in this order"
        if self._columns.left_out:
            yield f"left out: {', '.join(f.short for f in self._columns.left_out)}"
        unmarked = sum(not entry.end_marked for entry in good)
        if unmarked:
            yield f"{unmarked} of {len(good)} episodes have no mark at their end (is_last): they may be cut short"


def open_rlds(path: Path) -> RldsSource:
    """Open a dataset's folder, the folder above its versions, or one TFRecord file. Raises `DatasetError`."""
    return RldsSource(Path(path))


def looks_like_rlds(path: Path) -> bool:
    """Whether there are TFRecord files at `path` or in the folders of its versions."""
    try:
        if path.is_file():
            return ".tfrecord" in path.name
        patterns = ("*.tfrecord*", "*/*.tfrecord*", "*/*/*.tfrecord*")
        return path.is_dir() and any(next(path.glob(pattern), None) for pattern in patterns)
    except OSError:
        return False


def _bounds_fault(values: Mapping[str, Values]) -> str:
    """Where is_first or is_last marks another step than the record's own first and last."""
    first, last = values.get("steps/is_first", ()), values.get("steps/is_last", ())
    starts = [t for t in range(1, len(first)) if first[t]]
    ends = [t for t in range(len(last) - 1) if last[t]]
    if starts:
        return f"bounds: is_first marks step {starts[0]}, in the middle of the record"
    if ends:
        return f"bounds: is_last marks step {ends[0]} of {len(last)}, in the middle of the record"
    return ""


def _is_blank(pictures: Values) -> bool:
    """Whether a camera shows nothing in an episode. Only one picture is decoded, and only if all are the same."""
    if any(picture != pictures[0] for picture in pictures):
        return False
    if not len(pictures[0]):
        return True
    try:
        return is_black(decode_picture(pictures[0]))
    except ERRORS:
        return False


def _instruction(columns: Columns, values: Mapping[str, Values]) -> str:
    """The first sentence that isn't empty."""
    for feature in columns.instructions:
        for value in values.get(feature.name, ()):
            if value:
                return str(_plain(value, feature)).strip()
    return ""


def _concatenate(features: Sequence[Feature], values: Mapping[str, Values], length: int) -> np.ndarray:
    parts = [np.asarray(values[f.name], np.float32).reshape(length, f.size) for f in features]
    return np.concatenate([np.zeros((length, 0), np.float32), *parts], axis=1)


def _first(values: Mapping[str, Values], name: str, default: Any) -> Any:
    return values[name][0] if len(values.get(name, ())) else default


def _plain(value: Any, feature: Feature) -> Any:
    """A value as JSON has it."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return bool(value) if feature.dtype == "bool" else value.item()
