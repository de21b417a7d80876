"""Cloth fold: bring the cloth's left corner over to its right corner."""

from __future__ import annotations

import numpy as np

from robosim.physics.kinematics import InverseKinematics
from robosim.physics.scene import Layout, Props, Scene
from robosim.physics.simulation import Reading
from robosim.physics.tasks.base import Task, ToolPolicy
from robosim.physics.tasks.script import Plan, Script

SIDE = 0.22
COUNT = 11
"""Vertices along a side."""

RADIUS = 0.004
"""Half the cloth's thickness."""

MOVING, STAYING = COUNT - 1, COUNT * (COUNT - 1)
"""Vertices of the left and the right corner, as the front camera sees them. The grid's triangles have an edge along the
diagonal between the other two corners, so that the fold is a straight crease; along this one it would crumple."""

TURN = 0.5
"""Largest turn of the cloth from standing on a corner, rad: beyond π/4 another corner would be the leftmost."""

INSET = 0.005
"""Distance of the grasp from the corner, towards the middle."""

GRASP_HEIGHT, APPROACH_HEIGHT, CARRY_HEIGHT, RETREAT_HEIGHT = 0.012, 0.08, 0.13, 0.15
HELD = 0.005
"""A corner this near to the tool is held."""

DROP_HEIGHT = 0.05
"""Where the corner is let go: above `success_distance`, so that a cloth that is still held is not yet folded."""


class ClothFold(Task):
    name = "cloth_fold"
    instruction = "Fold the cloth: put its left corner onto its right corner."
    horizon = 80
    success_distance = 0.04
    grasps = True

    def props(self) -> Props:
        """The fabric is inextensible (edges of constant length) and doesn't bend back.

        It collides with the table alone: the sticky grasp takes the place of contact with the fingers, and contact
        with itself makes a folded cloth five times as expensive (57 against 10 ms a control step). So its layers lie
        within each other.
        """
        u, f = self.u, self.factors
        spacing = SIDE * f.size * u / (COUNT - 1)
        return Props(
            f"""<body name="corner" mocap="true"><site group="4"/></body>
            <flexcomp name="cloth" type="grid" dim="2" count="{COUNT} {COUNT} 1" spacing="{spacing} {spacing} {spacing}"
                      pos="{self.at(0, 0)[0]} 0 {1.1 * RADIUS * u}" radius="{RADIUS * u}"
                      mass="{0.05 * u**2 * f.mass}" rgba="{f.tint(0.16, 0.42, 0.85)}">
              <edge equality="true" solref=".008 1"/>
              <contact condim="3" friction="{0.9 * f.friction}" solref=".004 1" solimp=".95 .999 .001" solmix="100"
                       selfcollide="none" contype="16" conaffinity="8"/>
            </flexcomp>""",
            sticky="cloth",
        )

    def sample(self, rng: np.random.Generator, scene: Scene, kinematics: InverseKinematics) -> Layout:
        room = max(0.0, 0.26 - self.factors.size * SIDE / np.sqrt(2))
        place = rng.uniform([-0.03, -room], [0.05, room])
        turn = rng.uniform(-TURN, TURN)
        tool = rng.uniform([-0.14, -0.20, 0.12], [0.12, 0.20, 0.28])
        layout = Layout(scene, kinematics.solve(self.at(*tool)), opening=1.0)
        layout.put("cloth", self.at(*place), 3 * np.pi / 4 + turn)
        layout.mark("corner", layout.points("cloth")[STAYING])
        return layout

    def object(self, reading: Reading) -> np.ndarray:
        return reading.soft["cloth"][MOVING]

    def goal(self, reading: Reading) -> np.ndarray:
        """Where the staying corner was at the start: whoever drags the whole cloth along hasn't folded it there."""
        return reading.markers["corner"][:3]

    def measures(self, reading: Reading) -> dict[str, float]:
        side = SIDE * self.factors.size * self.u
        return {"coverage": covered_area(reading.soft["cloth"]) / side**2}

    def expert(self, rng: np.random.Generator) -> ToolPolicy:
        """Take the corner a little inwards, carry it over in an arc, and let it go above the other corner's place."""
        u = self.u
        speed = float(rng.uniform(0.025, 0.035)) * u
        # Cloths of different sizes swing alike at speeds like the square root of the size.
        carry = speed / np.sqrt(u)

        def plan(script: Script) -> Plan:
            def corner() -> np.ndarray:
                return self.object(script.reading)

            def inwards() -> np.ndarray:
                line = self.goal(script.reading) - corner()
                return corner() + INSET * u * line / np.linalg.norm(line)

            def level(place: np.ndarray, height: float) -> np.ndarray:
                return np.array([*place[:2], height * u])

            while float(np.linalg.norm(script.reading.tool - corner())) > HELD * u:
                yield from script.go(lambda: level(inwards(), APPROACH_HEIGHT), speed, opening=1.0)
                yield from script.go(
                    lambda: level(inwards(), GRASP_HEIGHT), speed, opening=1.0, within=0.006 * u
                )
                yield from script.wait(5, opening=0.0)
            start, end = script.hand.point, self.goal(script.reading)
            for part in (0.2, 0.7):
                yield from script.go(level(start + part * (end - start), CARRY_HEIGHT), carry)
            yield from script.go(level(end, DROP_HEIGHT), carry, within=0.006 * u)
            yield from script.wait(1)
            yield from script.wait(4, opening=1.0)
            yield from script.go(level(script.hand.point, RETREAT_HEIGHT), speed)

        return Script(plan, self.u)


def covered_area(vertices: np.ndarray) -> float:
    """Square metres of table under the cloth with these vertices [COUNT²,3], counted in cells of 1/40 of a side."""
    sheet = vertices[:, :2].reshape(COUNT, COUNT, 2)
    cell = np.linalg.norm(np.diff(sheet, axis=0), axis=-1).mean() * (COUNT - 1) / 40
    at = np.linspace(0.0, COUNT - 1, 121)
    before = np.minimum(at.astype(int), COUNT - 2)
    share = (at - before)[:, None, None]
    for _ in range(2):  # along one side, then along the other
        sheet = (sheet[before] * (1 - share) + sheet[before + 1] * share).swapaxes(0, 1)
    return float(len(np.unique(np.floor(sheet.reshape(-1, 2) / cell).astype(int), axis=0)) * cell**2)
