"""Soft pick: squeeze the soft cube, lift it, and set it down on the marker."""

from __future__ import annotations

from functools import partial

import numpy as np

from robosim.physics.kinematics import InverseKinematics
from robosim.physics.scene import THING_CONTACT, Layout, Props, Scene
from robosim.physics.simulation import Reading
from robosim.physics.tasks.base import Task, ToolPolicy, draw_until
from robosim.physics.tasks.pose import square_turn
from robosim.physics.tasks.script import Plan, Script

SIDE = 0.06
"""Of the resting cube."""

SKIN = 0.004
"""Radius of its vertices: their outermost layer lies this deep."""

COUNT = 4
"""Vertices along an edge: each of the bottom's is a contact to solve."""

START_DISTANCE = (0.12, 0.26)
SQUEEZE = 0.3
"""Part of the cube's width by which the expert closes the fingers further than to the touch."""

CLEARANCE = 0.04
"""By how much further than the cube is wide the fingers open, if they can."""

CARRY_HEIGHT = (0.10, 0.16)
"""Of the cube's centre while it is carried."""


class SoftPick(Task):
    name = "soft_pick"
    instruction = "Pick up the soft green cube and put it on the blue marker."
    horizon = 60
    success_distance = 0.025
    grasps = True

    @property
    def side(self) -> float:
        """Of the resting cube, metres."""
        return SIDE * self.u * self.factors.size

    def props(self) -> Props:
        f = self.factors
        skin = SKIN * self.u * f.size
        step = (self.side - 2 * skin) / (COUNT - 1)
        x, y, _ = self.at(0, 0)
        # `solmix`: its own hardness counts, not the mean with the other's. Pressed down by the arm, so light a thing
        # would sink through the table.
        return Props(
            f"""{self.marker()}
            <flexcomp name="cube" type="grid" dim="3" count="{COUNT} {COUNT} {COUNT}" spacing="{step} {step} {step}"
                      pos="{x} {y} {self.side / 2}" radius="{skin}" mass="{0.06 * self.u**3 * f.mass}"
                      rgba="{f.tint(0.20, 0.75, 0.30)}" dof="trilinear" cellcount="2 2 1">
              <elasticity young="{8e3 * self.u}" poisson=".3" damping=".01"/>
              <contact condim="3" friction="{1.2 * f.friction}" solref=".004 1" solimp=".95 .999 .001" solmix="100"
                       selfcollide="none" {THING_CONTACT}/>
            </flexcomp>""",
            cone="elliptic",
            impratio=10.0,
        )

    def sample(self, rng: np.random.Generator, scene: Scene, kinematics: InverseKinematics) -> Layout:
        cube, marker = draw_until(
            lambda: (rng.uniform([-0.11, -0.18], [0.11, 0.18]), rng.uniform([-0.11, -0.18], [0.11, 0.18])),
            lambda pair: START_DISTANCE[0] <= float(np.linalg.norm(pair[1] - pair[0])) <= START_DISTANCE[1],
        )
        tool = draw_until(
            lambda: rng.uniform([-0.14, -0.20, 0.08], [0.12, 0.20, 0.28]),
            lambda tool: self._clear_of(tool, cube),
        )
        layout = Layout(scene, kinematics.solve(self.at(*tool)), opening=1.0)
        layout.put("cube", self.at(*cube), yaw=rng.uniform(-np.pi / 4, np.pi / 4))
        layout.mark("marker", self.at(*marker)[:2])
        return layout

    def _clear_of(self, tool: np.ndarray, cube: np.ndarray) -> bool:
        """Whether open fingers whose tip is at `tool` [3] don't touch a cube that rests at `cube` [2]."""
        above = float(tool[2]) > SIDE * self.factors.size + 0.03
        return above or float(np.linalg.norm(tool[:2] - cube)) > 0.11 + SIDE * self.factors.size / 2

    def object(self, reading: Reading) -> np.ndarray:
        return reading.soft["cube"].mean(axis=0)

    def goal(self, reading: Reading) -> np.ndarray:
        return self.above(reading.markers["marker"], SIDE * self.factors.size / 2)

    def measures(self, reading: Reading) -> dict[str, float]:
        """`squeeze`: how much nearer than at rest, as a part of the distance, the nearest opposite vertices of its
        upright faces are. `height_m`: of the centre above where it rests."""
        grid = _grid(reading)
        across = np.stack([grid[-1] - grid[0], grid[:, -1] - grid[:, 0]])
        width = self.side - 2 * SKIN * self.u * self.factors.size
        nearest = float(np.linalg.norm(across, axis=-1).min())
        return {
            "squeeze": max(0.0, 1.0 - nearest / width),
            "height_m": float(self.object(reading)[2]) - self.side / 2,
        }

    def expert(self, rng: np.random.Generator) -> ToolPolicy:
        """Over the cube with open fingers across two of its faces, down, close, and carry it."""
        u, gripper = self.u, self.robot.gripper
        assert gripper is not None
        speed = float(rng.uniform(0.025, 0.04)) * u
        carry = float(rng.uniform(*CARRY_HEIGHT)) * u
        low, above = self.side / 2, self.side + 0.05 * u
        near, exact = 0.02 * u, 0.008 * u
        apart = min(self.side + CLEARANCE * u, gripper.gap)
        opened, closed = gripper.opening(apart), gripper.opening((1.0 - SQUEEZE) * self.side)

        def plan(script: Script) -> Plan:
            def grasp(height: float) -> np.ndarray:
                """Where the tool must be, at `height`, for the cube to lie between the open fingers."""
                middle = self.object(script.reading) - gripper.middle(apart) * script.reading.across
                return np.append(middle[:2], height)

            def carried(height: float) -> np.ndarray:
                """Where the tool must be for the held cube's centre to be at `height` over the marker."""
                held = script.hand.point - self.object(script.reading)
                return np.append(self.goal(script.reading)[:2], height) + held

            def holds() -> bool:
                """Whether the cube is still between the fingers."""
                away = self.object(script.reading) - script.reading.tool
                return float(np.linalg.norm(away)) < 0.7 * self.side

            def up(height: float) -> np.ndarray:
                return np.append(script.hand.point[:2], height)

            while self.distance(script.reading) > self.success_distance * u:
                yaw = _yaw(script.reading)
                if script.hand.point[2] < above:
                    yield from script.go(up(above), speed, opened, yaw, within=near)
                yield from script.go(lambda: grasp(above), speed, opened, yaw, within=exact)
                yield from script.go(lambda: grasp(low), speed, within=exact)
                yield from script.wait(4, closed)
                yield from script.go(up(carry), speed, within=near)
                for height, slow in ((carry, 1.0), (low, 0.8)):
                    way = script.go(partial(carried, height), slow * speed, within=exact)
                    yield from script.so_long(holds, way)
                yield from script.wait(3, opened)
                yield from script.go(up(above), speed, within=near)

        return Script(plan, self.u)


def _grid(reading: Reading) -> np.ndarray:
    """The cube's vertices [x, y, z, 3]."""
    return reading.soft["cube"].reshape(COUNT, COUNT, COUNT, 3)


def _yaw(reading: Reading) -> float:
    """By how much the cube is turned about the vertical (rad), −π/4…π/4: it can't tell quarter turns."""
    along = (_grid(reading)[-1] - _grid(reading)[0]).mean(axis=(0, 1))
    return square_turn(float(np.arctan2(along[1], along[0])))
