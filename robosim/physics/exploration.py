"""Exploration: what a world model must see besides successes — wandering, misses, stops, pushes to nowhere."""

from __future__ import annotations

from collections import deque

import numpy as np

from robosim.physics.driver import TOOL_LOWER, TOOL_UPPER
from robosim.physics.scene import SOFT_HALF_WIDTH
from robosim.physics.simulation import Reading

SPEEDS = (0.012, 0.042)
"""Metres a control period."""

LOW, HIGH = 0.037, 0.14
"""Tip heights for pushing and for travelling over the soft body, metres."""

PUSH_ANGLE = 2 * np.pi / 3
"""Largest angle between a push and the direction to the camera, rad: as in the task, the arm hides the others."""

MISS = 0.03
"""Standard deviation by which a push misses the body's centre, metres."""


class Exploration:
    """A tool policy that wanders from way-point to way-point, all of its choices drawn from `rng`."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._waypoints: deque[tuple[np.ndarray, float]] = deque()
        self._wait = 0

    def __call__(self, reading: Reading, point: np.ndarray) -> tuple[np.ndarray, float]:
        if self._wait > 0:
            self._wait -= 1
            return point, 0.0
        if not self._waypoints:
            self._plan(reading)
        target, speed = self._waypoints[0]
        if float(np.linalg.norm(target - point)) <= 1.2 * speed:
            self._waypoints.popleft()
        return target, speed

    def _plan(self, reading: Reading) -> None:
        """Choose what to do next: push (45 %), visit body or marker (30 %), wander (20 %), stop for a while (5 %)."""
        choice = self._rng.random()
        if choice < 0.45:
            self._push(reading.object[:2])
        elif choice < 0.75:
            place = reading.object if self._rng.random() < 0.5 else reading.marker
            self._go(place[:2] + self._rng.normal(0.0, 0.04, 2), self._rng.uniform(LOW, 0.2))
        elif choice < 0.95:
            self._go(self._rng.uniform([0.36, -0.22], [0.64, 0.22]), self._rng.uniform(LOW, 0.28))
        else:
            self._wait = int(self._rng.integers(2, 6))
            self._go(reading.tool[:2], reading.tool[2])

    def _push(self, body: np.ndarray) -> None:
        angle = self._rng.uniform(-PUSH_ANGLE, PUSH_ANGLE)
        line = np.array([np.cos(angle), np.sin(angle)])
        aside = self._rng.normal(0.0, MISS) * np.array([-line[1], line[0]])
        behind = body - line * (SOFT_HALF_WIDTH + self._rng.uniform(0.03, 0.06)) + aside
        self._go(behind, HIGH)
        self._go(behind, LOW)
        self._go(body + line * self._rng.uniform(0.0, 0.12) + aside, LOW)
        if self._rng.random() < 0.5:
            self._waypoints[-1] = (self._waypoints[-1][0], float(self._rng.uniform(0.012, 0.025)))

    def _go(self, place: np.ndarray, height: float) -> None:
        target = np.clip(np.array([place[0], place[1], height]), TOOL_LOWER, TOOL_UPPER)
        self._waypoints.append((target, float(self._rng.uniform(*SPEEDS))))
