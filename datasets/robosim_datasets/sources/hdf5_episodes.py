"""Episodes in HDF5 files: vectors and pictures in datasets of one length, as ALOHA and robomimic have them.

HDF5 keeps no checksums of its own: what is found is missing files and keys, lengths and shapes that don't fit, files
that are cut off and pictures that can't be decoded. A file may name others, as links or as the place of its data; these
are never opened, as a file from elsewhere could name any.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from robosim.errors import DatasetError
from robosim_datasets.sources.pictures import ERRORS, decode_picture, picture_size
from robosim_datasets.sources.source import SourceEpisode, SourceInfo

SUFFIXES = (".hdf5", ".h5")
H5_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, MemoryError)
"""What h5py raises for files that aren't what they should be."""


class Camera(NamedTuple):
    """One column of pictures in a file."""

    dataset: str
    """Its name within the episode's group."""
    height: int
    width: int
    compressed: bool
    """Whether every row holds a JPEG or PNG file, perhaps padded with zeros, and not the pixels."""


@dataclass
class Place:
    """Where an episode lies, and what opening found there."""

    path: Path
    group: str = "/"
    split: str | None = None
    length: int = 0
    fault: str = ""
    """Why it can't be used; "" if it can."""
    state: tuple[str, ...] = ()
    """Datasets that make up the state, in order."""
    action: tuple[str, ...] = ()
    state_names: tuple[str, ...] = ()
    """Of the numbers in them."""
    action_names: tuple[str, ...] = ()
    reward: str | None = None
    cameras: dict[str, Camera] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    instruction: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


