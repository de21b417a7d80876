"""`robosim export`: a LeRobotDataset v3 for stock LeRobot, of chosen episodes and cameras, without privileged labels.

A robosim dataset is a LeRobotDataset already. What an export adds: it leaves out what a policy must not see, holds what
was chosen and nothing else, and has been read with stock LeRobot before it is there.
"""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robosim.config import RunOptions, compose, unknown
from robosim.errors import ConfigError, DatasetError
from robosim.progress import progress
from robosim.spec import EnvSpec
from robosim_datasets import lerobot_format as layout
from robosim_datasets.dataset_copy import DatasetCopier
from robosim_datasets.lerobot_io import dataset_hash, load_episode, open_dataset
from robosim_datasets.mixture import MIXTURE_JSON
from robosim_datasets.video_dataset import AGAIN, VideoDataset

CHECKED_EPISODES = 4
"""How many episodes stock LeRobot reads before an export counts as done."""


@dataclass
class ExportConfig(RunOptions):
    """What to export."""

    source: str = ""
    split: Literal["train", "val"] | None = None
    tasks: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    positions: bool = False

    def __post_init__(self) -> None:
        if not self.source:
            raise ConfigError("source is empty; name what to export: robosim export runs/NAME")


def export_command(command: str, overrides: Sequence[str]) -> None:
    """Write the chosen episodes as a new dataset, have stock LeRobot read it, say how to train on it."""
    config = compose(command, ExportConfig, overrides)
    started = time.monotonic()
    source = open_dataset(find_dataset(Path(config.source).expanduser()))
    name = _name(source.root)
    out = Path(config.out or f"runs/export-{name}").expanduser()
    chosen = choose_episodes(source, config)
    spec = choose_columns(source.spec, config)
    export_episodes(source, chosen, spec, out, _provenance(source, config))
    frames = sum(source.episodes[index]["length"] for index in chosen)
    print(
        f"exported {len(chosen)} of {len(source.episodes)} episodes, {frames} frames, cameras "
        f"{', '.join(spec.cameras)} in {time.monotonic() - started:.1f} s; the video is copied, not encoded again"
    )
    left_out = [label for label in source.spec.labels if label not in spec.labels]
    if left_out:
        print("left out: observation.environment_state, which a policy must not see; positions=true keeps it")
    print(
        "checked: stock LeRobot reads the same frames, states, actions and language at both ends of episodes"
    )
    print(f"made {out}")
    if "action" in spec.labels:
        print(f"next: {train_command(out, f'robosim/{name}', f'runs/act-{name}')}")
    else:
        print(
            "next: lerobot-train needs actions, which this dataset hasn't; anything that learns from video can read it"
        )


def find_dataset(path: Path) -> Path:
    """The dataset that `path` is, or has in its `dataset` folder. Raises `DatasetError` with what is there instead."""
    if (path / layout.ROBOSIM_JSON).exists():
        return path
    if (path / "dataset" / layout.ROBOSIM_JSON).exists():
        return path / "dataset"
    plays = sorted(found.parent.name for found in path.glob("play-*/dataset")) if path.is_dir() else []
    if plays:
        raise DatasetError(
            f"{path} holds several recordings; name one: {', '.join(str(path / p) for p in plays)}"
        )
    if not path.is_dir():
        raise DatasetError(f"there is no folder {path}; name a robosim dataset or a run folder")
    if (path / "dataset" / MIXTURE_JSON).exists():
        raise DatasetError(f"{path} is a mixture, whose video lies in the runs that it mixes; export those")
    raise DatasetError(
        f"{path} is no robosim dataset ({layout.ROBOSIM_JSON} is missing); bring it in first: robosim import {path}"
    )


def choose_episodes(source: VideoDataset, config: ExportConfig) -> list[int]:
    """Numbers of the episodes of the wanted split and tasks. Raises `ConfigError` where there are none."""
    known = dict.fromkeys(row["task"] for row in source.episodes)
    for task in config.tasks:
        if task not in known:
            raise ConfigError(unknown("task", task, known))
    chosen = [
        index
        for index, row in enumerate(source.episodes)
        if config.split in (None, row["split"]) and (not config.tasks or row["task"] in config.tasks)
    ]
    if not chosen:
        of_tasks = f" of {', '.join(config.tasks)}" if config.tasks else ""
        raise ConfigError(
            f"{source.root} has no {config.split} episode{of_tasks}; choose another split= or tasks="
        )
    return chosen


