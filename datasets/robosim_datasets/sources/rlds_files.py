"""Which files make up an RLDS dataset, what stands beside them, and what only its makers know."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from robosim.errors import DatasetError
from robosim.spec import ActionKind
from robosim_datasets.faults import Fault
from robosim_datasets.sources.rlds_features import Feature, read_features

SHARD = re.compile(r"(?P<name>.+?)-(?P<split>[^-]+)\.tfrecord-(?P<index>\d+)-of-(?P<count>\d+)$")
CARTESIAN = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")


class Known(NamedTuple):
    """What the files of a dataset don't say, but its makers do."""

    fps: float
    robot: str = "unknown"
    action_kind: ActionKind = "other"
    names: tuple[str, ...] = ()
    """Of the numbers of a state and of an action, where there are as many."""


# Rates: the "control frequency" column of the Open X-Embodiment dataset overview, as two public converters repeat it
# in agreement (OpenVLA-style OXE configurations, openx2lerobot's `fps`); where they disagree, nothing is said here.
# Bridge: Walke et al. 2023, BridgeData V2: 5 Hz, actions are motions of the end effector with an absolute gripper.
_BRIDGE = Known(5, "widowx", "ee_delta", CARTESIAN)
KNOWN = {
    "bridge": _BRIDGE,
    "bridge_dataset": _BRIDGE,
    "bridge_data_v2": _BRIDGE,
    "bridge_orig": _BRIDGE,
    "fractal20220817_data": Known(3),
    "kuka": Known(10),
    "taco_play": Known(15),
    "jaco_play": Known(10),
    "droid": Known(15),
    "toto": Known(30),
    "stanford_hydra_dataset_converted_externally_to_rlds": Known(10),
    "stanford_robocook_converted_externally_to_rlds": Known(5),
    "cmu_play_fusion": Known(5),
    "cmu_stretch": Known(10),
}


@dataclass
class Layout:
    """What the files beside the records say."""

    folder: Path
    name: str
    info: dict[str, Any] = field(default_factory=dict)
    records: dict[tuple[str, int, int], int] = field(default_factory=dict)
    """How many a file has, as dataset_info.json says, by split, number of the file and number of files."""
    features: list[Feature] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def record_files(path: Path) -> list[Path]:
    """The TFRecord files of one dataset, in the order of splits ("train" first) and numbers."""
    if path.is_file():
        return [path]
    files = [file for file in path.rglob("*.tfrecord*") if file.is_file()]
    folders = sorted({file.parent for file in files}, key=lambda folder: (_version(folder), folder))
    if not folders:
        raise DatasetError(f"{path} holds no TFRecord files; name the folder that does")
    if len({folder.parent for folder in folders}) > 1 or (
        len(folders) > 1 and not all(_version(folder) for folder in folders)
    ):
        names = ", ".join(str(folder.relative_to(path)) for folder in folders)
        raise DatasetError(f"{path} holds several datasets ({names}); name the folder of one")

    def order(file: Path) -> tuple[bool, str, int, str]:
        shard = SHARD.search(file.name)
        split, index = (shard["split"], int(shard["index"])) if shard else ("", 0)
        return split != "train", split, index, file.name

    return sorted((file for file in files if file.parent == folders[-1]), key=order)


def _version(folder: Path) -> tuple[int, ...]:
    """The numbers of a folder's name such as 1.0.0; none if it isn't a version."""
    return tuple(map(int, folder.name.split("."))) if re.fullmatch(r"\d+(\.\d+)*", folder.name) else ()


def read_layout(folder: Path, files: Sequence[Path], whole: bool) -> Layout:
    """Names, features and splits from the JSON files beside the records.

    `whole`: the files are to be the whole dataset, so that shards which are missing are a fault.
    """
    shard = SHARD.search(files[0].name)
    layout = Layout(folder, shard["name"] if shard else files[0].name.split(".tfrecord")[0])
    for name, take in (("dataset_info.json", _take_info), ("features.json", _take_features)):
        if not (folder / name).exists():
            continue
        try:
            take(layout, json.loads((folder / name).read_text()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"can't be read ({type(error).__name__}: {error}); it is done without"
            layout.faults.append(Fault("schema", name, what))
    if whole:
        layout.faults += _missing_shards(layout.name, files)
    return layout


def _take_info(layout: Layout, content: Any) -> None:
    for split in content.get("splits", ()):
        for index, count in enumerate(split.get("shardLengths", ())):
            layout.records[str(split["name"]), index, len(split["shardLengths"])] = int(count)
    layout.name = str(content.get("name", layout.name))
    layout.info = content


def _take_features(layout: Layout, content: Any) -> None:
    layout.features = read_features(content)


def _missing_shards(name: str, files: Sequence[Path]) -> Iterator[Fault]:
    shards = [match for match in (SHARD.search(file.name) for file in files) if match]
    for split in sorted({match["split"] for match in shards}):
        there = {int(match["index"]) for match in shards if match["split"] == split}
        count = max(int(match["count"]) for match in shards if match["split"] == split)
        for index in sorted(set(range(count)) - there):
            where = f"{name}-{split}.tfrecord-{index:05d}-of-{count:05d}"
            yield Fault("damaged", where, "the file is missing, and its episodes with it")
