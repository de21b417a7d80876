"""The files of a clip store, one at a time: written whole, checked when read.

A shard holds one contiguous dataset "frames", uint8 [N, H, W, 3]; a column one dataset "values" with its
provenance in the attributes, and before all of it the SHA-256 of the file, as nobody else keeps one. Contiguous
HDF5 is also a plain array at a known offset, so frames are read through a memory map: processes share one copy, and
what isn't read isn't loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from robosim.checkpoint import (
    atomic_write_json,
    file_hash,
    json_hash,
    prepare_folder,
    replace_atomically,
)
from robosim.errors import DatasetError
from robosim_datasets.folders import write_errors

FORMAT = 1
INDEX = "index.json"

SEAL_BYTES = 512
"""Size of the block before a column's HDF5 content, the smallest that HDF5 allows."""

HDF5_MARK = b"\x89HDF"


@dataclass(frozen=True)
class Part:
    """A clip store that a mixture takes its frames from. Its episodes follow those of the parts before."""

    name: str
    path: str
    """Of its folder, relative to the mixture's."""
    source: str
    """Hash of the dataset that it was decoded from."""
    episodes: int
    weight: float | None
    """Share of the clips, of the sum of all parts'; None: every clip of the mixture is equally likely."""


def write_index(store: Path, index: dict[str, Any]) -> None:
    """Write `index.json` with its own checksum, last of all files."""
    index = json.loads(json.dumps({"format": FORMAT, **index}))
    atomic_write_json(store / INDEX, index | {"sha256": json_hash(index)})


def read_index(store: Path) -> dict[str, Any]:
    """The content of `index.json`. Raises `DatasetError` when there is no store or its index is damaged."""
    if not (store / INDEX).is_file():
        raise DatasetError(f"there is no clip store at {store}; build it from a dataset first")
    try:
        index = json.loads((store / INDEX).read_text())
    except (OSError, ValueError) as error:
        raise damage(store, INDEX, f"can't be read ({error})") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise DatasetError(f"{store} isn't a clip store of format {FORMAT}; delete it and build it again")
    missing = {"spec", "source", "episodes", "shards"} - set(index)
    if missing:
        raise damage(store, INDEX, f"has no {', '.join(sorted(missing))}")
    # Stores of the first versions have no checksum here.
    if (written := index.pop("sha256", None)) is not None and written != json_hash(index):
        raise damage(store, INDEX, "was changed since it was written")
    return index


def check_part(store: Path, part: Part, shards: list[dict[str, Any]]) -> None:
    """Raise `DatasetError` when a part of the mixture `store` isn't there as it was when `shards` were noted."""
    again = "restore it, or mix again: robosim train data=[…] resume=false"
    try:
        index = read_index((store / part.path).resolve())
    except DatasetError as error:
        raise DatasetError(
            f"{part.name}, a part of the mixture {store}, can't be read ({error}); {again}"
        ) from error
    there = {(shard["file"], shard["sha256"]) for shard in index["shards"]}
    noted = {(shard["file"].removeprefix(f"{part.path}/"), shard["sha256"]) for shard in shards}
    if index["source"] != part.source or not noted <= there:
        raise DatasetError(
            f"{part.name}, a part of the mixture {store}, was changed since it was mixed; {again}"
        )


def damage(store: Path, name: str, what: str) -> DatasetError:
    """The sentence about a damaged file of the store."""
    return DatasetError(f"{store / name} {what}; delete {store} and build the clip store again")


def write_shard(path: Path, shape: tuple[int, ...], parts: Iterator[np.ndarray]) -> None:
    """Write consecutive uint8 [T, H, W, 3] parts, which together have `shape` [N, H, W, 3]."""
    prepare_folder(path.parent)
    with write_errors(path), h5py.File(path, "w") as file:
        target = file.create_dataset("frames", shape, np.uint8)
        first = 0
        for part in parts:
            target[first : first + len(part)] = part
            first += len(part)


def shard_entry(path: Path, store: Path, camera: str, first_frame: int, frames: int) -> dict[str, Any]:
    """What `index.json` says about a finished shard."""
    return {
        "file": path.relative_to(store).as_posix(),
        "camera": camera,
        "first_frame": first_frame,
        "frames": frames,
        "bytes": path.stat().st_size,
        "sha256": file_hash(path),
    }


def check_shard(store: Path, shard: dict[str, Any], thorough: bool) -> None:
    """Raise `DatasetError` when a shard is missing or of another size, and if `thorough` of another hash."""
    store, name = _owner(store, shard)
    path = store / name
    if not path.is_file():
        raise damage(store, name, "is missing")
    if path.stat().st_size != shard["bytes"]:
        raise damage(store, name, f"has {path.stat().st_size} bytes, written {shard['bytes']}")
    if thorough and file_hash(path) != shard["sha256"]:
        raise damage(store, name, "was changed since it was written")