class Hdf5Source:
    """Opened HDF5 files. `info` is set by the layout, which knows what the names mean."""

    info: SourceInfo

    def __init__(self, root: Path, places: Sequence[Place]) -> None:
        self.root = root
        self._places = places
        _mark_odd_ones(places)
        self.good = [place for place in places if not place.fault]
        if not self.good:
            reason = f"{places[0].path.name}: {places[0].fault}" if places else "there are no episodes in it"
            raise DatasetError(f"{root} has no episode that can be read ({reason}); restore it")

    def read(self, episode: int) -> SourceEpisode:
        with self._opened(episode) as (place, group):
            columns = {}
            for name in (*place.state, *place.action, *filter(None, (place.reward,))):
                values = np.asarray(dataset_of(group, name)[()], np.float32)
                if len(values) != place.length:
                    raise DatasetError(f"{name} changed its length since the file was opened")
                columns[name] = values.reshape(place.length, -1)
            empty = np.zeros((place.length, 0), np.float32)
            return SourceEpisode(
                length=place.length,
                state=np.concatenate([empty, *(columns[name] for name in place.state)], axis=1),
                action=np.concatenate([empty, *(columns[name] for name in place.action)], axis=1),
                instruction=place.instruction,
                reward=columns[place.reward][:, 0] if place.reward else None,
                split=place.split,
                metadata={"file": place.path.name, **place.metadata},
            )

    def frames(self, episode: int, camera: str, chosen: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
        with self._opened(episode) as (place, group):
            if camera not in place.cameras:
                raise DatasetError(f"it has no camera {camera}, only {', '.join(place.cameras) or 'none'}")
            column = place.cameras[camera]
            rows, last, picture = dataset_of(group, column.dataset), -1, np.empty(0, np.uint8)
            for number in map(int, chosen):
                if not 0 <= number < place.length:
                    raise DatasetError(f"camera {camera} ends before frame {number}")
                if number != last:
                    picture, last = _picture(rows[number], column, f"{camera}, frame {number}"), number
                yield picture

    @contextmanager
    def _opened(self, episode: int) -> Iterator[tuple[Place, h5py.Group]]:
        """The episode's group, with every error naming file and episode."""
        if not 0 <= episode < len(self._places):
            raise DatasetError(
                f"{self.root} has no episode {episode}; it has {len(self._places)}, counted from 0"
            )
        place = self._places[episode]
        where = f"{place.path}: episode {episode}" + (f" ({place.group})" if place.group != "/" else "")
        if place.fault:
            raise DatasetError(f"{where} is damaged: {place.fault}; restore it or leave it out")
        try:
            with h5py.File(place.path, "r") as file:
                yield place, group_of(file, place.group)
        except (DatasetError, *H5_ERRORS) as error:
            raise DatasetError(
                f"{where} can't be read ({reason_of(error)}); restore it or leave it out"
            ) from error

    def camera_sizes(self) -> dict[str, tuple[int, int]]:
        """Height and width by camera, as most episodes have them."""
        sizes: dict[str, Counter[tuple[int, int]]] = {}
        for place in self.good:
            for name, camera in place.cameras.items():
                sizes.setdefault(name, Counter())[(camera.height, camera.width)] += 1
        return {name: counts.most_common(1)[0][0] for name, counts in sizes.items()}

    def common_notes(self) -> Iterator[str]:
        """What the layouts have in common to say."""
        for name in self.camera_sizes():
            count = sum(name in place.cameras for place in self.good)
            if count < len(self.good):
                yield f"camera {name} is in only {count} of {len(self.good)} episodes"
        left_out = sorted({name for place in self.good for name in place.left_out})
        if left_out:
            yield f"left out: {', '.join(left_out)}"

    def splits(self) -> dict[str, int]:
        return dict(Counter(place.split for place in self._places if place.split))

    def instructions(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(place.instruction for place in self.good if place.instruction))


def _mark_odd_ones(places: Sequence[Place]) -> None:
    """Make a fault of vectors that have other numbers than those of most episodes."""
    kinds = Counter((place.state_names, place.action_names) for place in places if not place.fault)
    for place in places if len(kinds) > 1 else ():
        state, action = kinds.most_common(1)[0][0]
        if not place.fault and (place.state_names, place.action_names) != (state, action):
            place.fault = (
                f"shape: it has {len(place.state_names)} numbers a state and {len(place.action_names)} an action, "
                f"most have {len(state)} and {len(action)}, or others"
            )


def hdf5_files(path: Path) -> list[Path]:
    """`path` itself or the HDF5 files below it, `episode_2` before `episode_10`."""
    if path.is_file():
        return [path]
    files = [file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file()]
    return sorted(files, key=lambda file: counting_order(str(file.relative_to(path))))


def counting_order(name: str) -> list[tuple[int, str]]:
    """Key that sorts numbers within names as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def first_readable(path: Path, tries: int = 20) -> Iterator[h5py.File]:
    """The first file at `path` that opens, if there is one: to see which layout it has."""
    for file in hdf5_files(path)[:tries]:
        try:
            with h5py.File(file, "r") as opened:
                yield opened
                return
        except OSError:
            continue


def group_of(parent: h5py.Group, name: str) -> h5py.Group:
    """A group by name. Raises `DatasetError` where there is none, or where it lies in another file."""
    group = _item(parent, name)
    if not isinstance(group, h5py.Group):
        raise DatasetError(f"schema: the group {name} is missing")
    return group


def dataset_of(parent: h5py.Group, name: str) -> h5py.Dataset:
    """A dataset by name. Raises `DatasetError` where there is none, or where its data lie in another file."""
    dataset = _item(parent, name)
    if not isinstance(dataset, h5py.Dataset):
        raise DatasetError(f"schema: {name} is missing")
    elsewhere = dataset.is_virtual and any(part.file_name != "." for part in dataset.virtual_sources())
    if elsewhere or dataset.external:
        raise DatasetError(f"schema: the data of {name} lie in another file, which isn't opened")
    return dataset


def names_in(group: h5py.Group) -> list[str]:
    """What a group holds; links aren't followed, as `in` would."""
    return [str(name) for name in group]


def _item(parent: h5py.Group, name: str) -> Any:
    """What has a name, None where nothing has. Raises `DatasetError` for what lies in another file."""
    item: Any = parent
    for part in filter(None, name.split("/")):
        if not isinstance(item, h5py.Group):
            return None
        if isinstance(item.get(part, getlink=True), h5py.ExternalLink):
            raise DatasetError(f"schema: {name} is a link to another file, which isn't opened")
        item = item.get(part)
    # A link within the file may lead to one that leaves it.
    if item is not None and item.file.filename != parent.file.filename:
        raise DatasetError(f"schema: {name} is a link to another file, which isn't opened")
    return item


def vector_width(group: h5py.Group, name: str, length: int | None = None) -> int:
    """Numbers a row in a column of vectors. Raises `DatasetError` where it is none, or hasn't `length` rows."""
    dataset = dataset_of(group, name)
    if dataset.dtype.kind not in "fiub" or dataset.ndim not in (1, 2):
        raise DatasetError(f"shape: {name} is {dataset.dtype} {dataset.shape} and no column of vectors")
    if length is not None and len(dataset) != length:
        raise DatasetError(f"length: {name} has {len(dataset)} rows for {length} actions")
    return dataset.shape[1] if dataset.ndim == 2 else 1


def find_cameras(group: h5py.Group, folder: str, length: int, suffixes: str = "") -> dict[str, Camera]:
    """The colour cameras among the datasets in `folder`, by name without what `suffixes` (a pattern) matches.

    Raises `DatasetError` where one has more or fewer than `length` pictures, or where the first can't be read.
    """
    found = {}
    for name in names_in(group_of(group, folder)):
        if "depth" in name or not isinstance(_item(group, f"{folder}/{name}"), h5py.Dataset):
            continue
        dataset = dataset_of(group, f"{folder}/{name}")
        camera = _camera(dataset, f"{folder}/{name}")
        if camera and len(dataset) != length:
            raise DatasetError(f"length: {folder}/{name} has {len(dataset)} pictures for {length} actions")
        plain = re.sub(r"[^\w-]", "_", name)
        short = re.sub(f"({suffixes})$", "", plain) if suffixes else plain
        if camera:
            found[plain if short in found or not short else short] = camera
    return found


def _camera(dataset: h5py.Dataset, name: str) -> Camera | None:
    if dataset.ndim == 4 and dataset.dtype == np.uint8 and dataset.shape[3] == 3:
        return Camera(name, dataset.shape[1], dataset.shape[2], compressed=False)
    rows = dataset.ndim == 2 and dataset.dtype == np.uint8
    files = dataset.ndim == 1 and dataset.dtype.kind in "OS"
    if not (rows or files) or not len(dataset):
        return None
    try:
        return Camera(name, *picture_size(_file_bytes(dataset[0])), compressed=True)
    except ERRORS as error:
        raise DatasetError(f"damaged: the first picture of {name} can't be decoded ({error})") from error


def _file_bytes(row: Any) -> bytes:
    return row.tobytes() if isinstance(row, np.ndarray) else bytes(row)


def _picture(row: Any, camera: Camera, where: str) -> np.ndarray:
    try:
        picture = decode_picture(_file_bytes(row)) if camera.compressed else row
    except ERRORS as error:
        raise DatasetError(f"damaged: the picture of {where} can't be decoded: {error}") from error
    if picture.shape != (camera.height, camera.width, 3):
        raise DatasetError(f"shape: the picture of {where} is {picture.shape}, the first {camera[1:3]}")
    return picture


def attributes(group: h5py.Group) -> dict[str, Any]:
    """A group's attributes as JSON; those that hold JSON are read."""
    return {name: _plain(value) for name, value in group.attrs.items()}


def rate_of(value: Any) -> float | None:
    """Frames a second in an attribute; None where it is no positive number."""
    try:
        rate = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return rate if math.isfinite(rate) and rate > 0 else None


def few_of(values: Sequence[Any]) -> str:
    """The different ones among values, a few of them."""
    texts = list(dict.fromkeys(str(value)[:20] for value in values))
    return ", ".join(texts[:3]) + (" …" if len(texts) > 3 else "")


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        try:
            return json.loads(value) if value[:1] in ("{", "[") else value
        except ValueError:
            return value
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)


def reason_of(error: BaseException) -> str:
    """What a library said, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
