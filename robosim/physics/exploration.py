"""Exploration: what a world model must see besides successes — wandering, misses, stops, pushes to nowhere."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from robosim.physics.driver import Hand, Move
from robosim.physics.simulation import Reading
from robosim.physics.tasks.base import Task

ANYWHERE = (-0.14, -0.22), (0.14, 0.22)
"""Lower and upper corner, (forward, left) from the workspace's centre, of where it goes."""

SPEEDS = (0.012, 0.042)
"""Units of the workspace a control period, as all lengths here."""

LOW, HIGH = 0.037, 0.14
"""Tip heights for pushing and for travelling over a thing."""

PUSH_ANGLE = 2 * np.pi / 3
"""Largest angle between a push and the direction to the camera, rad: in the others the arm hides what it does."""

THING = 0.044
"""Half the width that a thing is taken to have."""

MISS = 0.03
"""Standard deviation by which a push misses the thing's centre."""

GRASP = 0.012
"""Tip height of a grasp that is tried."""

APART = 0.07
"""Between the fingertips before they close."""

CLOSING = 4
"""Control periods that the fingers are given to close or open."""


@dataclass(frozen=True)
class Waypoint:
    """Where to go (metres, world), how fast (metres a period), with which opening; and periods to stay there."""

    target: np.ndarray
    speed: float
    opening: float
    stay: int = 0


class Exploration:
    """A tool policy that wanders from way-point to way-point, all of its choices drawn from `rng`."""

    def __init__(self, rng: np.random.Generator, task: Task) -> None:
        self._rng, self._task = rng, task
        self._space, self._u = task.robot.workspace, task.u
        self._waypoints: deque[Waypoint] = deque()
        self._wait = 0

    def __call__(self, reading: Reading, hand: Hand) -> Move:
        if self._wait > 0:
            self._wait -= 1
            return Move(hand.point, 0.0, hand.opening)
        if not self._waypoints:
            self._plan(reading)
        waypoint = self._waypoints[0]
        if float(np.linalg.norm(waypoint.target - hand.point)) <= 1.2 * waypoint.speed:
            self._waypoints.popleft()
            self._wait = waypoint.stay
        return Move(waypoint.target, waypoint.speed, waypoint.opening)

    def _plan(self, reading: Reading) -> None:
        """Choose what to do next: meddle with the thing (45 %), visit thing or goal (30 %), wander (20 %), stop for a
        while (5 %). Meddling is a push; where the task uses the gripper, half of the time a try to grasp and carry."""
        choice = self._rng.random()
        thing, goal = self._task.object(reading), self._task.goal(reading)
        if choice < 0.45:
            if self._task.grasps and self._rng.random() < 0.5:
                self._carry(thing, reading.across)
            else:
                self._push(thing[:2])
        elif choice < 0.75:
            place = thing if self._rng.random() < 0.5 else goal
            self._go(place[:2] + self._u * self._rng.normal(0.0, 0.04, 2), self._rng.uniform(LOW, 0.2))
        elif choice < 0.95:
            self._go(self._anywhere(), self._rng.uniform(LOW, 0.28))
        else:
            self._wait = int(self._rng.integers(2, 6))
            self._go(reading.tool[:2], reading.tool[2] / self._u)

    def _push(self, thing: np.ndarray) -> None:
        angle = self._rng.uniform(-PUSH_ANGLE, PUSH_ANGLE)
        line = np.array([np.cos(angle), np.sin(angle)])
        aside = self._rng.normal(0.0, MISS) * np.array([-line[1], line[0]])
        behind = thing + self._u * (aside - line * (THING + self._rng.uniform(0.03, 0.06)))
        self._go(behind, HIGH)
        self._go(behind, LOW)
        speed = self._rng.uniform(0.012, 0.025) if self._rng.random() < 0.5 else None
        self._go(thing + self._u * (aside + line * self._rng.uniform(0.0, 0.12)), LOW, speed=speed)

    def _carry(self, thing: np.ndarray, across: np.ndarray) -> None:
        """Open, descend about the thing, close, lift, go elsewhere, and mostly let go there."""
        gripper = self._task.robot.gripper
        assert gripper is not None
        apart = min(APART * self._u, gripper.gap)
        place = thing - gripper.middle(apart) * across
        place = place[:2] + self._u * self._rng.normal(0.0, 0.2 * MISS, 2)
        height, opened = max(GRASP, thing[2] / self._u), gripper.opening(apart)
        self._go(place, HIGH, opening=opened)
        self._go(place, height, opening=opened)
        self._go(place, height, opening=0.0, stay=CLOSING)
        self._go(place, self._rng.uniform(0.08, 0.2), opening=0.0)
        elsewhere, low = self._anywhere(), self._rng.uniform(0.03, 0.1)
        self._go(elsewhere, low, opening=0.0)
        if self._rng.random() < 0.7:
            self._go(elsewhere, low, opening=opened, stay=CLOSING)

    def _anywhere(self) -> np.ndarray:
        return self._space.at(*self._rng.uniform(*ANYWHERE))[:2]

    def _go(
        self,
        place: np.ndarray,
        height: float,
        speed: float | None = None,
        opening: float = 0.0,
        stay: int = 0,
    ) -> None:
        target = np.clip(np.append(place[:2], height * self._u), *self._space.box)
        drawn = float(self._rng.uniform(*SPEEDS))
        speed = self._u * (drawn if speed is None else speed)
        self._waypoints.append(Waypoint(target, speed, opening, stay))


class Stopped:
    """An expert that gives up at some moment and explores from there: the failures nearest to success."""

    def __init__(self, rng: np.random.Generator, task: Task) -> None:
        self._expert, self._afterwards = task.expert(rng), Exploration(rng, task)
        self._left = int(rng.integers(3, max(4, int(0.6 * task.horizon))))

    def __call__(self, reading: Reading, hand: Hand) -> Move:
        self._left -= 1
        return (self._expert if self._left >= 0 else self._afterwards)(reading, hand)
