"""What a renderer gives: pictures of several layers; and what it needs: a backend that draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np

Layer = Literal["rgb", "depth", "segmentation"]

LAYERS: tuple[Layer, ...] = get_args(Layer)


@dataclass(frozen=True)
class Picture:
    """What a camera sees in N states (or, from `row`, in one: without the leading axis).

    `rgb`: uint8 [N, size, size, 3]. `depth`: float32 [N, size, size], metres along the optical axis (not along the
    ray), 0 where nothing is seen. `segmentation`: int32 [N, size, size], indices into `Renderer.labels`. Only `rgb` is
    antialiased; the others hold what the ray through the pixel's centre hits. Reading a layer that wasn't asked for
    raises `ValueError`.
    """

    layers: Mapping[Layer, np.ndarray]

    @property
    def rgb(self) -> np.ndarray:
        return self._layer("rgb")

    @property
    def depth(self) -> np.ndarray:
        return self._layer("depth")

    @property
    def segmentation(self) -> np.ndarray:
        return self._layer("segmentation")

    def row(self, index: int) -> Picture:
        """One state's picture."""
        return Picture({name: layer[index] for name, layer in self.layers.items()})

    def _layer(self, name: Layer) -> np.ndarray:
        if name not in self.layers:
            raise ValueError(f"this picture was rendered without {name}; it has {', '.join(self.layers)}")
        return self.layers[name]


class Backend(Protocol):
    """Draws pictures of a scene from the cameras (MuJoCo ids) that it was made for."""

    def draw(self, visible: np.ndarray, layers: Sequence[Layer]) -> dict[Layer, np.ndarray]:
        """`visible` [N, P] → layers as in `Picture`, of all C cameras [C, N, size, size, …]; but in the segmentation
        stand MuJoCo's own (id, type) [C, N, size, size, 2], −1 where nothing is seen."""
        ...

    def provenance(self) -> dict[str, Any]:
        """What this backend is and how it was set."""
        ...


def empty_layers(layers: Sequence[Layer], cameras: int, states: int, size: int) -> dict[Layer, np.ndarray]:
    """Arrays for a backend to draw into."""
    kinds: dict[Layer, tuple[tuple[int, ...], type]] = {
        "rgb": ((3,), np.uint8),
        "depth": ((), np.float32),
        "segmentation": ((2,), np.int32),
    }
    return {name: np.empty((cameras, states, size, size, *kinds[name][0]), kinds[name][1]) for name in layers}
