"""What was found in a source and what will be written, printed before anything is."""

from __future__ import annotations

from rich.console import Console

from robosim_datasets.faults import Fault, fault_table, plain_table
from robosim_datasets.importing.plan import Plan
from robosim_datasets.sources.source import Source

SHOWN = 6
"""Names, cameras and sentences of a list that are shown before the rest is counted."""


def print_findings(source: Source, plan: Plan) -> None:
    """Two columns: the source as it is, and the dataset that it becomes."""
    info, spec = source.info, plan.spec
    frames = sum(len(piece.rows) for piece in plan.pieces)
    splits = [piece.split for piece in plan.pieces]
    sizes = [f"{name} {width}×{height}" for name, (height, width) in info.cameras.items()]
    found = few([f"{name} {count}" for name, count in info.splits.items()]) or "none"
    rows = [
        ("cameras", few(sizes), few([f"{name} {spec.size}×{spec.size}" for name in spec.cameras])),
        ("frames/s", f"{plan.source_fps:g}", f"{spec.fps}"),
        ("episodes", f"{info.episodes}", f"{len(plan.pieces)}"),
        ("frames", f"{info.frames}", f"{frames}"),
        ("splits", found, f"train {splits.count('train')}, val {splits.count('val')}"),
        ("state", numbers(info.state_names), numbers(spec.state_columns)),
        ("action", numbers(info.action_names), f"{numbers(spec.action_columns)} ({spec.action_kind})"),
        ("language", few([repr(text) for text in info.instructions if text]) or "none", ""),
    ]
    table = plain_table(("", "found", "becomes"), rows, f"{info.name}: {info.layout}")
    console = Console()
    (console if console.is_terminal else Console(width=140)).print(table)
    for note in [*plan.notes, *(f"seen on opening: {fault.sentence()}" for fault in info.faults)]:
        print(f"  note: {note}")


def print_left_out(faults: list[Fault]) -> None:
    """The episodes that weren't imported, and why."""
    if faults:
        Console().print(
            fault_table(faults, "what is wrong with the source; the episodes named here are left out")
        )


def few(values: list[str]) -> str:
    """A list, or its beginning and how many more there are."""
    rest = len(values) - SHOWN
    return ", ".join(values[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def numbers(names: tuple[str, ...]) -> str:
    """How many numbers a vector has, and their names."""
    return f"{len(names)}: {few(list(names))}" if names else "none"
