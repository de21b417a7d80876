"""What can take minutes on opening shows that it goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from robosim.progress import progress

MANY_FILES = 300
MANY_BYTES = 500e6
"""From here on there is a bar; less is looked through in a few seconds."""


def one_by_one(files: Sequence[Path]) -> Iterator[Path]:
    """The files, with a progress bar where they are many or large."""
    if len(files) < MANY_FILES and sum(file.stat().st_size for file in files) < MANY_BYTES:
        yield from files
        return
    with progress("open", len(files), "file") as bar:
        for file in files:
            yield file
            bar.advance()
