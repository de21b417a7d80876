"""Rope place: pull the rope straight along the stripe, its red end onto the marker."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from robosim.physics.kinematics import InverseKinematics
from robosim.physics.scene import THING_CONTACT, Layout, Props, Scene
from robosim.physics.simulation import Reading
from robosim.physics.tasks.base import Task, ToolPolicy, draw_until
from robosim.physics.tasks.script import Plan, Script

LENGTH, RADIUS = 0.40, 0.010
SIZES = (0.75, 1.25)
"""A rope of another size is as thick as asked for, but no shorter or longer than this: it must fit the table."""

POINTS = 21
BALL = 0.015
"""Radius of the red ball at the rope's end."""

GRASPED = 2
"""The point, counted from the red end, by which the expert takes the rope: there the fingers are clear of the ball."""

SLACK = (-0.08, -0.03)
"""By how much of its length the rope's loose end starts nearer to the marker than a straight rope's would: less than
none, so that the red end can only come to the marker by pulling the rope straight."""

LARGEST_YAW = np.radians(80.0)
"""That a start may ask of the wrist."""

START_DISTANCE = (0.08, 0.26)
APART = 0.05
"""Between the open fingertips when they come down about the rope."""

SQUEEZE = 0.3
"""Part of the rope's thickness by which the fingers close further than to the touch: more squeezes it out."""

CARRY_HEIGHT = (0.04, 0.07)
PULL = 0.05
"""Over this length the expert draws the end along the table: lowered from a height, the rope would fall in bends."""

WRIST = np.radians(125.0)
"""How far the wrist can turn to either side of its middle wherever the arm stands."""


@dataclass(frozen=True)
class _Start:
    """One draw, units. `points` [POINTS,2] from the red end; `marker` [2]; `direction` (rad) of the stripe from it."""

    points: np.ndarray
    marker: np.ndarray
    direction: float


