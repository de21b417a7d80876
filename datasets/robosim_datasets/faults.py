"""What can be wrong with a dataset, as rows of one table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table

FaultKind = Literal[
    "schema",  # a table, column, key or metadata file isn't what the layout says
    "shape",
    "dtype",
    "not finite",
    "time",  # time stamps that don't step evenly, or frames that don't count
    "length",  # frames against actions, states, or the episode table
    "limits",  # commands or joints beyond the limits that the dataset itself states
    "checksum",  # a file isn't what was written
    "damaged",  # a file is missing, cut off or can't be decoded
    "black",
    "frozen",
    "repeated",  # the video of another episode
    "splits",  # an episode in more than one split
]


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong. `episode` None: with the dataset as a whole, or a file of several episodes."""

    kind: FaultKind
    where: str
    """File, camera or column, as the user knows it."""
    what: str
    """What is wrong there, with frames and figures; no full stop."""
    episode: int | None = None

    def sentence(self) -> str:
        """The fault as one line, for logs and errors."""
        place = "" if self.episode is None else f"episode {self.episode}, "
        return f"{self.kind}: {place}{self.where}: {self.what}"


def fault_table(faults: Sequence[Fault], title: str) -> Table:
    """The faults by episode, those of the whole dataset first, as a table of rich."""
    rows = [
        ("all" if fault.episode is None else str(fault.episode), fault.kind, fault.where, fault.what)
        for fault in sorted(faults, key=lambda fault: -1 if fault.episode is None else fault.episode)
    ]
    return plain_table(("episode", "fault", "where", "what"), rows, title)


def plain_table(columns: Iterable[str], rows: Iterable[Sequence[str]], title: str) -> Table:
    """A table of rich that shows title, headers and cells letter by letter.

    rich reads markup and emoji codes in a `str`, but names and sentences of other people's files may have brackets.
    """
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(*(Column(Text(name)) for name in columns), title=Text(title, style="table.title"))
    for row in rows:
        table.add_row(*map(Text, row))
    return table
