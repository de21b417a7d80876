"""What a branch of play remembers, so that steps can be undone: exact, and of bounded size.

A copy of the dynamics' cache is megabytes. So every `SPACING`-th step keeps one, and the steps between keep only their
tokens and noise: going back restores the nearest copy and repeats the known steps after it, one pass each, with copies
on the way: who goes back one step often goes back several.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from robosim.simulator import Moment, Simulator, Snapshot
from robosim.viewer.play.twin import TwinMoment

SPACING = 8
"""Steps between two whole copies. One copy holds the last `window` frames (16 in most presets): each is in two."""

MOST_STEPS = 300
"""Steps that can be undone, at most: half a minute."""

MOST_BYTES = 256 * 2**20
"""Bytes of whole copies that a branch keeps, and as much again on the way back; two are always kept, however large."""


@dataclass(frozen=True)
class Origin:
    """Where a branch began: a title for people, the task that is judged and recorded, a seed."""

    title: str
    task: str
    seed: int


@dataclass(frozen=True)
class Entry:
    """One state: step 0 is the start, which has no `moment`; `twin` is physics at that time, where there is one."""

    step: int
    moment: Moment | None
    snapshot: Snapshot | None
    twin: TwinMoment | None


class History:
    """The states of one branch, the last being the present."""

    def __init__(self, origin: Origin, simulator: Simulator, twin: TwinMoment | None) -> None:
        """Begin with the simulator as it stands."""
        self.origin = origin
        self._entries = [Entry(0, None, simulator.snapshot(), twin)]

    @property
    def present(self) -> Entry:
        return self._entries[-1]

    @property
    def can_undo(self) -> bool:
        return len(self._entries) > 1

    def add(self, simulator: Simulator, twin: TwinMoment | None) -> None:
        """Remember the step that the simulator took last."""
        step = self.present.step + 1
        whole = simulator.snapshot() if step % SPACING == 0 else None
        self._entries.append(Entry(step, simulator.moment, whole, twin))
        if whole is not None:
            self._forget(whole.num_bytes)

    def undo(self) -> None:
        """Forget the present; `rebuild` then brings the simulator to the state before it."""
        self._entries.pop()

    def fork(self) -> History:
        """A branch that shares the past, and nothing from here on."""
        branch = object.__new__(History)
        branch.origin, branch._entries = self.origin, list(self._entries)
        return branch

    def rebuild(self, simulator: Simulator) -> None:
        """Bring the simulator to the present of this branch."""
        at = max(self._wholes())
        snapshot = self._entries[at].snapshot
        assert snapshot is not None
        simulator.restore(snapshot)
        for place, entry in enumerate(self._entries[at + 1 :], at + 1):
            assert entry.moment is not None
            simulator.repeat(entry.moment)
            if SPACING * snapshot.num_bytes <= MOST_BYTES:
                self._entries[place] = replace(entry, snapshot=simulator.snapshot())

    def _wholes(self) -> list[int]:
        return [place for place, entry in enumerate(self._entries) if entry.snapshot is not None]

    def _forget(self, num_bytes: int) -> None:
        """Drop the copies made on the way back, and the oldest steps, up to a whole copy each time."""
        for place in self._wholes():
            if self._entries[place].step % SPACING:
                self._entries[place] = replace(self._entries[place], snapshot=None)
        most = max(2, MOST_BYTES // num_bytes)
        wholes = self._wholes()
        while len(wholes) > 2 and (len(wholes) > most or len(self._entries) - wholes[1] > MOST_STEPS):
            del self._entries[: wholes[1]]
            wholes = self._wholes()
