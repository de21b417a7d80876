"""`robosim data show`: what a dataset of any layout holds, as text and as a rerun recording."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from robosim_datasets.faults import fault_table, plain_table
from robosim_datasets.sources.source import Source, SourceEpisode, SourceInfo

from robosim.config import RunOptions, compose
from robosim.errors import ConfigError, DatasetError, UnsupportedError
from robosim.progress import progress

if TYPE_CHECKING:
    from rich.table import Table

    from robosim.viewer.dataset_recording import ShownEpisode

INSTRUCTIONS = 8
"""How many different instructions are printed."""

LOG_WIDTH = 110
"""Columns of a table that doesn't go to a terminal."""


@dataclass
class ShowConfig(RunOptions):
    """What to show."""

    path: str = ""
    layout: str = "auto"
    episodes: int = 4
    chosen: tuple[int, ...] = ()
    frames: int | None = 2000
    open: bool | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError("path is empty; name a dataset: robosim data show runs/NAME")
        if self.episodes < 1:
            raise ConfigError("episodes must be at least 1")
        if self.frames is not None and self.frames < 1:
            raise ConfigError("frames must be at least 1, or null for all of an episode")


def show_command(command: str, overrides: Sequence[str]) -> None:
    """Print what a dataset holds, write some of its episodes as a recording, open it where there is a display."""
    config = compose(command, ShowConfig, overrides)
    if config.open is True and not has_display():
        raise UnsupportedError(
            "open=true: there is no display here; copy the recording to where there is one"
        )
    from robosim_datasets.sources.detect import open_source

    source = open_source(config.path, config.layout)
    recording = show_source(source, config)
    print(f"made {recording}")
    if config.open is True or (config.open == "auto" and has_display()):
        open_viewer(recording)
        print("opened it in the viewer")
    print(f"next: uv run rerun {recording}")


def show_source(source: Source, config: ShowConfig) -> Path:
    """Print a source and write the recording of its episodes; return the recording's path.

    Damaged episodes are named and left out. Raises `DatasetError` where every chosen one is, `ConfigError` for numbers
    that there aren't.
    """
    name = dataset_name(source)
    numbers = choose_episodes(source.info, config)
    describe(source.info, name)
    readable, remarks = _read(source, numbers)
    if readable:
        _print(_ranges(source.info, list(readable.values())), _episode_table(readable))
    from robosim.viewer.dataset_recording import record_episodes

    path = recording_path(config.out, name)
    shown = _sound(source, readable, config.frames, remarks)
    first = next(shown, None)
    if first is not None:
        outcome = any(
            episode.reward is not None or episode.success is not None for episode in readable.values()
        )
        record_episodes(path, name, source.info, chain([first], shown), outcome)
    for sentence in remarks:
        print(sentence)
    if first is None:
        raise DatasetError(
            f"none of the episodes {', '.join(map(str, numbers))} of {source.root} can be read; choose others: "
            "chosen=[…]"
        )
    return path


def choose_episodes(info: SourceInfo, config: ShowConfig) -> list[int]:
    """Numbers of the episodes to show: the chosen ones, else `episodes` of them, evenly spread over every split."""
    for number in config.chosen:
        if not 0 <= number < info.episodes:
            raise ConfigError(
                f"chosen: there is no episode {number}; {info.name} has 0 … {info.episodes - 1}"
            )
    if config.chosen:
        return sorted(set(config.chosen))
    # Splits lie one after another in every layout that has them; where they don't, this is an even spread all the same.
    sizes = [size for size in info.splits.values() if size]
    if sum(sizes) != info.episodes:
        sizes = [info.episodes]
    wanted = min(config.episodes, info.episodes)
    shares = [max(1, round(wanted * size / info.episodes)) for size in sizes][:wanted]
    while sum(shares) > wanted:
        shares[int(np.argmax(shares))] -= 1
    while sum(shares) < wanted:
        shares[min((k for k, size in enumerate(sizes) if shares[k] < size), key=shares.__getitem__)] += 1
    starts = np.cumsum([0, *sizes])
    return sorted(
        {
            int(starts[split] + (2 * k + 1) * sizes[split] // (2 * share))
            for split, share in enumerate(shares)
            for k in range(share)
        }
    )


def describe(info: SourceInfo, name: str) -> None:
    """Print what the source says of itself."""
    splits = ", ".join(f"{split} {count}" for split, count in info.splits.items())
    cameras = [f"{camera} {width}×{height}" for camera, (height, width) in info.cameras.items()]
    rate = f"{info.fps:g} frames/s, {_clock(info.frames / info.fps)}" if info.fps else "rate not given"
    facts = {
        "robot": info.robot or "unknown",
        "episodes": f"{info.episodes}{f' ({splits})' if splits else ''}",
        "frames": f"{info.frames} ({rate})",
        "cameras": ", ".join(cameras) or "none",
        "state": _count(len(info.state_names), "number"),
        "action": _count(len(info.action_names), "number")
        + (f", {info.action_kind}" if info.action_names else ""),
        "language": _count(len(info.instructions), "instruction"),
    }
    print(f"{name}: {info.layout}{f', {info.bytes / 1e6:.1f} MB' if info.bytes else ''}")
    for label, text in facts.items():
        print(f"  {label:<9} {text}")
    for instruction in info.instructions[:INSTRUCTIONS]:
        print(f"    “{instruction}”")
    if len(info.instructions) > INSTRUCTIONS:
        print(f"    … and {len(info.instructions) - INSTRUCTIONS} more")
    for note in info.notes:
        print(f"  note: {note}")
    if info.faults:
        _print(fault_table(info.faults, "faults seen on opening"))


def recording_path(out: str | None, name: str) -> Path:
    """The recording's file: `out`, or `show.rrd` in it where it isn't the name of one."""
    path = Path(out).expanduser() if out else Path("runs") / f"show-{name}"
    return path if path.suffix == ".rrd" else path / "show.rrd"


def dataset_name(source: Source) -> str:
    """Of a source, fit for a file: a dataset or clips in a run folder are called after the run."""
    root = source.root.resolve()
    name = root.parent.name if root.name in ("dataset", "clips") else source.info.name
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "dataset"


def has_display() -> bool:
    """Whether a window could be opened."""
    if sys.platform in ("darwin", "win32"):
        return "SSH_CONNECTION" not in os.environ
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def open_viewer(recording: Path) -> None:
    """Start the viewer, which outlives this process."""
    quiet = subprocess.DEVNULL
    command = [sys.executable, "-m", "rerun", str(recording)]
    subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)


