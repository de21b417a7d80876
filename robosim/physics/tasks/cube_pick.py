"""Cube pick: grasp the cube, lift it, and put it down on the blue stand.

The goal is raised, so that the cube has to be lifted: pushed along the table, it stops at the stand's edge.
"""

from __future__ import annotations

import numpy as np

from robosim.physics.kinematics import InverseKinematics
from robosim.physics.scene import THING_CONTACT, Layout, Props, Scene
from robosim.physics.simulation import Reading
from robosim.physics.tasks.base import Task, ToolPolicy, draw_until
from robosim.physics.tasks.pose import square_turn, tilt_of, yaw_of
from robosim.physics.tasks.script import Plan, Script

SIDE = 0.045
DENSITY = 800.0
"""kg/m³: light wood."""

STAND_RADIUS, STAND_HEIGHT = 0.05, 0.024
APART = (0.12, 0.30)
"""Between the cube and the stand's middle at the start: room for an open hand about the cube."""

ABOVE, LIFT = 0.10, 0.05
"""Heights of the tool over the cube before it descends, and to which it then lifts it."""

CLEARANCE = 0.03
"""By how much the open fingers are further apart than the cube is wide."""

SQUEEZE = 0.6
"""Share of the cube's width that the closing fingers are told to leave."""


class CubePick(Task):
    name = "cube_pick"
    instruction = "Pick up the green cube and put it on the blue stand."
    horizon = 50
    success_distance = 0.02
    grasps = True

    def props(self) -> Props:
        u, f = self.u, self.factors
        half = 0.5 * SIDE * f.size * u
        mass = DENSITY * (SIDE * u) ** 3 * f.mass
        # `priority` makes the cube's contact numbers count, not the larger of its and the other's.
        return Props(
            f"""
            <body name="marker" mocap="true">
              <geom type="cylinder" pos="0 0 {STAND_HEIGHT * u / 2}" size="{STAND_RADIUS * u} {STAND_HEIGHT * u / 2}"
                    rgba=".05 .25 .95 1" contype="9" conaffinity="6"/>
            </body>
            <body name="cube" pos="{self.at(0, 0)[0]} 0 {half}">
              <freejoint/>
              <geom type="box" size="{half} {half} {half}" mass="{mass}" rgba="{f.tint(0.08, 0.75, 0.12)}"
                    priority="1" condim="4" friction="{f.friction} .02 .001" solref=".008 1" solimp=".95 .99 .001"
                    {THING_CONTACT}/>
            </body>""",
            cone="elliptic",
            impratio=10.0,
        )

    def sample(self, rng: np.random.Generator, scene: Scene, kinematics: InverseKinematics) -> Layout:
        cube, stand = draw_until(
            lambda: (
                rng.uniform([-0.12, -0.20], [0.12, 0.20]),
                rng.uniform([-0.12, -0.20], [0.12, 0.20]),
            ),
            lambda pair: APART[0] <= float(np.linalg.norm(pair[0] - pair[1])) <= APART[1],
        )
        tool = rng.uniform([-0.14, -0.20, 0.14], [0.12, 0.20, 0.28])
        layout = Layout(scene, kinematics.solve(self.at(*tool)), opening=1.0)
        layout.put("cube", self.at(*cube), yaw=float(rng.uniform(-np.pi, np.pi)))
        layout.mark("marker", self.at(*stand)[:2])
        return layout

    def object(self, reading: Reading) -> np.ndarray:
        return reading.rigid["cube"][:3]

    def goal(self, reading: Reading) -> np.ndarray:
        standing = STAND_HEIGHT + 0.5 * SIDE * self.factors.size
        return reading.markers["marker"][:3] + np.array([0.0, 0.0, standing * self.u])

    def measures(self, reading: Reading) -> dict[str, float]:
        """`lift_m`: of the cube's centre over the height of one that lies on the table."""
        cube = reading.rigid["cube"]
        return {
            "lift_m": float(cube[2]) - 0.5 * SIDE * self.factors.size * self.u,
            "tilt_rad": tilt_of(cube),
        }

    def expert(self, rng: np.random.Generator) -> ToolPolicy:
        """Over the cube, fingers along its faces; down, close, over the stand, down, let go. A cube that is not
        lifted, or lost on the way, is picked up anew.

        Of the cube's faces the fingers take those to the left and right: taken by the ones before and behind, the cube
        is hidden from the front camera (median 6 instead of 26 of its pixels seen on the SO-101 at 64 px).
        """
        u, side = self.u, SIDE * self.factors.size * self.u
        speed = float(rng.uniform(0.03, 0.045)) * u
        near, exact = 0.02 * u, 0.008 * u
        gripper = self.robot.gripper
        assert gripper is not None
        apart = min(side + CLEARANCE * u, gripper.gap)
        opened, closed = gripper.opening(apart), gripper.opening(SQUEEZE * side)

        def up(height: float) -> np.ndarray:
            return np.array([0.0, 0.0, height * u])

        def plan(script: Script) -> Plan:
            def about(width: float, height: float = 0.0) -> np.ndarray:
                """Where the tool must be for the cube to lie between fingertips `width` apart, or this far below."""
                back = gripper.middle(width) * script.reading.across
                return self.object(script.reading) - back + up(height)

            def carried(height: float = 0.0) -> np.ndarray:
                """Where the tool must be for the cube that it holds to stand on the goal, or this far above it."""
                held = script.reading.tool - self.object(script.reading)
                return self.goal(script.reading) + held + up(height)

            unturned = float(np.arctan2(script.reading.across[1], script.reading.across[0]))
            sideways = -((unturned - np.pi / 2) % np.pi)
            while self.distance(script.reading) > self.success_distance * u:
                faces = yaw_of(script.reading.rigid["cube"]) - unturned
                yaw = square_turn(faces - sideways) + sideways
                yield from script.go(lambda: about(apart, ABOVE), speed, opening=opened, yaw=yaw, within=near)
                yield from script.go(lambda: about(apart), speed, within=exact)
                # A finger that doesn't move is brought up to the cube while the other one closes, which may jam a
                # cube that it has to push along.
                yield from script.go(lambda: about(side), exact, opening=closed, within=0.0, at_most=3)
                lifted = script.hand.point + up(LIFT)
                yield from script.go(lifted, speed, within=near)
                if self.measures(script.reading)["lift_m"] > 0.2 * LIFT * u:
                    yield from script.go(lambda: carried(0.04), speed, within=near)
                    yield from script.go(carried, speed, within=exact)
                yield from script.wait(2, opening=opened)
                yield from script.go(script.hand.point + up(ABOVE), speed, within=near)

        return Script(plan, self.u)
