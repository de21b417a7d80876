"""Clay squash: press the lump of clay down to the height of the post, and let go of it."""

from __future__ import annotations

import numpy as np

from robosim.physics.arms.robots import Robot
from robosim.physics.driver import Move
from robosim.physics.kinematics import InverseKinematics
from robosim.physics.scene import THING_CONTACT, Layout, Props, Scene
from robosim.physics.simulation import Reading
from robosim.physics.tasks.base import Task, ToolPolicy
from robosim.physics.tasks.script import Plan, Script

UP = np.array([0.0, 0.0, 1.0])

WIDTH, HEIGHT = 0.08, 0.09
COUNT = (7, 7, 5)
"""Vertices along each edge, of which cells of three (two upwards) move as one. With two all the way the top stays
nearly flat, with four and three physics takes three times as long and the dent looks no different."""

RADIUS = 0.003
"""Of the vertices, which the lump's outline exceeds by as much."""

YIELD = 0.02
"""Strain beyond which the clay flows: 2 mm of a press spring back, whatever its depth (measured); without yielding all
of it would. No press leaves a dent deeper than 0.27 of the height: there the plastic strain of such cells ends."""

DENT = (0.007, 0.020)
POST_RADIUS, POST_LENGTH, POST_ASIDE = 0.015, 0.09, 0.10

TOUCHING, CLEAR = 0.03, 0.07
"""Distances between the tool and the top: a lump under the tool counts as not squashed, however low it is pressed."""

SPRING_BACK = 0.002
"""How much deeper than the goal the expert presses at first; it presses again if that was too little."""

FINE = 0.0015
"""What the expert leaves of the height."""


class ClaySquash(Task):
    name = "clay_squash"
    instruction = "Press the clay down until it is as high as the blue post, and let go of it."
    horizon = 80
    success_distance = 0.003
    axes = (2,)

    @classmethod
    def supports(cls, robot: Robot) -> bool:
        """Arms of about the Panda's size: the SO-101's expert succeeds, but for so small a lump the arm is so strong
        that wild commands squeeze it into the table (4 mm, measured)."""
        return robot.workspace.scale > 0.8

    def props(self) -> Props:
        f, s = self.factors, self.size
        wide, high = (
            (full - 2 * RADIUS) * s / (n - 1) for full, n in ((WIDTH, COUNT[0]), (HEIGHT, COUNT[2]))
        )
        return Props(f"""
            <body name="post" mocap="true">
              <geom type="cylinder" size="{POST_RADIUS * s} {POST_LENGTH * s / 2}" rgba=".05 .25 .95 1"
                    contype="0" conaffinity="0" group="0"/>
            </body>
            <flexcomp name="clay" type="grid" dim="3" count="{COUNT[0]} {COUNT[1]} {COUNT[2]}"
                      spacing="{wide} {wide} {high}" pos="{self.at(0, 0)[0]} 0 {HEIGHT * s / 2}" radius="{RADIUS * s}"
                      mass="{0.7 * self.u**3 * f.mass}" rgba="{f.tint(0.80, 0.42, 0.25)}"
                      dof="trilinear" cellcount="3 3 2">
              <elasticity young="{1.5e5 * self.u}" poisson=".3" damping=".01" yield="{YIELD}"/>
              <contact condim="3" friction="{f.friction}" solref=".004 1" solimp=".95 .999 .001" solmix="100"
                       selfcollide="none" {THING_CONTACT}/>
            </flexcomp>""")

    @property
    def size(self) -> float:
        """Metres that a unit of the lump is long."""
        return self.u * self.factors.size

    def sample(self, rng: np.random.Generator, scene: Scene, kinematics: InverseKinematics) -> Layout:
        """The lump anywhere, the post to its left or right, the tool above both."""
        clay = rng.uniform([-0.10, -0.14], [0.08, 0.14])
        post = clay + np.array([0.0, rng.choice([-POST_ASIDE, POST_ASIDE])])
        tool = rng.uniform([-0.14, -0.20, 0.17], [0.12, 0.20, 0.28])
        layout = Layout(scene, kinematics.solve(self.at(*tool)))
        layout.put("clay", self.at(*clay), rng.uniform(-np.pi / 4, np.pi / 4))
        height = (HEIGHT - rng.uniform(*DENT)) * self.size
        layout.mark("post", np.append(self.at(*post)[:2], height - POST_LENGTH * self.size / 2))
        return layout

    def top(self, reading: Reading) -> np.ndarray:
        """The middle [3] (metres, world) of the lump's upper face."""
        return self._middle(reading, -1) + RADIUS * self.size * UP

    def height(self, reading: Reading) -> float:
        """Of the lump's middle, along its own axis (metres): a lump that leans or has fallen over isn't lower."""
        upright = self._middle(reading, -1) - self._middle(reading, 0)
        return float(np.linalg.norm(upright)) + 2 * RADIUS * self.size

    def _middle(self, reading: Reading, layer: int) -> np.ndarray:
        return reading.soft["clay"].reshape(*COUNT, 3)[2:-2, 2:-2, layer].mean(axis=(0, 1))

    def object(self, reading: Reading) -> np.ndarray:
        """The top, as high as if it had never been pressed while the tool is on it: only what stays counts."""
        top = self.top(reading)
        away = float(np.linalg.norm(reading.tool - top)) / self.u
        touched = float(np.clip((CLEAR - away) / (CLEAR - TOUCHING), 0.0, 1.0))
        height = self.height(reading)
        return np.array([top[0], top[1], height + touched * (HEIGHT * self.size - height)])

    def goal(self, reading: Reading) -> np.ndarray:
        """The post's upper end."""
        return reading.markers["post"][:3] + POST_LENGTH * self.size / 2 * UP

    def measures(self, reading: Reading) -> dict[str, float]:
        return {"dent_m": HEIGHT * self.size - self.height(reading)}

    def expert(self, rng: np.random.Generator) -> ToolPolicy:
        """Press a little further than the goal, let the clay spring back, and press again where that isn't enough."""
        u = self.u
        speed = float(rng.uniform(0.025, 0.035)) * u
        press = float(rng.uniform(0.004, 0.008)) * u

        def plan(script: Script) -> Plan:
            def above(height: float) -> np.ndarray:
                return self.top(script.reading) + height * u * UP

            def remaining() -> float:
                return self.height(script.reading) - float(self.goal(script.reading)[2])

            depth = SPRING_BACK * u
            while remaining() > FINE * u:
                yield from script.go(lambda: above(0.08), speed)
                yield from script.go(lambda: above(0.015), speed)
                while (left := remaining() + depth) > 0.0 and script.reading.tool[
                    2
                ] > 0.3 * HEIGHT * self.size:
                    yield Move(above(-0.05), min(press, 0.6 * left + 0.0005 * u))
                yield from script.go(above(0.08), speed)
                yield from script.wait(2)
                depth += max(0.0, remaining())

        return Script(plan, self.u)
