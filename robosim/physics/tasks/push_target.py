"""Push target: slide the disc with the closed gripper until it lies on the marker.

A disc: its turn can't be seen and doesn't count, so that the position alone is the task.
"""

from __future__ import annotations

import numpy as np

from robosim.physics.driver import Move
from robosim.physics.kinematics import InverseKinematics
from robosim.physics.scene import THING_CONTACT, Layout, Props, Scene
from robosim.physics.simulation import Reading
from robosim.physics.tasks.base import Task, ToolPolicy, draw_until, pushable
from robosim.physics.tasks.pose import square_turn, tilt_of
from robosim.physics.tasks.script import Plan, Script

RADIUS, HEIGHT = 0.045, 0.05
DENSITY = 400.0
"""kg/m³: foam rubber."""

START_DISTANCE = (0.09, 0.24)
AWAY_FROM_CAMERA = -0.6

PUSH_HEIGHT = 0.033
TRAVEL_HEIGHT = 0.11
STANDOFF = 0.05
"""Between the disc's edge and the tool before it descends: fingers that come down on the rim tip the disc."""


class PushTarget(Task):
    name = "push_target"
    instruction = "Push the magenta disc onto the blue marker."
    horizon = 50
    success_distance = 0.03
    axes = (0, 1)

    def props(self) -> Props:
        u, f = self.u, self.factors
        radius, half = RADIUS * f.size * u, 0.5 * HEIGHT * f.size * u
        mass = DENSITY * np.pi * (RADIUS * u) ** 2 * HEIGHT * u * f.mass
        # A disc of an arm's size that was tipped rolls and wobbles on its rim without end, and gains tilt: friction
        # against rolling (the third number) and a drag that spends a turn in 0.3 s bring it to rest.
        drag = mass * radius**2 / 3 / 0.3
        # `priority` makes the disc's contact numbers count, not the larger of its and the other's.
        return Props(
            f"""{self.marker(0.06)}
            <body name="disc" pos="{self.at(0, 0)[0]} 0 {half}">
              <joint type="free" damping="{drag}"/>
              <geom type="cylinder" size="{radius} {half}" mass="{mass}" rgba="{f.tint(0.90, 0.08, 0.55)}"
                    priority="1" condim="6" friction="{0.5 * f.friction} {0.005 * u} {0.003 * u}"
                    solref=".008 1" solimp=".95 .99 .001" {THING_CONTACT}/>
            </body>"""
        )

    def sample(self, rng: np.random.Generator, scene: Scene, kinematics: InverseKinematics) -> Layout:
        disc, marker = draw_until(
            lambda: (
                rng.uniform([-0.11, -0.18], [0.11, 0.18]),
                rng.uniform([-0.12, -0.20], [0.12, 0.20]),
            ),
            lambda pair: pushable(pair[1] - pair[0], START_DISTANCE, AWAY_FROM_CAMERA),
        )
        tool = rng.uniform([-0.14, -0.20, 0.10], [0.12, 0.20, 0.28])
        layout = Layout(scene, kinematics.solve(self.at(*tool)))
        layout.put("disc", self.at(*disc))
        layout.mark("marker", self.at(*marker)[:2])
        return layout

    def object(self, reading: Reading) -> np.ndarray:
        return reading.rigid["disc"][:3]

    def goal(self, reading: Reading) -> np.ndarray:
        return reading.markers["marker"][:3] + np.array([0.0, 0.0, 0.5 * HEIGHT * self.factors.size * self.u])

    def measures(self, reading: Reading) -> dict[str, float]:
        return {"tilt_rad": tilt_of(reading.rigid["disc"])}

    def expert(self, rng: np.random.Generator) -> ToolPolicy:
        """Over the disc to its far side, down, and along the line to the goal, a flat side of the fingers ahead.

        The line is drawn anew each period and the tip steers to the disc's far side, before it goes on; when the disc
        has slipped past the tip, everything starts over.
        """
        u, radius = self.u, RADIUS * self.factors.size * self.u
        speed = float(rng.uniform(0.03, 0.045)) * u
        push_speed = float(rng.uniform(0.015, 0.026)) * u
        standoff, near = radius + STANDOFF * u, 0.012 * u

        def plan(script: Script) -> Plan:
            def line() -> tuple[np.ndarray, float]:
                """Direction [2] from the disc to the goal, and how far that is."""
                way = (self.goal(script.reading) - self.object(script.reading))[:2]
                length = float(np.linalg.norm(way))
                return way / max(length, 1e-6), length

            def behind(height: float) -> np.ndarray:
                place = self.object(script.reading)[:2] - standoff * line()[0]
                return np.clip(np.append(place, height * u), *self.robot.workspace.box)

            def push() -> Plan:
                while True:
                    direction, remaining = line()
                    if remaining < 0.008 * u:
                        yield from script.wait(1)
                        continue
                    offset = script.hand.point[:2] - self.object(script.reading)[:2]
                    along = float(offset @ direction)
                    aside = offset - along * direction
                    astray = float(np.linalg.norm(aside)) / radius
                    if along > -0.4 * radius or astray > 1.0:
                        return
                    ahead = min(push_speed, remaining + 0.004 * u) * max(0.2, 1.0 - 2.0 * astray)
                    target = script.hand.point[:2] + ahead * direction - 0.7 * aside
                    yaw = script.hand.yaw + square_turn(np.arctan2(*direction[::-1]) - script.hand.yaw)
                    yield Move(np.append(target, PUSH_HEIGHT * u), speed, yaw=yaw)

            while True:
                if script.hand.point[2] < (TRAVEL_HEIGHT - 0.02) * u:
                    yield from script.go(
                        np.append(script.hand.point[:2], TRAVEL_HEIGHT * u), speed, within=near
                    )
                yaw = square_turn(np.arctan2(*line()[0][::-1]))
                yield from script.go(lambda: behind(TRAVEL_HEIGHT), speed, yaw=yaw, within=near)
                yield from script.go(lambda: behind(PUSH_HEIGHT), speed, within=near)
                yield from push()

        return Script(plan, self.u)
