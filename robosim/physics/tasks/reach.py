"""Reach: bring the tool's tip to a point just above the marker."""

from __future__ import annotations

import numpy as np

from robosim.physics.driver import Hand, Move
from robosim.physics.kinematics import InverseKinematics
from robosim.physics.scene import Layout, Props, Scene
from robosim.physics.simulation import Reading
from robosim.physics.tasks.base import Task, ToolPolicy, draw_until

GOAL_HEIGHT = 0.05
START_DISTANCE = (0.10, 0.25)


class Reach(Task):
    name = "reach"
    instruction = "Move the tool to the blue marker."
    horizon = 30
    success_distance = 0.04
    subject = "tool"

    def props(self) -> Props:
        return Props(self.marker(0.055 * self.factors.size))

    def sample(self, rng: np.random.Generator, scene: Scene, kinematics: InverseKinematics) -> Layout:
        goal = np.append(rng.uniform([-0.12, -0.20], [0.12, 0.20]), GOAL_HEIGHT)
        tool = draw_until(
            lambda: rng.uniform([-0.14, -0.20, 0.08], [0.12, 0.20, 0.28]),
            lambda tool: START_DISTANCE[0] <= float(np.linalg.norm(tool - goal)) <= START_DISTANCE[1],
        )
        layout = Layout(scene, kinematics.solve(self.at(*tool)))
        layout.mark("marker", self.at(*goal)[:2])
        return layout

    def object(self, reading: Reading) -> np.ndarray:
        return self.goal(reading)

    def goal(self, reading: Reading) -> np.ndarray:
        return self.above(reading.markers["marker"], GOAL_HEIGHT)

    def expert(self, rng: np.random.Generator) -> ToolPolicy:
        """A straight line to the goal, slowing down over the last centimetres."""
        speed = float(rng.uniform(0.015, 0.03)) * self.u

        def policy(reading: Reading, hand: Hand) -> Move:
            goal = self.goal(reading)
            return Move(goal, min(speed, 0.5 * float(np.linalg.norm(goal - hand.point))))

        return policy
