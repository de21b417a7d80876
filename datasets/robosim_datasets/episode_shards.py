"""Episodes on their way to a dataset: one npz each, so that an interrupted collection goes on where it stopped.

A file an episode, because a kill −9 must not cost a finished one; a folder a thousand files, because file systems and
people are slow in folders of a hundred thousand. The arrays are deflated at the fastest level: a seventh of the size
for less than 1 % of the time that recording takes.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from pathlib import Path

import numpy as np

from robosim.checkpoint import atomic_write_bytes
from robosim_datasets.episode import Episode

_ARRAYS = ("state", "action", "environment_state", "reward", "success")
_TEXTS = ("task", "instruction", "behaviour", "split")
_FIGURES = ("factors", "measures", "source")

FOLDER = 1000
"""Episodes that share a folder."""


def shard_path(root: Path, index: int) -> Path:
    """Where episode `index` of a collection waits."""
    return root / f"{index // FOLDER:04d}" / f"episode_{index:06d}.npz"


def pack(episode: Episode) -> bytes:
    """An episode as the bytes of an npz file."""
    values = {name: np.asarray(getattr(episode, name)) for name in (*_ARRAYS, *_TEXTS, "seed")}
    values |= {f"frames/{camera}": frames for camera, frames in episode.frames.items()}
    values |= {name: np.asarray(json.dumps(getattr(episode, name))) for name in _FIGURES}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, value in values.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, value, allow_pickle=False)
    return buffer.getvalue()


def save_shard(path: Path, data: bytes) -> None:
    """Write a packed episode, whole or not at all. Raises `OutputError` (a full disk, a file in a folder's place)."""
    atomic_write_bytes(path, data)


def load_shard(path: Path) -> Episode | None:
    """The episode of a shard; None when it is missing or damaged and must be recorded again."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            values = {name: archive[name] for name in archive.files}
        frames = {
            name.removeprefix("frames/"): values.pop(name)
            for name in list(values)
            if name.startswith("frames/")
        }
        texts = {name: str(values.pop(name)) for name in _TEXTS}
        figures = {name: json.loads(str(values.pop(name))) for name in _FIGURES}
        return Episode(frames=frames, seed=int(values.pop("seed")), **texts, **figures, **values)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
