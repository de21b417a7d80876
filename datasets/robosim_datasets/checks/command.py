"""`robosim data check PATH`: every fault of a dataset, by episode, in one table."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from robosim.checkpoint import atomic_write_json
from robosim.config import RunOptions, compose
from robosim.errors import ConfigError, DatasetError
from robosim.progress import progress as progress_bar
from robosim_datasets import lerobot_format as layout
from robosim_datasets.checks.dataset_checks import own_faults
from robosim_datasets.checks.lerobot_checks import lerobot_faults
from robosim_datasets.checks.source_checks import source_faults, without_stop
from robosim_datasets.checks.store_checks import store_faults
from robosim_datasets.clip_files import INDEX
from robosim_datasets.clip_store import ClipStore
from robosim_datasets.faults import Fault, fault_table
from robosim_datasets.sources.clips import LAYOUT as CLIPS
from robosim_datasets.sources.clips import StoreSource
from robosim_datasets.sources.detect import open_source
from robosim_datasets.sources.source import Source

LOG_COLUMNS = 160
"""Width of the table where there is no terminal."""


@dataclass
class CheckConfig(RunOptions):
    """What to check."""

    path: str = ""
    layout: str = "auto"

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError("path is empty; name what to check: robosim data check PATH")


@dataclass(frozen=True)
class Checked:
    """The result of a check."""

    path: Path
    layout: str
    episodes: int
    frames: int
    faults: list[Fault]
    given: str = ""
    """What was checked, in the user's words: `path` may be a copy of what is on the Hub."""

    def summary(self) -> str:
        """One line, no full stop."""
        counted = f"{self.episodes} episodes, {self.frames} frames"
        if not self.faults:
            return f"sound: {counted}"
        touched = {fault.episode for fault in self.faults} - {None}
        faults = f"{len(self.faults)} fault{'s' if len(self.faults) > 1 else ''}"
        return f"{counted}, {faults} in {len(touched)} episode{'' if len(touched) == 1 else 's'}"


def check_command(command: str, overrides: Sequence[str]) -> None:
    """Check, print the table and one line, write the faults where `out` says. Raises `DatasetError` on a fault."""
    from rich.console import Console

    config = compose(command, CheckConfig, overrides)
    checked = check_path(config.path, config.layout)
    if config.out:
        out = Path(config.out).expanduser()
        faults = [asdict(fault) for fault in checked.faults]
        figures = {"path": checked.given, "layout": checked.layout, "faults": faults}
        atomic_write_json(out, figures | {"episodes": checked.episodes, "frames": checked.frames})
    if checked.faults:
        console = Console()
        wide = console if console.is_terminal else Console(width=LOG_COLUMNS)
        wide.print(fault_table(checked.faults, f"{checked.given}: {checked.layout}"))
    print(checked.summary())
    if config.out:
        print(f"made {config.out}")
    print(f"next: {_next(checked)}")
    if checked.faults:
        raise DatasetError(f"{checked.given} isn't sound: {checked.summary()}")


def check_path(path: str | Path, source_layout: str = "auto", progress: bool = True) -> Checked:
    """Check a run folder (its dataset and its clips), a dataset, a clip store, or any source.

    Raises `DatasetError` where there is nothing that can be checked.
    """
    return replace(_check_place(path, source_layout, progress), given=str(path))


def check_dataset(root: Path) -> list[Fault]:
    """The faults of one dataset, robosim's own or any source; none: it is sound."""
    return check_path(root, progress=False).faults


def _check_place(path: str | Path, source_layout: str, progress: bool) -> Checked:
    given = Path(path).expanduser()
    clips = given / "clips"
    has_clips, has_dataset = (clips / INDEX).is_file(), (given / "dataset" / layout.INFO_JSON).is_file()
    if source_layout in ("auto", "clips"):
        if (given / INDEX).is_file():
            return _check_store(given, progress)
        if has_clips and (source_layout == "clips" or not has_dataset):
            return _check_store(clips, progress)
    _refuse_half_written(given)
    root = given / "dataset" if has_dataset else given
    checked = _check_source(root if has_dataset else path, source_layout, progress)
    if not has_clips:
        return checked
    found = [_inside("clips", fault) for fault in store_faults(clips, root)]
    return Checked(
        given, f"{checked.layout}, with clips", checked.episodes, checked.frames, [*checked.faults, *found]
    )


def _check_source(path: str | Path, source_layout: str, progress: bool) -> Checked:
    try:
        source = open_source(path, source_layout)
    except DatasetError as error:
        root = Path(path).expanduser()
        if not (faults := _own_faults(root)):
            raise
        return Checked(root, "robosim", 0, 0, [*faults, Fault("damaged", "meta", without_stop(error))])
    faults = _own_faults(source.root)
    if (source.root / layout.INFO_JSON).is_file():
        faults += lerobot_faults(source)
    faults += _all_episodes(source, progress)
    info = source.info
    return Checked(source.root, info.layout, info.episodes, info.frames, _once(faults))


def _own_faults(root: Path) -> list[Fault]:
    return own_faults(root) if (root / layout.ROBOSIM_JSON).is_file() else []


def _check_store(path: Path, progress: bool) -> Checked:
    faults = store_faults(path)
    try:
        store = ClipStore(path)
    except DatasetError:
        return Checked(path, CLIPS, 0, 0, faults)
    faults += _all_episodes(StoreSource(store), progress)
    return Checked(path, CLIPS, len(store.episodes), store.num_frames, _once(faults))


def _all_episodes(source: Source, progress: bool) -> list[Fault]:
    if not progress:
        return source_faults(source)
    total = source.info.frames * len(source.info.cameras)
    with progress_bar("check", total, unit="frame") as bar:
        return source_faults(source, bar)


def _once(faults: list[Fault]) -> list[Fault]:
    """The faults without repetition: two checks may see the same."""
    return list(dict.fromkeys(faults))


def _inside(folder: str, fault: Fault) -> Fault:
    return Fault(fault.kind, f"{folder}/{fault.where}", fault.what, fault.episode)


def _refuse_half_written(path: Path) -> None:
    """What an interrupted run left isn't a dataset; say so, rather than that nothing was found."""
    for name in ("dataset.partial", "clips.partial"):
        finished = path / name.removesuffix(".partial")
        if (path / name).is_dir() and not finished.exists() and not (path / "dataset").is_dir():
            raise DatasetError(
                f"{path / name} is what an interrupted run left, and {finished} isn't there; run the same command again"
            )


def _next(checked: Checked) -> str:
    """What to do after this command."""
    path, own = checked.path, (checked.path / layout.ROBOSIM_JSON).is_file()
    given = shlex.quote(checked.given)
    if checked.layout == CLIPS:
        return (
            f"delete {path} and run the command that made it again"
            if checked.faults
            else f"robosim train stage=tokenizer out={path.parent}"
        )
    if checked.faults or own:
        return f"robosim data show {given}"
    if checked.layout.endswith("with clips"):
        return f"robosim train stage=tokenizer out={given}"
    out = shlex.quote(f"runs/{Path(checked.given).resolve().stem}")
    return f"robosim import {given} out={out}"
