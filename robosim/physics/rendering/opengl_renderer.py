"""Pictures by OpenGL, through MuJoCo's own renderer: for labs whose models were trained on its look.

It needs system packages, and a display or EGL; nothing here runs unless it is asked for. Without a GPU it is slower
than ray tracing. Bodies in three dimensions look thicker by their flex's radius, and shadows darker.
"""

from __future__ import annotations

import copy
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from robosim.errors import UnsupportedError
from robosim.physics.engine import mujoco
from robosim.physics.rendering.pictures import Layer, empty_layers
from robosim.physics.scene import Scene

SHADOW_MAP = 2048
"""Texels along a side of the shadow map; MuJoCo's 4096 take most of a frame's time without a GPU."""


class Rasteriser:
    """The backend "opengl" (see `Renderer`). Antialiasing averages 2×2 boxes of a picture of twice the size."""

    def __init__(self, scene: Scene, size: int, cameras: list[int], antialias: bool, shadows: bool) -> None:
        self._cameras, self._size, self._shadows = cameras, size, shadows
        self._scale = 2 if antialias else 1
        # A copy: the window's size and the shadow map are this renderer's business.
        self._model = copy.copy(scene.model)
        visual = self._model.vis
        visual.global_.offwidth = visual.global_.offheight = size * self._scale
        visual.quality.offsamples, visual.quality.shadowsize = 0, SHADOW_MAP
        self._data = mujoco.MjData(self._model)
        self._options = mujoco.MjvOption()
        # Edges of flexes in two and three dimensions would be drawn as lines over their skin.
        lines = bool((self._model.flex_dim == 1).any())
        self._options.flags[mujoco.mjtVisFlag.mjVIS_FLEXEDGE] = lines
        self._fine = _open(self._model, size * self._scale)
        self._plain = _open(self._model, size) if antialias else self._fine
        for window in (self._fine, self._plain):
            window.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows

    def draw(self, visible: np.ndarray, layers: Sequence[Layer]) -> dict[Layer, np.ndarray]:
        drawn = empty_layers(layers, len(self._cameras), len(visible), self._size)
        see: dict[Layer, Callable[[int], np.ndarray]] = {
            "rgb": self._colours,
            "depth": self._depth,
            "segmentation": self._objects,
        }
        for row, state in enumerate(visible):
            self._pose(state)
            for place, camera in enumerate(self._cameras):
                for name, pictures in drawn.items():
                    pictures[place, row] = see[name](camera)
        return drawn

    def provenance(self) -> dict[str, Any]:
        return {
            "name": "mujoco-opengl",
            "device": os.environ.get("MUJOCO_GL") or "egl",
            "versions": {"mujoco": version("mujoco")},
            "antialias": f"{self._scale}x{self._scale} box",
            "shadows": self._shadows,
        }

    def _pose(self, visible: np.ndarray) -> None:
        qpos, mocap = np.split(visible, [self._model.nq])
        mocap = mocap.reshape(-1, 7)
        self._data.qpos[:] = qpos
        self._data.mocap_pos[:], self._data.mocap_quat[:] = mocap[:, :3], mocap[:, 3:]
        for stage in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_camlight, mujoco.mj_flex):
            stage(self._model, self._data)

    def _colours(self, camera: int) -> np.ndarray:
        self._fine.update_scene(self._data, camera, self._options)
        boxes = self._fine.render().reshape(self._size, self._scale, self._size, self._scale, 3)
        area = self._scale**2
        return ((boxes.sum(axis=(1, 3), dtype=np.uint16) + area // 2) // area).astype(np.uint8)

    def _depth(self, camera: int) -> np.ndarray:
        self._plain.update_scene(self._data, camera, self._options)
        self._plain.enable_depth_rendering()
        depth = self._plain.render()
        self._plain.disable_depth_rendering()
        far = self._model.vis.map.zfar * self._model.stat.extent
        return np.where(depth < 0.999 * far, depth, np.float32(0.0))

    def _objects(self, camera: int) -> np.ndarray:
        self._plain.update_scene(self._data, camera, self._options)
        self._plain.enable_segmentation_rendering()
        objects = self._plain.render()
        self._plain.disable_segmentation_rendering()
        return objects


def _open(model: Any, side: int) -> Any:
    """MuJoCo's renderer for pictures of this size, or `UnsupportedError`."""
    try:
        _choose_egl()
        return mujoco.Renderer(model, side, side)
    except Exception as error:
        raise UnsupportedError(
            f"renderer=opengl finds no OpenGL here ({error}); install it (Debian, Ubuntu: apt install libegl1 libgl1 "
            "libgl1-mesa-dri) and set the environment variable MUJOCO_GL=egl, or keep renderer=warp, which needs no "
            "system package"
        ) from error


def _choose_egl() -> None:
    """Where nobody has chosen and there is no display, let MuJoCo's renderer use EGL.

    MuJoCo makes this choice while it is imported, from MUJOCO_GL; but setting that variable where EGL is missing keeps
    MuJoCo from loading at all.
    """
    headless = not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if sys.platform == "linux" and headless and not os.environ.get("MUJOCO_GL"):
        chosen: Any = importlib.import_module("mujoco.rendering.classic.gl_context")
        chosen.GLContext = importlib.import_module("mujoco.egl").GLContext
