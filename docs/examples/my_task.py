"""Knock over: hit the standing block so that it falls. A complete task of one's own (docs/tasks.md)."""

import numpy as np

from robosim.physics.kinematics import InverseKinematics
from robosim.physics.scene import THING_CONTACT, Layout, Props, Scene
from robosim.physics.simulation import Reading
from robosim.physics.tasks import register_task
from robosim.physics.tasks.base import Task, ToolPolicy
from robosim.physics.tasks.pose import tilt_of
from robosim.physics.tasks.script import Plan, Script

THICK, WIDE, TALL = 0.03, 0.06, 0.13  # units of the workspace: metres for the Panda


class KnockOver(Task):
    name = "knock_over"
    instruction = "Knock over the violet block."
    horizon = 40
    success_distance = 0.02
    axes = (2,)  # only the height counts

    def props(self) -> Props:
        f = self.factors
        thick, wide, tall = self.u * f.size * np.array([THICK, WIDE, TALL])
        mass = 300.0 * thick * wide * tall * f.mass
        return Props(f"""
            <body name="block" pos="{self.at(0, 0)[0]} 0 {tall / 2}">
              <freejoint/>
              <geom type="box" size="{thick / 2} {wide / 2} {tall / 2}" mass="{mass}" rgba="{f.tint(0.5, 0.1, 0.8)}"
                    priority="1" friction="{0.7 * f.friction} .005 .0001" {THING_CONTACT}/>
            </body>""")

    def sample(self, rng: np.random.Generator, scene: Scene, kinematics: InverseKinematics) -> Layout:
        tool = self.at(*rng.uniform([-0.14, -0.20, 0.18], [0.0, 0.20, 0.28]))
        layout = Layout(scene, kinematics.solve(tool))
        layout.put(
            "block", self.at(*rng.uniform([0.0, -0.15], [0.1, 0.15])), yaw=float(rng.uniform(-0.6, 0.6))
        )
        return layout

    def object(self, reading: Reading) -> np.ndarray:
        return reading.rigid["block"][:3]

    def goal(self, reading: Reading) -> np.ndarray:
        """Where the block's centre is once it lies flat."""
        lying = self.u * self.factors.size * THICK / 2
        return np.append(self.object(reading)[:2], lying)

    def measures(self, reading: Reading) -> dict[str, float]:
        return {"tilt_rad": tilt_of(reading.rigid["block"])}

    def expert(self, rng: np.random.Generator) -> ToolPolicy:
        """Down on the robot's side of the block, then through its upper half, away from the robot."""
        speed = float(rng.uniform(0.025, 0.04)) * self.u
        near = 0.015 * self.u

        def plan(script: Script) -> Plan:
            def beside(forward: float, height: float) -> np.ndarray:
                return self.object(script.reading) * [1, 1, 0] + self.u * np.array([forward, 0.0, height])

            through = beside(0.05, 0.10)
            yield from script.go(lambda: beside(-0.09, 0.19), speed, within=near)
            yield from script.go(lambda: beside(-0.09, 0.10), speed, within=near)
            yield from script.go(through, speed, within=near)

        return Script(plan, self.u)


register_task(KnockOver)