def _read(source: Source, numbers: Sequence[int]) -> tuple[dict[int, SourceEpisode], list[str]]:
    """The episodes' numbers and texts, and a sentence for each that is damaged."""
    episodes, remarks = {}, []
    for number in numbers:
        try:
            episodes[number] = source.read(number)
        except DatasetError as error:
            remarks.append(f"left out, damaged: episode {number}: {error}")
    return episodes, remarks


def _sound(
    source: Source, episodes: dict[int, SourceEpisode], frames: int | None, remarks: list[str]
) -> Iterator[ShownEpisode]:
    """The episodes whose first `frames` frames (None: all) can be decoded.

    `remarks` gets a sentence for each that can't be, and for each that is longer.
    """
    from robosim.viewer.dataset_recording import check_episode

    with progress("show", total=len(episodes), unit="episode") as bar:
        for number, columns in episodes.items():
            try:
                shown = check_episode(source, number, columns, frames)
            except DatasetError as error:
                remarks.append(f"left out, damaged: episode {number}: {error}")
            else:
                if shown.columns.length < shown.length:
                    remarks.append(
                        f"episode {number}: the recording has the first {shown.columns.length} of {shown.length} "
                        "frames; frames=null takes all"
                    )
                yield shown
            bar.advance()


def _ranges(info: SourceInfo, episodes: Sequence[SourceEpisode]) -> Table:
    """Smallest and largest of every number in the episodes that are shown and have it."""
    from robosim.viewer.dataset_recording import distinct

    rows = []
    for kind, names in (("state", info.state_names), ("action", info.action_names)):
        values = [getattr(episode, kind) for episode in episodes if getattr(episode, kind).size]
        if not values:
            continue
        low, high = np.min([part.min(0) for part in values], 0), np.max([part.max(0) for part in values], 0)
        for column, name in enumerate(distinct(names)):
            rows.append((kind, name, f"{low[column]:.4g}", f"{high[column]:.4g}"))
    return plain_table(("", "number", "min", "max"), rows, "values in the episodes shown")


def _episode_table(episodes: dict[int, SourceEpisode]) -> Table:
    """A row an episode; what none of them has gets no column."""
    columns = {
        "episode": [str(number) for number in episodes],
        "split": [episode.split or "" for episode in episodes.values()],
        "frames": [str(episode.length) for episode in episodes.values()],
        "action": [_span(episode.action) for episode in episodes.values()],
        "reward": [_sum(episode.reward) for episode in episodes.values()],
        "success": [_ever(episode.success) for episode in episodes.values()],
        "instruction": [episode.instruction for episode in episodes.values()],
    }
    filled = {name: cells for name, cells in columns.items() if any(cells)}
    return plain_table(filled, zip(*filled.values(), strict=True), "episodes shown")


def _span(values: np.ndarray) -> str:
    return f"{values.min():.3g} … {values.max():.3g}" if values.size else ""


def _sum(rewards: np.ndarray | None) -> str:
    return "" if rewards is None else f"{np.nansum(rewards):.3g}"


def _ever(success: np.ndarray | None) -> str:
    return "" if success is None else "yes" if success.any() else "no"


def _print(*tables: Table) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
    for table in tables:
        if table.row_count:
            console.print(table)


def _count(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}" if count else "none"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
