"""What segmentation calls the things in a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robosim.physics.engine import mujoco
from robosim.physics.scene import ARM_PREFIX, Scene

BACKGROUND, TABLE, ARM = "background", "table", "arm"

GEOM, FLEX = int(mujoco.mjtObj.mjOBJ_GEOM), int(mujoco.mjtObj.mjOBJ_FLEX)
"""MuJoCo's object types that pictures show."""


@dataclass(frozen=True)
class Labels:
    """The names of a scene's parts; a pixel of a segmentation is an index into `names`.

    "background" is 0, "table" (and all else that is fixed to the world) 1, "arm" 2; then every thing, every marker,
    and what else a task has put there, by name. `geoms` [G], `flexes` [F]: index of each of the model's.
    """

    names: tuple[str, ...]
    geoms: np.ndarray
    flexes: np.ndarray

    def of(self, objects: np.ndarray) -> np.ndarray:
        """MuJoCo's (id, type) [..., 2], −1 where nothing is seen → index into `names`, int32 [...]."""
        number, kind = objects[..., 0], objects[..., 1]
        found = np.zeros(number.shape, np.int32)
        for seen, indices in ((GEOM, self.geoms), (FLEX, self.flexes)):
            chosen = kind == seen
            found[chosen] = indices[number[chosen]]
        return found


def label(scene: Scene) -> Labels:
    """Name everything that the scene shows."""
    model = scene.model
    flexes = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_FLEX, flex) for flex in range(model.nflex)]
    soft = {int(body): name for name in flexes for body in model.flex_vertbodyid[scene.bodies[name].vertices]}
    geoms = [_owner(scene, geom, soft) for geom in range(model.ngeom)]
    names = tuple(dict.fromkeys([BACKGROUND, TABLE, ARM, *scene.bodies, *scene.markers, *geoms, *flexes]))
    index = {name: place for place, name in enumerate(names)}
    return Labels(
        names=names,
        geoms=np.array([index[name] for name in geoms], np.int32),
        flexes=np.array([index[name] for name in flexes], np.int32),
    )


def _owner(scene: Scene, geom: int, soft: Mapping[int, str]) -> str:
    """The name of the thing that a geom is part of: its body's outermost ancestor below the world.

    `soft`: the soft thing that a body is a vertex of.
    """
    body = int(scene.model.geom_bodyid[geom])
    root = int(scene.model.body_rootid[body])
    name = scene.model.body(root).name if root else scene.model.geom(geom).name
    if name.startswith(ARM_PREFIX):
        return ARM
    return soft.get(body, name) if root and name else TABLE
