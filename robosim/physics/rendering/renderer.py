"""Pictures of a scene: colour, depth and segmentation from any of its cameras.

Two renderers draw them. "warp" traces rays on the CPU and needs pip packages alone; it is the default. "opengl" goes
through MuJoCo's own renderer, needs system packages, and shades and filters a little differently: a dataset's
metadata says which one made it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from robosim.config import unknown
from robosim.errors import ConfigError
from robosim.physics.rendering.pictures import LAYERS, Backend, Layer, Picture
from robosim.physics.rendering.segmentation import label
from robosim.physics.scene import Scene

RendererKind = Literal["warp", "opengl"]


class Renderer:
    """Renders batches of scene states, as `Simulation.visible` gives them.

    `labels`: what the numbers of a segmentation stand for.
    """

    def __init__(
        self,
        scene: Scene,
        size: int = 64,
        cameras: Sequence[str] = ("front",),
        antialias: bool = True,
        shadows: bool = True,
        kind: str = "warp",
    ) -> None:
        """`size` in pixels. Raises `ConfigError` for a camera or kind that doesn't exist, and `UnsupportedError`
        where this machine lacks what the renderer needs."""
        if missing := [name for name in cameras if name not in scene.cameras]:
            raise ConfigError(unknown("camera", missing[0], scene.cameras))
        self.size, self.kind = size, kind
        self.cameras = tuple(name for name in scene.cameras if name in cameras)
        self._labels = label(scene)
        ids = [scene.cameras.index(name) for name in self.cameras]
        self._backend = _make_backend(kind, scene, size, ids, antialias, shadows)

    @property
    def labels(self) -> tuple[str, ...]:
        return self._labels.names

    def render(self, visible: np.ndarray) -> dict[str, np.ndarray]:
        """`visible` [N, P] → {camera: uint8 [N, size, size, 3]}."""
        return {name: picture.rgb for name, picture in self.render_layers(visible, ("rgb",)).items()}

    def render_layers(self, visible: np.ndarray, layers: Sequence[Layer] = LAYERS) -> dict[str, Picture]:
        """`visible` [N, P] → {camera: picture}."""
        if wrong := [name for name in layers if name not in LAYERS]:
            raise ConfigError(unknown("layer", wrong[0], LAYERS))
        drawn = self._backend.draw(np.asarray(visible), layers)
        if "segmentation" in drawn:
            drawn["segmentation"] = self._labels.of(drawn["segmentation"])
        return {
            name: Picture({layer: pictures[place] for layer, pictures in drawn.items()})
            for place, name in enumerate(self.cameras)
        }

    def provenance(self) -> dict[str, Any]:
        """What made the pictures, for a dataset's metadata."""
        return {"kind": self.kind, **self._backend.provenance()}


def recorded_kind(provenance: Mapping[str, Any]) -> RendererKind:
    """The renderer that made a dataset's pictures, from its provenance; the default where that says nothing."""
    kind = provenance.get("renderer", {}).get("kind", "warp")
    if kind not in get_args(RendererKind):
        raise ConfigError(unknown("renderer in the dataset's provenance", str(kind), get_args(RendererKind)))
    return kind


def _make_backend(
    kind: str, scene: Scene, size: int, cameras: list[int], antialias: bool, shadows: bool
) -> Backend:
    # Imported here, so that each renderer needs only its own packages.
    if kind == "warp":
        from robosim.physics.rendering.warp_renderer import RayTracer

        return RayTracer(scene, size, cameras, antialias, shadows)
    if kind == "opengl":
        from robosim.physics.rendering.opengl_renderer import Rasteriser

        return Rasteriser(scene, size, cameras, antialias, shadows)
    raise ConfigError(unknown("renderer", kind, get_args(RendererKind)))