class RopePlace(Task):
    name = "rope_place"
    instruction = "Pull the rope straight along the blue stripe, its red end onto the marker."
    horizon = 60
    success_distance = 0.025
    grasps = True

    @property
    def length(self) -> float:
        """Of the rope, units."""
        return LENGTH * float(np.clip(self.factors.size, *SIZES))

    def props(self) -> Props:
        u, f = self.u, self.factors
        length, radius, ball = self.length * u, RADIUS * u * f.size, BALL * u * f.size
        mass = 0.04 * u**3 * f.mass / POINTS
        inertia = mass * radius**2
        x, y, _ = self.at(0, 0)
        # `solmix`: its own hardness counts, not the mean with the other's. Pressed down by the arm, so light a thing
        # would sink through the table.
        hard = 'solref=".004 1" solimp=".98 .9995 .0005" solmix="100"'
        contact = f'friction="{0.6 * f.friction}" {hard} {THING_CONTACT}'
        red_end = (
            f'<geom type="sphere" size="{ball}" rgba="{f.tint(0.90, 0.10, 0.10)}" mass="{mass}" {contact}/>'
        )
        points = "".join(
            f"""<body name="rope_{i}" pos="{x} {y + (i / (POINTS - 1) - 0.5) * length} {radius}">
              <inertial pos="0 0 0" mass="{mass}" diaginertia="{inertia} {inertia} {inertia}"/>
              <joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 1 0"/><joint type="slide" axis="0 0 1"/>
              {red_end if i == 0 else ""}
            </body>"""
            for i in range(POINTS)
        )
        # Written out, where `flexcomp` would do, for the ball on one of its points and to leave out its twist joints.
        return Props(
            f"""<body name="marker" mocap="true">
              <geom type="cylinder" size="{0.045 * u} {0.001 * u}" rgba=".05 .25 .95 1" contype="0" conaffinity="0"/>
              <geom type="box" pos="{length / 2} 0 0" size="{length / 2} {0.008 * u} {0.0008 * u}"
                    rgba=".35 .55 .95 1" contype="0" conaffinity="0"/>
            </body>{points}""",
            top=f"""
            <deformable>
              <flex name="rope" dim="1" radius="{radius}" rgba="{f.tint(0.95, 0.75, 0.20)}"
                    body="{" ".join(f"rope_{i}" for i in range(POINTS))}"
                    element="{" ".join(f"{i} {i + 1}" for i in range(POINTS - 1))}">
                <elasticity young="{5e3 * u}" poisson=".3" damping=".005"/>
                <contact condim="3" selfcollide="none" {contact}/>
              </flex>
            </deformable>
            <equality><flex flex="rope" solref=".008 1"/></equality>""",
            cone="elliptic",
            impratio=10.0,
        )

    def sample(self, rng: np.random.Generator, scene: Scene, kinematics: InverseKinematics) -> Layout:
        start = draw_until(lambda: self._draw(rng), self._doable)
        tool = rng.uniform([-0.14, -0.20, 0.10], [0.12, 0.20, 0.28])
        layout = Layout(scene, kinematics.solve(self.at(*tool)), opening=1.0)
        heights = np.full(POINTS, RADIUS * self.factors.size)
        heights[0] = BALL * self.factors.size
        layout.shape(
            "rope", np.stack([self.at(x, y, z) for (x, y), z in zip(start.points, heights, strict=True)])
        )
        layout.mark("marker", self.at(*start.marker)[:2], start.direction)
        return layout

    def _draw(self, rng: np.random.Generator) -> _Start:
        """A stripe that runs mostly sideways, and a rope that winds away from its far end."""
        length = self.length
        direction = float(rng.choice([-1, 1]) * np.pi / 2 + rng.uniform(-0.6, 0.6))
        along = np.array([np.cos(direction), np.sin(direction)])
        middle = rng.uniform([-0.07, -0.05], [0.07, 0.05])
        marker = middle - along * length / 2
        loose = marker + along * length * (1 - rng.uniform(*SLACK)) + rng.normal(0.0, 0.01, 2)
        bend, wave, phase = rng.uniform(-1.2, 1.2), rng.uniform(0.0, 1.0), rng.uniform(0, 2 * np.pi)
        s = (np.arange(POINTS - 1) + 0.5) / (POINTS - 1)
        heading = direction + np.pi + rng.uniform(-0.6, 0.6) + bend * s + wave * np.sin(2 * np.pi * s + phase)
        steps = length / (POINTS - 1) * np.stack([np.cos(heading), np.sin(heading)], axis=1)
        points = loose + np.vstack([np.zeros(2), np.cumsum(steps, axis=0)])
        return _Start(points[::-1], marker, direction)

    def _doable(self, start: _Start) -> bool:
        away = float(np.linalg.norm(start.points[0] - start.marker))
        low, high = start.points.min(axis=0), start.points.max(axis=0)
        aside = 0.10 + self.length / 2
        inside = low[0] > -0.16 and high[0] < 0.15 and low[1] > -aside and high[1] < aside
        there, back = _grasp_yaws(start.points, start.direction)
        return (
            START_DISTANCE[0] <= away <= START_DISTANCE[1]
            and inside
            and abs(start.points[0][1]) < 0.24  # where the tool goes at most, but for the hand's width
            and max(abs(there), abs(back)) <= LARGEST_YAW
        )

    def object(self, reading: Reading) -> np.ndarray:
        """The red end."""
        return reading.soft["rope"][0]

    def goal(self, reading: Reading) -> np.ndarray:
        return self.above(reading.markers["marker"], BALL * self.factors.size)

    def measures(self, reading: Reading) -> dict[str, float]:
        """`shape_error_m`: mean distance of the rope's points to where they would lie on the stripe, the first on the
        marker. `end_error_m`: of the red end to the marker, along the table."""
        away = reading.soft["rope"][:, :2] - self._target_shape(reading)
        return {
            "shape_error_m": float(np.linalg.norm(away, axis=1).mean()),
            "end_error_m": float(np.linalg.norm(away[0])),
        }

    def _target_shape(self, reading: Reading) -> np.ndarray:
        """Where the rope's points [POINTS,2] (metres) lie when it is straight on the stripe."""
        direction = _direction(reading)
        along = np.linspace(0.0, self.length * self.u, POINTS)
        line = np.array([np.cos(direction), np.sin(direction)])
        return reading.markers["marker"][:2] + along[:, None] * line

    def expert(self, rng: np.random.Generator) -> ToolPolicy:
        """Over the rope close to its red end, the fingers across it; down, close, and draw it to the marker, turning
        the end to lie along the stripe."""
        u, gripper = self.u, self.robot.gripper
        assert gripper is not None
        speed = float(rng.uniform(0.025, 0.04)) * u
        carry = float(rng.uniform(*CARRY_HEIGHT)) * u
        low, above, near = self.robot.workspace.low * u, 0.08 * u, 0.012 * u
        opened = gripper.opening(APART * u)
        closed = gripper.opening((1.0 - SQUEEZE) * 2 * RADIUS * self.factors.size * u)

        def plan(script: Script) -> Plan:
            def rope() -> np.ndarray:
                """Where it is to be grasped [3]."""
                return script.reading.soft["rope"][GRASPED]

            def grasp(height: float) -> np.ndarray:
                """Where the tool must be, at `height`, for the rope to lie between the open fingers."""
                tool = rope() - gripper.middle(APART * u) * script.reading.across
                return np.append(tool[:2], height)

            def carried(height: float, inwards: float = 0.0) -> np.ndarray:
                """Where the tool must be, at `height`, for the red end to be over the stripe, so far from the goal."""
                held = script.hand.point - self.object(script.reading)
                return np.append((self.goal(script.reading) + held)[:2] + inwards * along, height)

            def holds() -> bool:
                """Whether the rope is still between the fingers."""
                return float(np.linalg.norm(rope() - script.reading.tool)) < 0.04 * u

            def up(height: float) -> np.ndarray:
                return np.append(script.hand.point[:2], height)

            direction = _direction(script.reading)
            along = np.array([np.cos(direction), np.sin(direction)])
            while self.distance(script.reading) > self.success_distance * u:
                there, back = self._comfortable(*_grasp_yaws(script.reading.soft["rope"][:, :2], direction))
                if script.hand.point[2] < above:
                    yield from script.go(up(above), speed, opened, there, within=near)
                yield from script.go(lambda: grasp(above), speed, opened, there, within=0.5 * near)
                yield from script.go(lambda: grasp(low), speed, opened, there, within=0.5 * near)
                yield from script.wait(4, closed)
                yield from script.go(up(carry), speed, within=near)
                for height, inwards, slow in ((carry, PULL * u, 1.0), (low, PULL * u, 1.0), (low, 0.0, 0.7)):
                    way = script.go(
                        partial(carried, height, inwards), slow * speed, yaw=back, within=0.5 * near
                    )
                    yield from script.so_long(holds, way)
                yield from script.wait(3, opened)
                yield from script.go(up(above), speed, within=near)

        return Script(plan, self.u)

    def _comfortable(self, there: float, back: float) -> tuple[float, float]:
        """The same two yaws or both half a turn on, which holds the rope as well: what the wrist can do, with the
        least turning. It turns about the vertical, the other way round than yaw does, as the tool points down."""
        spec, last = self.robot.spec, self.robot.num_arm_joints - 1
        middle = self.robot.rest[last] - 0.5 * (spec.lower[last] + spec.upper[last])

        def effort(pair: tuple[float, float]) -> tuple[float, float]:
            return max(WRIST, *(abs(yaw - middle) for yaw in pair)), abs(pair[0])

        return min(((there + turn, back + turn) for turn in (-np.pi, 0.0, np.pi)), key=effort)


def _direction(reading: Reading) -> float:
    """Of the stripe, from the marker (rad)."""
    quat = reading.markers["marker"][3:]
    return 2.0 * float(np.arctan2(quat[3], quat[0]))


def _grasp_yaws(points: np.ndarray, direction: float) -> tuple[float, float]:
    """Yaw of the tool (rad) that closes its fingers across the rope `points` [POINTS,2] at its red end, and the one
    at which the same grasp holds this end along `direction` (rad)."""
    tangent = points[GRASPED + 1] - points[GRASPED - 1]
    turn = (direction - np.arctan2(tangent[1], tangent[0]) + np.pi) % (2 * np.pi) - np.pi
    back = direction % np.pi - np.pi / 2  # the fingers close along x at yaw 0, across a rope along y
    return back - turn, back
