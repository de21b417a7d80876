"""Soft push: push the soft body until its centre lies over the marker."""

from __future__ import annotations

import numpy as np

from robosim.physics.driver import Hand, Move
from robosim.physics.kinematics import InverseKinematics
from robosim.physics.scene import THING_CONTACT, Layout, Props, Scene
from robosim.physics.simulation import Reading
from robosim.physics.tasks.base import Task, ToolPolicy, draw_until, pushable

HALF_HEIGHT, HALF_WIDTH = 0.034, 0.044
"""Of the resting body."""

START_DISTANCE = (0.06, 0.14)
AWAY_FROM_CAMERA = -0.5

PUSH_HEIGHT = 0.037
"""Tip height for pushing: low on the body, the hand still above it."""

TRAVEL_HEIGHT = 0.13


class SoftPush(Task):
    name = "soft_push"
    instruction = "Push the soft red block onto the blue marker."
    horizon = 45
    success_distance = 0.04
    axes = (0, 1)

    def props(self) -> Props:
        f, side = self.factors, self.u * self.factors.size
        gap, mass = 0.02 * side, 0.08 * self.u**3 * f.mass
        return Props(f"""{self.marker()}
            <flexcomp name="block" type="grid" dim="3" count="5 5 4" spacing="{gap} {gap} {gap}" mass="{mass}"
                      pos="{self.at(0, 0)[0]} 0 {HALF_HEIGHT * side}" radius="{0.004 * side}"
                      rgba="{f.tint(0.93, 0.12, 0.10)}" dof="trilinear" cellcount="2 2 1">
              <elasticity young="{1.2e3 * self.u}" poisson=".3" damping=".02"/>
              <contact condim="3" friction="{0.6 * f.friction}" solref=".004 1" solimp=".95 .99 .001"
                       selfcollide="none" {THING_CONTACT}/>
            </flexcomp>""")

    def sample(self, rng: np.random.Generator, scene: Scene, kinematics: InverseKinematics) -> Layout:
        block, marker = draw_until(
            lambda: (
                rng.uniform([-0.10, -0.16], [0.10, 0.16]),
                rng.uniform([-0.12, -0.20], [0.12, 0.20]),
            ),
            lambda pair: pushable(pair[1] - pair[0], START_DISTANCE, AWAY_FROM_CAMERA),
        )
        tool = draw_until(
            lambda: rng.uniform([-0.14, -0.20, 0.08], [0.12, 0.20, 0.28]),
            lambda tool: self._clear_of(tool, block),
        )
        layout = Layout(scene, kinematics.solve(self.at(*tool)))
        layout.put("block", self.at(*block))
        layout.mark("marker", self.at(*marker)[:2])
        return layout

    def _clear_of(self, tool: np.ndarray, block: np.ndarray) -> bool:
        """Whether fingers whose tip is at `tool` [3] don't touch a block that rests at `block` [2]."""
        margin, size = 0.03, self.factors.size
        above = float(tool[2]) > 2 * HALF_HEIGHT * size + margin
        return above or float(np.linalg.norm(tool[:2] - block)) > np.sqrt(2) * HALF_WIDTH * size + margin

    def object(self, reading: Reading) -> np.ndarray:
        return reading.soft["block"].mean(axis=0)

    def goal(self, reading: Reading) -> np.ndarray:
        return self.above(reading.markers["marker"], HALF_HEIGHT * self.factors.size)

    def expert(self, rng: np.random.Generator) -> ToolPolicy:
        """Over the body to its far side, down, and along the line to the goal.

        Each period the line is drawn anew from the body to the goal, and the tip steers to the body's far side as
        it pushes, so that a body that slips sideways is brought back.
        """
        u, size = self.u, self.factors.size
        standoff = (1.25 * HALF_WIDTH * size + 0.035) * u
        speed = float(rng.uniform(0.025, 0.04)) * u
        push_speed = float(rng.uniform(0.013, 0.024)) * u

        def policy(reading: Reading, hand: Hand) -> Move:
            point, body, goal = hand.point, self.object(reading)[:2], self.goal(reading)[:2]
            remaining = float(np.linalg.norm(goal - body))
            line = (goal - body) / max(remaining, 1e-6)
            offset = point[:2] - body
            along = float(offset @ line)
            aside = offset - along * line
            behind = body - standoff * line
            if remaining < 0.012 * u:
                return Move(point, 0.0)
            lined_up = along < -0.6 * HALF_WIDTH * size * u and float(np.linalg.norm(aside)) < 0.03 * u
            if lined_up and point[2] < (PUSH_HEIGHT + 0.01) * u:
                steer = point[:2] + push_speed * line - 0.5 * aside
                return Move(np.append(steer, PUSH_HEIGHT * u), push_speed)
            if float(np.linalg.norm(point[:2] - behind)) < 0.02 * u:
                return Move(np.append(behind, PUSH_HEIGHT * u), speed)
            if point[2] < (TRAVEL_HEIGHT - 0.02) * u:
                return Move(np.append(point[:2], TRAVEL_HEIGHT * u), speed)
            return Move(np.append(behind, TRAVEL_HEIGHT * u), speed)

        return policy
