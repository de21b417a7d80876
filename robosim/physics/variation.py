"""What may differ from episode to episode beside the start: named factors, drawn from the episode's seed."""

from __future__ import annotations

import colorsys
from dataclasses import asdict, dataclass, fields

import numpy as np

from robosim.errors import ConfigError, DatasetError

Range = float | tuple[float, float]
"""One value pins a factor, two are the bounds it is drawn from."""


@dataclass(frozen=True)
class Factors:
    """One draw. The values here are those of an episode without variation."""

    colour: float = 0.0
    """Turns by which the hue of the objects is shifted (0.5 is the opposite colour)."""
    texture: float = 0.0
    """How strong the table's pattern is: −1 plain, 0 as drawn, 1 doubly so; its hue turns with it."""
    light: float = 1.0
    """Brightness of the lamp, and with it the depth of the shadows."""
    camera: float = 0.0
    """How far the cameras that stand still are from their place, in a direction of the seed's; units of the workspace.
    They look at the same spot of the table."""
    size: float = 1.0
    """Of the objects, as a multiple."""
    mass: float = 1.0
    """Of the objects, as a multiple."""
    friction: float = 1.0
    """Of the objects on table and fingers, as a multiple."""
    camera_azimuth: float = 0.0
    """Direction of the camera's shift, rad about the vertical; drawn, not configured."""

    def tint(self, red: float, green: float, blue: float) -> str:
        """An object's colour with the hue shifted, as MJCF `rgba`."""
        hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
        return " ".join(
            f"{c:.4f}" for c in (*colorsys.hsv_to_rgb((hue + self.colour) % 1.0, saturation, value), 1)
        )

    def to_json(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, float]) -> Factors:
        """What `to_json` gave. Raises `DatasetError` for a factor that this version doesn't know."""
        if strangers := set(data) - {field.name for field in fields(cls)}:
            raise DatasetError(
                f"unknown factors {', '.join(sorted(strangers))}: a newer robosim recorded this episode; upgrade"
            )
        return cls(**data)


NO_VARIATION = Factors()


@dataclass(frozen=True)
class Variation:
    """The range of every factor of `Factors`; the defaults are `none`."""

    colour: Range = 0.0
    texture: Range = 0.0
    light: Range = 1.0
    camera: Range = 0.0
    size: Range = 1.0
    mass: Range = 1.0
    friction: Range = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            low, high = _bounds(getattr(self, field.name))
            positive = field.name in ("light", "size", "mass", "friction")
            if low > high or (positive and low <= 0):
                raise ConfigError(
                    f"variation.{field.name}=[{low},{high}] needs low ≤ high" + ", both above 0" * positive
                )

    def sample(self, seed: int) -> Factors:
        """The factors of the episode with this seed, from a stream of their own: the start doesn't depend on them."""
        rng = np.random.default_rng([seed, 4])
        # Every factor draws, pinned or not, so that pinning one leaves the others as they were.
        drawn = {
            field.name: float(rng.uniform(*_bounds(getattr(self, field.name)))) for field in fields(self)
        }
        return Factors(**drawn, camera_azimuth=float(rng.uniform(-np.pi, np.pi)) if drawn["camera"] else 0.0)


def _bounds(value: Range) -> tuple[float, float]:
    return value if isinstance(value, tuple) else (value, value)
