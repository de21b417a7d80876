"""The files of a clip store, one at a time: written whole, checked when read.

A shard holds one contiguous dataset "frames", uint8 [N, H, W, 3]; a column one dataset "values" with its
provenance and a SHA-256 in the attributes. Contiguous HDF5 is also a plain array at a known offset, so frames
are read through a memory map: processes share one copy, and what isn't read isn't loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from robosim.checkpoint import file_hash, json_hash, prepare_folder, replace_atomically
from robosim.errors import DatasetError
from robosim_datasets.folders import write_errors

FORMAT = 1
INDEX = "index.json"


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
    return index


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
    path = store / shard["file"]
    if not path.is_file():
        raise damage(store, shard["file"], "is missing")
    if path.stat().st_size != shard["bytes"]:
        raise damage(store, shard["file"], f"has {path.stat().st_size} bytes, written {shard['bytes']}")
    if thorough and file_hash(path) != shard["sha256"]:
        raise damage(store, shard["file"], "was changed since it was written")


def map_shard(store: Path, shard: dict[str, Any], size: int) -> np.ndarray:
    """A shard's frames as a read-only view of the file, uint8 [N, size, size, 3]."""
    path, shape = store / shard["file"], (shard["frames"], size, size, 3)
    try:
        with h5py.File(path, "r") as file:
            frames = file["frames"]
            if not isinstance(frames, h5py.Dataset) or frames.shape != shape:
                raise damage(store, shard["file"], f"doesn't hold {shape[0]} frames of {size} pixels")
            offset = frames.id.get_offset()
    except (OSError, KeyError) as error:
        raise damage(store, shard["file"], f"can't be opened ({error})") from error
    return np.asarray(np.memmap(path, np.uint8, mode="r", offset=offset, shape=shape))


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
            with h5py.File(temporary, "w") as file:
                dataset = file.create_dataset("values", data=values)
                dataset.attrs["provenance"] = json.dumps(provenance)
                dataset.attrs["sha256"] = _values_hash(values, provenance)
            replace_atomically(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_column(store: Path, name: str, rows: int) -> np.ndarray:
    """A column's values, read-only [rows, ...]. Raises `DatasetError` when it is missing or damaged."""
    with _opened_column(store, name) as dataset:
        values, provenance = dataset[()], json.loads(str(dataset.attrs["provenance"]))
        if len(values) != rows or _values_hash(values, provenance) != dataset.attrs["sha256"]:
            raise ValueError("wrong checksum")
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
        with h5py.File(path, "r") as file:
            values = file["values"]
            if not isinstance(values, h5py.Dataset):
                raise KeyError("values")
            yield values
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DatasetError(
            f"{path} is damaged ({error}); delete it and run the stage that writes it"
        ) from error


def _values_hash(values: np.ndarray, provenance: dict[str, Any]) -> str:
    digest = hashlib.sha256(values.tobytes())
    digest.update(f"{values.dtype} {values.shape} {json_hash(provenance)}".encode())
    return digest.hexdigest()
