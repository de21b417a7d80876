"""ALOHA recordings: a folder of HDF5 files, one an episode, as ACT and its descendants write them."""

from __future__ import annotations

from pathlib import Path

import h5py

from robosim.errors import DatasetError
from robosim_datasets.sources.hdf5_episodes import (
    H5_ERRORS,
    Hdf5Source,
    Place,
    attributes,
    dataset_of,
    few_of,
    find_cameras,
    first_readable,
    hdf5_files,
    names_in,
    rate_of,
    reason_of,
    vector_width,
)
from robosim_datasets.sources.opening import one_by_one
from robosim_datasets.sources.source import SourceInfo

JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
BOTH_ARMS = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in JOINTS)
BASE = ("base_linear", "base_angular")
"""Mobile ALOHA's `base_action`: velocities."""

FPS = 50.0
"""ACT's control period is 0.02 s (its `DT`); the files don't say."""

RATES = ("fps", "frequency", "control_freq")
SENTENCES = ("language_instruction", "instruction", "language_raw", "task", "prompt")
"""Attributes or datasets at the top of a file in which different recorders keep the instruction."""

# ACT++'s compressor (compress_data.py) hands recorded RGB arrays to cv2.imencode, which takes them for BGR, and reads
# them back with cv2.imdecode: red and blue are swapped in the JPEG itself. Other recorders hand it BGR, and openpi
# reads such files as the standard says (its pull request 304). The files don't tell the two apart.
COLOUR_NOTE = (
    "compressed pictures are decoded as the JPEG standard says; ACT's own compressor stores red and blue "
    "swapped: look at them"
)


def open_aloha(path: Path) -> Hdf5Source:
    """Open a folder of episodes, or one file. Raises `DatasetError` when none can be read."""
    path = Path(path)
    places = [_inspect(file) for file in one_by_one(hdf5_files(path))]
    source = Hdf5Source(path, places)
    first = source.good[0]
    said = [place.metadata[key] for place in source.good for key in RATES if key in place.metadata]
    rates = {rate_of(value) for value in said}
    rate = rates.pop() if len(rates) == 1 else None
    notes = list(source.common_notes())
    if rate is None:
        what = f"say {few_of(said)}, which is no single rate" if said else "don't say theirs"
        notes.insert(0, f"{FPS:g} frames/s is ACT's control rate; the files {what}: else set source_fps=")
    if any(camera.compressed for place in source.good for camera in place.cameras.values()):
        notes.append(COLOUR_NOTE)
    source.info = SourceInfo(
        layout="ALOHA (HDF5)",
        name=path.stem,
        cameras=source.camera_sizes(),
        fps=rate or FPS,
        state_names=first.state_names,
        action_names=first.action_names,
        action_kind="joint_position",
        robot="aloha",
        episodes=len(places),
        frames=sum(place.length for place in source.good),
        instructions=source.instructions(),
        splits={},
        metadata={},
        notes=tuple(notes),
        bytes=sum(place.path.stat().st_size for place in places),
    )
    return source


def looks_like_aloha(path: Path) -> bool:
    """Whether the first HDF5 file at `path` that opens has `action` and `observations`."""
    try:
        return any({"action", "observations"} <= set(names_in(file)) for file in first_readable(path))
    except H5_ERRORS:
        return False


def _inspect(path: Path) -> Place:
    """What a file holds, or what is wrong with it."""
    place = Place(path)
    try:
        with h5py.File(path, "r") as file:
            _fill(place, file)
    except DatasetError as error:
        place.fault = str(error)
    except H5_ERRORS as error:
        place.fault = f"damaged: {reason_of(error)}"
    return place


def _fill(place: Place, file: h5py.File) -> None:
    place.length = len(dataset_of(file, "action"))
    if not place.length:
        raise DatasetError("length: it has no steps")
    place.action, place.action_names = ("action",), joint_names(vector_width(file, "action"))
    there = names_in(file)
    if "base_action" in there:
        width = vector_width(file, "base_action", place.length)
        place.action = (*place.action, "base_action")
        place.action_names += BASE if width == len(BASE) else tuple(f"base_{i}" for i in range(width))
    qpos = "observations/qpos"
    place.state, place.state_names = (qpos,), joint_names(vector_width(file, qpos, place.length))
    place.cameras = find_cameras(file, "observations/images", place.length)
    used = {camera.dataset for camera in place.cameras.values()} | {*place.state, *place.action}
    place.left_out = tuple(_columns(file, place.length) - used - set(SENTENCES))
    place.metadata = attributes(file)
    for name in SENTENCES:
        if name in there and not place.instruction:
            value = dataset_of(file, name).asstr()[()]
            place.instruction = str(value if isinstance(value, str) else value.flat[0]).strip()
    place.instruction = place.instruction or next(
        (str(place.metadata[name]) for name in SENTENCES if place.metadata.get(name)), ""
    )


def joint_names(width: int) -> tuple[str, ...]:
    """ALOHA's names for 14 numbers, one arm's for 7, else `joint_0` and so on."""
    known = {len(BOTH_ARMS): BOTH_ARMS, len(JOINTS): JOINTS}
    return known.get(width, tuple(f"joint_{i}" for i in range(width)))


def _columns(file: h5py.File, length: int) -> set[str]:
    """Names of all datasets with a row a step."""
    names: set[str] = set()

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim and len(item) == length:
            names.add(name)

    file.visititems(visit)
    return names
