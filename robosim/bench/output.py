"""How a benchmark's result leaves: JSON on stdout and in a file, a table on stderr."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robosim.checkpoint import atomic_write_json
from robosim.evaluation.machine import machine


def document(bench: str, command: Sequence[str], **facts: Any) -> dict[str, Any]:
    """The frame of every benchmark's JSON: what ran, where, and under which command."""
    return {"bench": bench, "command": " ".join(command), "machine": machine(), **facts}


def publish(result: Mapping[str, Any], out: str | None, title: str, columns: Sequence[str]) -> None:
    """Print `result`, and `columns` of its `results` as a table; write it to the file `out` if there is one."""
    from rich.console import Console
    from rich.table import Table

    if out:
        atomic_write_json(Path(out).expanduser().resolve(), result)
    table = Table(*(column.replace("_", " ") for column in columns), title=title)
    for row in result["results"]:
        table.add_row(*(shown(row.get(column)) for column in columns))
    console = Console(stderr=True)
    # A log has no width of its own; 80 columns would cut the figures.
    (console if console.is_terminal else Console(stderr=True, width=140)).print(table)
    print(json.dumps(result, indent=2))


def shown(value: Any) -> str:
    """A figure as a table has it."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return "  ".join(f"{name} {shown(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return "–".join(shown(part) for part in value)
    return "" if value is None else str(value)
