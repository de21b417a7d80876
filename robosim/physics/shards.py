"""Episodes on their way to a dataset: one npz each, so that an interrupted collection goes on where it stopped."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from robosim_datasets.episode import Episode

from robosim.checkpoint import atomic_write_bytes

_ARRAYS = ("state", "action", "environment_state", "reward", "success")
_TEXTS = ("task", "instruction", "behaviour", "split")


def save_shard(path: Path, episode: Episode) -> None:
    """Write an episode, whole or not at all. Raises `OutputError` (a full disk, a file in a folder's place)."""
    values = {name: np.asarray(getattr(episode, name)) for name in (*_ARRAYS, *_TEXTS, "seed")}
    values |= {f"frames/{camera}": frames for camera, frames in episode.frames.items()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **values)
    atomic_write_bytes(path, buffer.getvalue())


def load_shard(path: Path) -> Episode | None:
    """Read what `save_shard` wrote; None when it is missing or damaged and must be recorded again."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            values = {name: archive[name] for name in archive.files}
        frames = {
            name.removeprefix("frames/"): values.pop(name)
            for name in list(values)
            if name.startswith("frames/")
        }
        texts = {name: str(values.pop(name)) for name in _TEXTS}
        return Episode(frames=frames, seed=int(values.pop("seed")), **texts, **values)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None