def choose_columns(spec: EnvSpec, config: ExportConfig) -> EnvSpec:
    """The contract of what is exported: the wanted cameras in their order, and labels that a policy may see."""
    for camera in config.cameras:
        if camera not in spec.cameras:
            raise ConfigError(unknown("camera", camera, spec.cameras))
    hidden = () if config.positions else ("environment_state",)
    return replace(
        spec,
        cameras=tuple(camera for camera in spec.cameras if not config.cameras or camera in config.cameras),
        tasks=tuple(task for task in spec.tasks if not config.tasks or task.name in config.tasks),
        labels=tuple(label for label in spec.labels if label not in hidden),
    )


def export_episodes(
    source: VideoDataset, chosen: Sequence[int], spec: EnvSpec, out: Path, provenance: dict[str, Any]
) -> None:
    """Write the episodes `chosen` to `out`, under `spec`; the folder appears when stock LeRobot has read it.

    Raises `OutputError` where `out` is taken or the disk is full, `DatasetError` where the source is damaged.
    """

    def check(folder: Path) -> None:
        check_with_lerobot(folder, source, chosen, spec)

    with (
        DatasetCopier(out, source, spec, provenance, check) as copier,
        progress("export", total=len(chosen), unit="episode") as bar,
    ):
        for index in chosen:
            copier.copy(index)
            bar.advance()


def check_with_lerobot(folder: Path, source: VideoDataset, chosen: Sequence[int], spec: EnvSpec) -> None:
    """Read first, middle and last rows of some episodes with stock LeRobot; all must be what `source` has.

    Raises `DatasetError` naming the episode and the column that differ.
    """
    stock = _open_with_lerobot(folder)
    lengths = [source.episodes[index]["length"] for index in chosen]
    if (stock.num_episodes, len(stock)) != (len(chosen), sum(lengths)):
        raise DatasetError(
            f"stock LeRobot finds {stock.num_episodes} episodes and {len(stock)} frames in the export of "
            f"{source.root}, which has {len(chosen)} and {sum(lengths)}"
        )
    starts = np.cumsum([0, *lengths])
    for number in sorted({int(n) for n in np.linspace(0, len(chosen) - 1, CHECKED_EPISODES)}):
        episode = load_episode(source, chosen[number])
        for row in (0, episode.length // 2, episode.length - 1):
            item = _read_with_lerobot(stock, int(starts[number]) + row)
            wanted: dict[str, Any] = {"task": episode.instruction}
            wanted |= {layout.video_key(camera): episode.frames[camera][row] for camera in spec.cameras}
            wanted |= {
                layout.NAMES[k]: getattr(episode, k)[row] for k in ("state", "action") if k in spec.labels
            }
            for name, value in wanted.items():
                if not _same(item[name], value):
                    raise DatasetError(
                        f"stock LeRobot reads another {name} at frame {row} of episode {number} than {source.root} "
                        f"has in episode {chosen[number]}; {AGAIN}"
                    )


def train_command(out: Path, repo_id: str, folder: str) -> str:
    """The command line that trains LeRobot's ACT policy on an export."""
    options = {
        "dataset.repo_id": repo_id,
        "dataset.root": out,
        "dataset.video_backend": "pyav",
        "policy.type": "act",
        "policy.push_to_hub": "false",
        "output_dir": folder,
    }
    program = ["uv", "run", "--with", "accelerate", "lerobot-train"]
    return shlex.join([*program, *(f"--{name}={value}" for name, value in options.items())])


def _open_with_lerobot(folder: Path) -> Any:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the folder has everything: nothing is to be asked for
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    try:
        return LeRobotDataset("robosim/export", root=folder, video_backend="pyav", return_uint8=True)
    except Exception as error:  # pandas, pyarrow, datasets and LeRobot each raise their own classes
        raise DatasetError(f"stock LeRobot can't open the export: {error}") from error


def _read_with_lerobot(stock: Any, index: int) -> dict[str, Any]:
    try:
        return stock[index]
    except Exception as error:
        raise DatasetError(f"stock LeRobot can't read row {index} of the export: {error}") from error


def _same(read: Any, wanted: Any) -> bool:
    """Pictures are [3, H, W] in LeRobot; a vector of one number is a scalar there."""
    if isinstance(wanted, str):
        return read == wanted
    array = read.numpy()
    return np.array_equal(array.transpose(1, 2, 0) if wanted.ndim == 3 else array.reshape(-1), wanted)


def _provenance(source: VideoDataset, config: ExportConfig) -> dict[str, Any]:
    """What made the source, and what of it this is."""
    chosen = {"split": config.split, "tasks": list(config.tasks), "cameras": list(config.cameras)}
    return {**source.provenance, "export": {"dataset": dataset_hash(source.root), **chosen}}


def _name(root: Path) -> str:
    """Of a dataset, fit for a repository; one in a run folder is called after the run."""
    root = root.resolve()
    name = root.parent.name if root.name == "dataset" else root.name
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "dataset"