def map_shard(store: Path, shard: dict[str, Any], size: int) -> np.ndarray:
    """A shard's frames as a read-only view of the file, uint8 [N, size, size, 3]."""
    store, name = _owner(store, shard)
    path, shape = store / name, (shard["frames"], size, size, 3)
    try:
        with h5py.File(path, "r") as file:
            frames = file["frames"]
            if not isinstance(frames, h5py.Dataset) or frames.shape != shape:
                raise damage(store, name, f"doesn't hold {shape[0]} frames of {size} pixels")
            offset = frames.id.get_offset()
    except (OSError, KeyError) as error:
        raise damage(store, name, f"can't be opened ({error})") from error
    return np.asarray(np.memmap(path, np.uint8, mode="r", offset=offset, shape=shape))


def _owner(store: Path, shard: dict[str, Any]) -> tuple[Path, str]:
    """The store that a shard lies in, one of the parts where `store` is a mixture, and its path there."""
    if not shard["file"].startswith("../"):
        return store, shard["file"]
    path = (store / shard["file"]).resolve()
    return path.parent.parent, f"{path.parent.name}/{path.name}"


def column_path(store: Path, name: str) -> Path:
    return store / "columns" / f"{name}.h5"


def write_column(store: Path, name: str, values: np.ndarray, provenance: dict[str, Any]) -> None:
    """Write a column atomically, whatever was there before."""
    path = column_path(store, name)
    prepare_folder(path.parent)
    temporary = path.with_name(path.name + ".partial")
    values = np.ascontiguousarray(values)
    provenance = json.loads(json.dumps(provenance, sort_keys=True, default=str))
    try:
        with write_errors(path):
            with h5py.File(temporary, "w", userblock_size=SEAL_BYTES) as file:
                dataset = file.create_dataset("values", data=values)
                dataset.attrs["provenance"] = json.dumps(provenance)
            seal = _seal(temporary)
            with temporary.open("r+b") as file:
                file.write(seal)
            replace_atomically(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_column(store: Path, name: str, rows: int) -> np.ndarray:
    """A column's values, read-only [rows, ...]. Raises `DatasetError` when it is missing or damaged."""
    with _opened_column(store, name) as dataset:
        values = dataset[()]
        if len(values) != rows:
            raise ValueError(f"{len(values)} rows, not {rows}")
    values.flags.writeable = False
    return values


def read_provenance(store: Path, name: str) -> dict[str, Any]:
    """What a column was said to be made from."""
    with _opened_column(store, name) as dataset:
        return json.loads(str(dataset.attrs["provenance"]))


@contextmanager
def _opened_column(store: Path, name: str) -> Iterator[h5py.Dataset]:
    path = column_path(store, name)
    if not path.exists():
        known = ", ".join(sorted(other.stem for other in path.parent.glob("*.h5"))) or "none"
        raise DatasetError(f"{store} has no column {name!r} (it has {known}); run the stage that writes it")
    try:
        sealed = _is_sealed(path)
        with h5py.File(path, "r") as file:
            values = file["values"]
            if not isinstance(values, h5py.Dataset):
                raise KeyError("values")
            if not sealed and _values_hash(values) != values.attrs["sha256"]:
                raise ValueError("wrong checksum")
            yield values
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise DatasetError(
            f"{path} is damaged ({error}); delete it and run the stage that writes it"
        ) from error


def _seal(path: Path) -> bytes:
    """What the user block of a column's file holds, which HDF5 itself doesn't read: the SHA-256 of the rest."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(SEAL_BYTES)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest().encode().ljust(SEAL_BYTES, b"\0")


def _is_sealed(path: Path) -> bool:
    """False for a column of the first versions, which begins with HDF5's own mark. Raises `ValueError` if damaged."""
    with path.open("rb") as file:
        written = file.read(SEAL_BYTES)
    if written.startswith(HDF5_MARK):
        return False
    if written != _seal(path):
        raise ValueError("wrong checksum")
    return True


def _values_hash(dataset: h5py.Dataset) -> str:
    """The checksum of a column of the first versions, in its attribute "sha256"."""
    values, provenance = dataset[()], json.loads(str(dataset.attrs["provenance"]))
    digest = hashlib.sha256(values.tobytes())
    digest.update(f"{values.dtype} {values.shape} {json_hash(provenance)}".encode())
    return digest.hexdigest()
