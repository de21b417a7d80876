"""Pictures by ray tracing: mujoco-warp on the CPU. No OpenGL, no display, no system package.

Antialiasing is adaptive (T. Whitted, "An improved illumination model for shaded display", CACM 1980): one ray through
every pixel's centre, then four more, through the middles of its quarters, wherever the picture has an edge; their mean
replaces the first. Against four rays in every pixel that takes three quarters of the time at 64 pixels and half of it
at 128. The pictures differ by a few levels where squares of the table meet, and hardly elsewhere (peak signal to noise
48 dB). One picture doesn't depend on the others of its batch, bit for bit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import warp as wp

from robosim.checkpoint import json_hash
from robosim.physics.engine import mujoco
from robosim.physics.rendering import warp_kernels
from robosim.physics.rendering.pictures import Layer, empty_layers
from robosim.physics.scene import Scene
from robosim.physics.simulation import Simulation

warp_kernels.start()

import mujoco_warp as mjw  # noqa: E402  (defines kernels, so warp must be quiet by now)

BATCH = 2
"""States rendered by one launch. The more, the less a launch costs each, and the more pixels are edges in another one
(see `_colours`): two are best at 128 pixels, four would save 4 % at 64."""

EDGE = 12
"""Levels (of 255) by which neighbouring pixels of one thing must differ for an edge: more than squares of the table."""

FAR = 10.0
"""Metres at which sight ends. The kernel is compiled for it: one distance for all arms spares them one each."""

PRIMITIVES = tuple(
    int(getattr(mujoco.mjtGeom, f"mjGEOM_{name}"))
    for name in ("PLANE", "SPHERE", "CAPSULE", "ELLIPSOID", "CYLINDER", "BOX", "FLEX")
)
"""Shapes that the kernel is always compiled for, so that one serves every task."""

_kernels: dict[str, Any] = {}
"""Kernels of this process by what they were specialised for: specialising takes 60 ms, and scenes may vary."""


class RayTracer:
    """The backend "warp" (see `Renderer`)."""

    def __init__(self, scene: Scene, size: int, cameras: list[int], antialias: bool, shadows: bool) -> None:
        self._scene, self._size, self._cameras = scene, size, cameras
        self._antialias, self._shadows = antialias, shadows
        with warp_kernels.explained(), warp_kernels.compiling(self._compiled_for()):
            self._build()

    def draw(self, visible: np.ndarray, layers: Sequence[Layer]) -> dict[Layer, np.ndarray]:
        drawn = empty_layers(layers, len(self._cameras), len(visible), self._size)
        read: dict[Layer, Callable[[], np.ndarray]] = {
            "rgb": self._colours,
            "depth": lambda: self._each_camera(self._coarse.depth_data),
            "segmentation": lambda: self._each_camera(self._coarse.seg_data),
        }
        for start in range(0, len(visible), BATCH):
            batch = visible[start : start + BATCH]
            self._pose(batch)
            _render(self._model, self._data, self._coarse)
            for name, pictures in drawn.items():
                pictures[:, start : start + BATCH] = read[name]()[:, : len(batch)]
        return drawn

    def provenance(self) -> dict[str, Any]:
        return {
            "name": "mujoco-warp",
            "device": "cpu",
            "versions": {name: version(name) for name in ("mujoco", "mujoco-warp", "warp-lang")},
            "antialias": "2x2 box at edges" if self._antialias else "none",
            "shadows": self._shadows,
        }

    def _compiled_for(self) -> str:
        """A name for the kernels that take long: those for soft things are compiled in half a second, unannounced."""
        model = self._scene.model
        visual = model.vis.headlight
        lights = [visual.active, *visual.ambient, *visual.diffuse, *visual.specular, *model.light_type]
        shapes = sorted({int(kind) for kind in model.geom_type} - set(PRIMITIVES))
        projections = sorted({int(kind) for kind in model.cam_projection})
        versions = self.provenance()["versions"]
        return json_hash([versions, [float(value) for value in lights], shapes, projections])[:16]

    def _build(self) -> None:
        model = self._scene.model
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        with wp.ScopedDevice("cpu"):
            self._model = mjw.put_model(model)
            self._data = mjw.put_data(model, data, nworld=BATCH, nconmax=data.ncon + 16, njmax=data.nefc + 64)
            self._coarse = self._context(self._size, True)
            if self._antialias:
                self._fine = self._context(2 * self._size, False)
                _share_geometry(self._coarse, self._fine)
                self._prepare_fine()
        key = json_hash([_specialised_for(self._coarse), model.nlight])
        if key not in _kernels:
            self.draw(Simulation(self._scene).visible[None], ("rgb",))
            _kernels[key] = self._coarse._megakernel
        for context in (self._coarse, *((self._fine,) if self._antialias else ())):
            context._megakernel = _kernels[key]

    def _context(self, side: int, all_layers: bool) -> Any:
        context = mjw.create_render_context(
            self._scene.model,
            nworld=BATCH,
            cam_res=(side, side),
            cam_active=self._cameras,
            render_rgb=True,
            render_depth=all_layers,
            render_seg=all_layers,
            use_shadows=self._shadows,
            render_skybox=True,
            deterministic=True,
        )
        # The rays are made by now; what follows is only compiled into the kernel.
        context.zfar, context.znear = FAR, 0.0
        context.geom_ray_types = tuple(sorted({*PRIMITIVES, *context.geom_ray_types}))
        return context

    def _prepare_fine(self) -> None:
        """Take the rays of a picture of twice the size as a store to choose from, four a pixel."""
        count, side = len(self._cameras), self._size
        self._quarters, self._offsets = (
            rays.numpy()
            .reshape(count, side, 2, side, 2, 3)
            .transpose(0, 1, 3, 2, 4, 5)
            .reshape(-1, 4, 3)
            .copy()
            for rays in (self._fine.ray, self._fine.ray_offset)
        )

    def _pose(self, visible: np.ndarray) -> None:
        padded = visible[np.arange(BATCH).clip(max=len(visible) - 1)].astype(np.float32)
        qpos, mocap = np.split(padded, [self._scene.model.nq], axis=1)
        mocap = mocap.reshape(BATCH, -1, 7)
        with wp.ScopedDevice("cpu"):
            self._data.qpos.assign(np.ascontiguousarray(qpos))
            if mocap.shape[1]:
                self._data.mocap_pos.assign(np.ascontiguousarray(mocap[..., :3]))
                self._data.mocap_quat.assign(np.ascontiguousarray(mocap[..., 3:]))
            mjw.kinematics(self._model, self._data)
            mjw.com_pos(self._model, self._data)
            mjw.camlight(self._model, self._data)
            mjw.flex(self._model, self._data)
            mjw.refit_bvh(self._model, self._data, self._coarse)

    def _each_camera(self, pixels: Any) -> np.ndarray:
        """A buffer of the coarse context [B, C·size², …] → a view of it [C, B, size, size, …]."""
        values = pixels.numpy()
        shape = (BATCH, len(self._cameras), self._size, self._size, *values.shape[2:])
        return np.moveaxis(values.reshape(shape), 1, 0)

    def _colours(self) -> np.ndarray:
        """What `_coarse` has just seen, antialiased, uint8 [C, B, size, size, 3]."""
        packed = self._each_camera(self._coarse.rgb_data)
        colours = _unpack(packed)
        if not self._antialias:
            return colours
        edges = _edges(packed, self._each_camera(self._coarse.seg_data))
        # A launch traces the same pixels in every state of the batch, so all that any of them needs.
        pixels = np.flatnonzero(edges.any(axis=1))
        camera, place = np.divmod(pixels, self._size**2)
        wanted = edges.reshape(len(self._cameras), BATCH, -1)[camera, :, place]
        colours = np.ascontiguousarray(colours)
        flat = colours.reshape(len(self._cameras), BATCH, -1, 3)
        pixel, state = np.nonzero(wanted)
        flat[camera[pixel], state, place[pixel]] = self._refine(pixels, camera)[state, pixel]
        return colours

    def _refine(self, pixels: np.ndarray, camera: np.ndarray) -> np.ndarray:
        """Mean colours, uint8 [B, P, 3], of the quarters of `pixels` [P], which lie in the pictures of `camera` [P]."""
        fine, rays = self._fine, 4 * len(pixels)
        fine.ray.numpy()[:rays] = self._quarters[pixels].reshape(-1, 3)
        fine.ray_offset.numpy()[:rays] = self._offsets[pixels].reshape(-1, 3)
        # To the kernel each camera's picture is now one row, as long as its share of the list.
        shares = 4 * np.bincount(camera, minlength=len(self._cameras))
        fine.cam_res.numpy()[:] = np.stack([shares, np.ones_like(shares)], axis=1)
        fine.rgb_adr.numpy()[:] = np.cumsum(shares) - shares
        fine.total_rays = rays
        _render(self._model, self._data, fine)
        quarters = _unpack(fine.rgb_data.numpy()[:, :rays]).reshape(BATCH, -1, 4, 3)
        return ((quarters.sum(axis=2, dtype=np.uint16) + 2) >> 2).astype(np.uint8)


def _render(model: Any, data: Any, context: Any) -> None:
    with wp.ScopedDevice("cpu"):
        mjw.render(model, data, context)


def _share_geometry(source: Any, target: Any) -> None:
    """Let `target` trace the geometry of `source`, which is then the only one to follow the states."""
    for name in ("bvh", "bvh_id", "group_root", "flex_mesh_registry", "flex_bvh_id", "flex_group_root"):
        setattr(target, name, getattr(source, name))


SIZES = ("nrender", "total_rays", "bvh_ngeom", "bvh_nflexgeom")
"""Numbers of a context that its kernel is given; the others are compiled into it."""


def _specialised_for(context: Any) -> list[Any]:
    """All that the kernel of a context may depend on, beside the number of lights."""
    plain = (int, bool, float, wp.uint32, wp.vec3)
    names = [field.name for field in dataclasses.fields(context) if field.type in plain]
    return [context.geom_ray_types, *(str(getattr(context, name)) for name in names if name not in SIZES)]


def _unpack(packed: np.ndarray) -> np.ndarray:
    """uint32 [...] (0xAARRGGBB) → a view of its colours, uint8 [..., 3]."""
    return packed[..., None].view(np.uint8)[..., 2::-1]


def _edges(packed: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Pixels [C, B, size, size] where another thing, or another colour, lies above, below, left or right."""
    edges = np.zeros(packed.shape, bool)
    # Whole planes of one number a pixel: numpy is ten times slower along an axis of three.
    planes = [(packed >> shift & 0xFF).astype(np.int16) for shift in (0, 8, 16)]
    seen = np.ascontiguousarray(objects).view(np.int64)[..., 0]
    for axis in (2, 3):
        before, after = _shifted(axis)
        differs = seen[before] != seen[after]
        for plane in planes:
            differs |= np.abs(plane[before] - plane[after]) > EDGE
        edges[before] |= differs
        edges[after] |= differs
    return edges


def _shifted(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Views of all but the last and all but the first place along `axis`."""
    lead = (slice(None),) * axis
    return (*lead, slice(None, -1)), (*lead, slice(1, None))
