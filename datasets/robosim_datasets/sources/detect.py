"""Opening any source by what lies at a path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py

from robosim.config import unknown
from robosim.errors import ConfigError, DatasetError
from robosim_datasets.clip_files import INDEX
from robosim_datasets.lerobot_format import INFO_JSON
from robosim_datasets.sources.aloha import looks_like_aloha, open_aloha
from robosim_datasets.sources.clips import looks_like_clips, open_clips
from robosim_datasets.sources.hub import fetch_from_hub, is_hub_name
from robosim_datasets.sources.lerobot import looks_like_lerobot, open_lerobot
from robosim_datasets.sources.rlds import looks_like_rlds, open_rlds
from robosim_datasets.sources.robomimic import looks_like_robomimic, open_robomimic
from robosim_datasets.sources.source import Source
from robosim_datasets.sources.video import SUFFIXES, looks_like_video, open_video


class Layout(NamedTuple):
    """How a layout is known, in words and in fact, and what opens it."""

    sign: str
    fits: Callable[[Path], bool]
    open: Callable[[Path], Source]


KNOWN = {
    "lerobot": Layout(
        f"a folder with {INFO_JSON} (LeRobotDataset v2 or v3), or a robosim run's folder",
        looks_like_lerobot,
        open_lerobot,
    ),
    "clips": Layout(f"a clip store's {INDEX}, or a robosim run's folder", looks_like_clips, open_clips),
    "rlds": Layout("*.tfrecord files, in the folder or in those of its versions", looks_like_rlds, open_rlds),
    "aloha": Layout(".hdf5 files with action and observations", looks_like_aloha, open_aloha),
    "robomimic": Layout(
        ".hdf5 files with data/demo_0 and so on (LIBERO, MimicGen)", looks_like_robomimic, open_robomimic
    ),
    "video": Layout(f"files ending in {', '.join(SUFFIXES)}", looks_like_video, open_video),
}
LAYOUTS = tuple(KNOWN)


def open_source(path: str | Path, layout: str = "auto") -> Source:
    """Open what lies at `path`: a folder, a file, or a dataset's name on the Hub ("organisation/name").

    `layout` is one of `LAYOUTS`, or "auto" to go by what is there. Raises `ConfigError` for an unknown layout and
    `DatasetError` where nothing is there, nothing is known, or nothing can be read.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise ConfigError(unknown("layout", layout, ("auto", *LAYOUTS)))
    place = _local(path, layout)
    if layout == "auto":
        layout = detect_layout(place)
    return KNOWN[layout].open(place)


def detect_layout(path: Path) -> str:
    """The layout of what lies at `path`. Raises `DatasetError` that says what was looked for."""
    for name, layout in KNOWN.items():
        if layout.fits(path):
            return name
    for file in [path] if path.is_file() else sorted(path.glob("*.h*5")):
        if file.suffix in (".hdf5", ".h5") and (fault := _unreadable(file)):
            raise DatasetError(f"{file} is damaged ({fault}); restore it, or import the other files alone")
    signs = "; ".join(f"{name}: {layout.sign}" for name, layout in KNOWN.items())
    raise DatasetError(
        f"{path} holds nothing that robosim can import; it looked for {signs}; layout= forces one"
    )


def _unreadable(file: Path) -> str:
    """What keeps an HDF5 file from being opened; empty if nothing does."""
    try:
        with h5py.File(file, "r"):
            return ""
    except OSError as error:
        return str(error).splitlines()[0]


def _local(path: str | Path, layout: str) -> Path:
    """The place on this machine: of a run its dataset or else its clips, of a name on the Hub the downloaded copy."""
    place = Path(path).expanduser()
    if not place.exists():
        if not is_hub_name(str(path)):
            raise DatasetError(
                f"there is nothing at {place}; give a folder, a file, or organisation/name on the Hub"
            )
        place = fetch_from_hub(str(path))
    if layout != "clips" and (place / "dataset" / INFO_JSON).is_file():
        return place / "dataset"
    if looks_like_clips(place / "clips"):
        return place / "clips"
    return place
