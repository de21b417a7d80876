"""What an import is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from robosim.checkpoint import SAME_RESULT, json_hash
from robosim.errors import ConfigError
from robosim.spec import CONTROL_HZ
from robosim_datasets.lerobot_format import INFO_JSON
from robosim_datasets.sources.hub import is_hub_name

Layout = Literal["auto", "lerobot", "rlds", "aloha", "robomimic", "video", "clips"]
Fit = Literal["crop", "pad", "stretch"]


@dataclass(frozen=True)
class ImportConfig:
    """Everything but `workers` decides the result."""

    source: str
    """A folder, a file, or a dataset's name on the Hub."""
    layout: Layout = "auto"
    size: int = 64
    """Pixels along each side of a frame."""
    fit: Fit = "crop"
    """How a frame that isn't square becomes so."""
    swap_red_blue: bool = False
    """Some recorders store blue, green, red, and a file can't tell."""
    upside_down: bool = False
    """LIBERO's pictures are."""
    fps: int = CONTROL_HZ
    """Frames a second of the result, at most: a slower source keeps its own rate."""
    source_fps: float | None = None
    """Frames a second of the source, where it doesn't say or is wrong."""
    cameras: tuple[str, ...] | None = None
    """The first is the one that world models see; None: all that show something in every episode."""
    action_kind: Literal["auto", "joint_position", "ee_delta", "other"] = "auto"
    episodes: int | None = None
    """Only the first so many."""
    cut: float | None = None
    """Seconds: longer recordings become several episodes."""
    val_fraction: float = 0.1
    """Share of the episodes that are held out, where the source holds none out itself."""
    workers: int = field(default=0, metadata=SAME_RESULT)
    """Threads; 0: one a core."""
    seed: int = 0
    fingerprint: str = field(init=False, default="")
    """Of the source's files as they are now: a changed source is imported again."""

    def __post_init__(self) -> None:
        if not self.source:
            raise ConfigError("say what to import: robosim import SRC, a folder, a file or a name on the Hub")
        path = Path(self.source).expanduser()
        if path.exists():
            object.__setattr__(self, "source", str(path.resolve()))
            object.__setattr__(self, "fingerprint", fingerprint(dataset_of(path.resolve())))
        elif not is_hub_name(self.source):
            raise ConfigError(
                f"there is nothing at {path}; give a folder, a file, or organisation/name on the Hugging Face Hub"
            )
        if self.size < 16 or self.size % 16:
            raise ConfigError(f"size={self.size} needs to be a multiple of 16 (pixels)")
        if not 0 <= self.val_fraction < 1:
            raise ConfigError(f"val_fraction={self.val_fraction} needs to be at least 0 and below 1")
        if self.workers < 0:
            raise ConfigError(f"workers={self.workers} needs to be at least 0")
        if self.cameras is not None and (not self.cameras or len(set(self.cameras)) < len(self.cameras)):
            raise ConfigError(f"cameras={list(self.cameras)} needs at least one name, and none twice")
        for name in ("fps", "source_fps", "episodes", "cut"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name}={value} needs to be above 0")


def fingerprint(source: Path) -> str:
    """Names, sizes and times of a source's files: no file need be read."""
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    facts = [(path.relative_to(source).as_posix(), path.stat()) for path in files]
    return json_hash([(name, stat.st_size, stat.st_mtime_ns) for name, stat in facts])


def dataset_of(path: Path) -> Path:
    """Of a robosim run the dataset, of anything else the path itself: training in a run changes no video."""
    return path / "dataset" if (path / "dataset" / INFO_JSON).is_file() else path
