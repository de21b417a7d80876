"""The simulators that come with the package, and what a path or a name of a simulator means.

    robosim/simulator/shipped/<name>/     a saved simulator, card.json and probe_frames.npz: `robosim ship` writes it

Nothing here imports torch.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from robosim.checkpoint import file_hash, json_hash, read_json
from robosim.errors import CheckpointError

SHIPPED = Path(__file__).resolve().parent / "simulator" / "shipped"

CARD = "card.json"
"""What a shipped simulator says of itself; written last, so that a folder that has it is whole."""


def shipped_names() -> list[str]:
    """The names that `robosim.load` takes without any training."""
    return sorted(card.parent.name for card in SHIPPED.glob(f"*/{CARD}"))


def shipped_folder(name: str) -> Path:
    """Where a shipped simulator lies; a folder of that name elsewhere doesn't count, as it does for `locate`."""
    return SHIPPED / name


def read_card(name: str) -> dict[str, Any]:
    """The card of a shipped simulator."""
    return read_json(shipped_folder(name) / CARD)


def is_shipped(folder: Path) -> bool:
    """Whether a folder lies in the package, where nothing of the user's belongs."""
    return folder.resolve().is_relative_to(SHIPPED)


def locate(path: str | Path) -> Path:
    """The folder that `path` means: itself, or the shipped simulator of that name where there is no such folder.

    A folder of the user's goes first. Raises `CheckpointError` for a bare name that is neither.
    """
    folder, name = Path(path).expanduser(), str(path)
    separators = {os.sep, os.altsep} - {None}
    if folder.is_dir() or any(separator in name for separator in separators):
        return folder
    names = shipped_names()
    if name in names:
        return SHIPPED / name
    shipped = f"shipped are: {', '.join(names)}" if names else "none is shipped with this robosim"
    raise CheckpointError(
        f"there is no folder {name}, and no shipped simulator of that name ({shipped}); "
        f"train one of your own with: robosim demo out=runs/{name}"
    )


def weights_hash(path: str | Path, part: str) -> str:
    """Hash of one part's weights and sizes, wherever they lie: tokenizer, latent_action, dynamics or adapter.

    Raises `CheckpointError` where the simulator has no such part.
    """
    folder = locate(path) / part
    stem = "adapter" if part == "adapter" else "model"
    files = [folder / f"{stem}.safetensors", folder / f"{stem}.json"]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(f"init={path} has no finished {part} ({missing[0]} is missing); name another")
    return json_hash([file_hash(file) for file in files])
