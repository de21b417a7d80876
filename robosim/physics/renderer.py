"""Pictures of the scene by ray tracing: mujoco-warp on the CPU, from pip packages alone.

No OpenGL, no display, no system package. Antialiasing renders at twice the size and averages 2×2 boxes. One picture
doesn't depend on the others of its batch, bit for bit. The first use on a machine compiles the kernels (about ten
seconds), later ones load them from warp's cache.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp

from robosim.checkpoint import json_hash
from robosim.physics.engine import mujoco
from robosim.physics.scene import Scene

BATCH = 4
"""Pictures rendered by one launch; larger batches gain nothing on a CPU and waste more on the last one."""


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Drop what native code writes: warp warns of a missing GPU driver in a line that no setting turns off."""
    sys.stderr.flush()
    saved = os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


wp.config.log_level = wp.LOG_ERROR
with _silent_stderr():
    wp.init()

import mujoco_warp as mjw  # noqa: E402  (defines kernels, so warp must be quiet by now)


class Renderer:
    """Renders batches of scene states to uint8 pictures.

    A state is (`qpos` [nq], marker position [3]): all that a picture depends on.
    """

    def __init__(
        self,
        scene: Scene,
        size: int = 64,
        cameras: Sequence[str] = ("front",),
        antialias: bool = True,
        shadows: bool = True,
    ) -> None:
        unknown = [name for name in cameras if name not in scene.cameras]
        if unknown:
            raise ValueError(f"unknown cameras {unknown}; the scene has {list(scene.cameras)}")
        self.size, self.antialias, self.shadows = size, antialias, shadows
        self.cameras = tuple(name for name in scene.cameras if name in cameras)
        self._scale = 2 if antialias else 1
        self._scene = scene
        self._build(scene.model)
        self._compile_once()

    def _build(self, model: Any) -> None:
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        side = self.size * self._scale
        with wp.ScopedDevice("cpu"):
            self._model = mjw.put_model(model)
            self._data = mjw.put_data(model, data, nworld=BATCH, nconmax=data.ncon + 16, njmax=data.nefc + 64)
            self._context = mjw.create_render_context(
                model,
                nworld=BATCH,
                cam_res=(side, side),
                cam_active=list(self.cameras),
                render_rgb=True,
                render_depth=False,
                use_shadows=self.shadows,
                render_skybox=True,
                deterministic=True,
            )
            self._picture = wp.zeros((BATCH, side, side), dtype=wp.vec3)

    def render(self, qpos: np.ndarray, marker: np.ndarray) -> dict[str, np.ndarray]:
        """`qpos` [N, nq] and `marker` [N, 3] → {camera: uint8 [N, size, size, 3]}."""
        count = len(qpos)
        frames = {name: np.empty((count, self.size, self.size, 3), np.uint8) for name in self.cameras}
        for start in range(0, count, BATCH):
            stop = min(start + BATCH, count)
            self._trace(qpos[start:stop], marker[start:stop])
            for index, name in enumerate(self.cameras):
                mjw.get_rgb(self._context, index, self._picture)  # pyright: ignore[reportArgumentType]
                frames[name][start:stop] = self._to_uint8(self._picture.numpy()[: stop - start])
        return frames

    def _trace(self, qpos: np.ndarray, marker: np.ndarray) -> None:
        rows = np.arange(BATCH).clip(max=len(qpos) - 1)
        with wp.ScopedDevice("cpu"):
            self._data.qpos.assign(qpos[rows].astype(np.float32))
            self._data.mocap_pos.assign(marker[rows, None].astype(np.float32))
            mjw.kinematics(self._model, self._data)
            mjw.com_pos(self._model, self._data)
            mjw.camlight(self._model, self._data)
            mjw.flex(self._model, self._data)
            mjw.refit_bvh(self._model, self._data, self._context)
            mjw.render(self._model, self._data, self._context)

    def _to_uint8(self, picture: np.ndarray) -> np.ndarray:
        """Average the boxes of [N, side, side, 3], 0…1; a sum of strided views is the fast way to do it."""
        scale = self._scale
        total = functools.reduce(
            np.add, (picture[:, i::scale, j::scale] for i in range(scale) for j in range(scale))
        )
        return (total * np.float32(255.0 / scale**2) + np.float32(0.5)).astype(np.uint8)

    def provenance(self) -> dict[str, Any]:
        """What made the pictures, for a dataset's metadata."""
        return {
            "name": "mujoco-warp",
            "device": "cpu",
            "versions": {name: version(name) for name in ("mujoco", "mujoco-warp", "warp-lang")},
            "antialias": f"{self._scale}x{self._scale} box",
            "shadows": self.shadows,
        }

    def _compile_once(self) -> None:
        """Render one picture where no earlier run has, and say why that takes a while."""
        kinds = [int(kind) for kind in np.unique(self._scene.model.geom_type)]
        key = json_hash([self.provenance(), len(self.cameras), kinds])[:16]
        stamp = Path(wp.config.kernel_cache_dir or ".") / f"robosim-{key}"
        if stamp.exists():
            return
        print("compiling the renderer, once on this machine: about ten seconds", file=sys.stderr, flush=True)
        self.render(self._scene.model.qpos0[None], np.zeros((1, 3)))
        with contextlib.suppress(OSError):
            stamp.touch()
