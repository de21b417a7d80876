"""Folders that appear whole or not at all.

A result is built in `<name>.partial` and renamed when it is complete, so that a crash at any moment leaves the old
result, the new one, or none, never half of one.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robosim.checkpoint import prepare_folder, sync_folder, write_error
from robosim.errors import OutputError

log = logging.getLogger(__name__)


class StagedFolder:
    """Build a folder beside its place, then rename it there.

    `marker` is the file, relative to the folder, by which a finished result is known. An existing result is
    refused unless `replace`; then it is kept until the new one is complete. A folder that holds anything else is
    always refused.
    """

    def __init__(self, final: Path, marker: str, replace: bool = False) -> None:
        # A linked result folder stays a link: the folder it points to is the one to swap.
        self.final = Path(final).resolve()
        self.path = self.final.with_name(self.final.name + ".partial")
        self._previous = self.final.with_name(self.final.name + ".previous")
        self._marker = marker
        prepare_folder(self.final.parent)
        self._recover()
        self._refuse_what_is_there(replace)
        if self.path.exists():
            log.warning("removing %s, which an interrupted run left behind", self.path)
            shutil.rmtree(self.path)
        prepare_folder(self.path)

    def commit(self) -> None:
        """Flush everything to disk and put the new folder in its place."""
        with write_errors(self.final):
            for file in sorted(self.path.rglob("*")):
                if file.is_file():
                    with file.open("rb") as handle:
                        os.fsync(handle.fileno())
            if self._holds_result(self.final):
                self.final.rename(self._previous)
            try:
                os.replace(self.path, self.final)
            except OSError:
                if self._previous.exists():
                    self._previous.rename(self.final)
                raise
            sync_folder(self.final.parent)
        shutil.rmtree(self._previous, ignore_errors=True)

    def abort(self) -> None:
        """Throw the unfinished folder away; what was at the place before is untouched."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _holds_result(self, folder: Path) -> bool:
        return (folder / self._marker).is_file()

    def _recover(self) -> None:
        """Finish or undo a swap that a crash interrupted between its two renames."""
        if not self._previous.exists():
            return
        if self._holds_result(self.final):
            shutil.rmtree(self._previous)
        else:
            log.warning("restoring %s, which an interrupted run had moved aside", self.final)
            with write_errors(self.final):
                os.replace(self._previous, self.final)

    def _refuse_what_is_there(self, replace: bool) -> None:
        if not self.final.exists():
            return
        if not self.final.is_dir():
            raise OutputError(
                f"can't make the folder {self.final}: a file is in its place; move it or set out="
            )
        if self._holds_result(self.final):
            if not replace:
                raise OutputError(
                    f"{self.final} already holds a finished result; delete it or set out= elsewhere"
                )
        elif any(self.final.iterdir()):
            raise OutputError(f"{self.final} holds other files; set out= to an empty or a new folder")


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's write errors (a full disk, no permission) into an `OutputError` about `path`."""
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error
