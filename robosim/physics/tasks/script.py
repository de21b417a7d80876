"""Experts as scripts: a plan that moves the tool from place to place, written as a generator.

    def plan(script: Script) -> Plan:
        yield from script.go(lambda: above(cube()), speed=.04, opening=1.0)
        yield from script.wait(4, opening=0.0)

Each `yield` is one control period. Places may be functions, read anew every period, so that a plan follows what it
wants to hold; when a plan ends, the hand stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from robosim.physics.driver import Hand, Move
from robosim.physics.simulation import Reading

Plan = Iterator[Move]
Place = np.ndarray | Callable[[], np.ndarray]


class Script:
    """A `ToolPolicy` that follows a plan. `reading` and `hand` are what is true and what is commanded now."""

    reading: Reading
    hand: Hand

    def __init__(self, plan: Callable[[Script], Plan], unit: float) -> None:
        """`unit`: metres that a unit of the workspace is long."""
        self._plan, self._exact = plan(self), 0.005 * unit
        self._over = False

    def __call__(self, reading: Reading, hand: Hand) -> Move:
        self.reading, self.hand = reading, hand
        move = None if self._over else next(self._plan, None)
        if move is None:
            self._over = True
            return Move(hand.point, 0.0, hand.opening, hand.yaw)
        return move

    def go(
        self,
        place: Place,
        speed: float,
        opening: float | None = None,
        yaw: float | None = None,
        within: float | None = None,
        at_most: int = 40,
    ) -> Plan:
        """Move to `place` (metres, world) until the commanded point is `within` metres of it (default: 0.005 units).

        `opening` and `yaw`: as they are, unless given. Gives up after `at_most` periods.
        """
        within = self._exact if within is None else within
        for _ in range(at_most):
            target = np.asarray(place() if callable(place) else place)
            wanted = self.hand.yaw if yaw is None else yaw
            if np.linalg.norm(target - self.hand.point) <= within and abs(wanted - self.hand.yaw) < 0.02:
                return
            yield Move(target, speed, self.hand.opening if opening is None else opening, wanted)

    def wait(self, periods: int, opening: float | None = None) -> Plan:
        """Stay for some periods, to let the fingers close or open."""
        for _ in range(periods):
            hand = self.hand
            yield Move(hand.point, 0.0, hand.opening if opening is None else opening, hand.yaw)

    def so_long(self, holds: Callable[[], bool], plan: Plan) -> Plan:
        """Follow `plan` until `holds` turns false: what is carried may be lost on the way."""
        for move in plan:
            if not holds():
                return
            yield move
