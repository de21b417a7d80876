"""Adapter, probe and judge of one run, as one folder: `adapter.json` (sizes, tasks), `adapter.safetensors`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from robosim.adapter.action_adapter import ActionAdapter
from robosim.adapter.judge import Judge
from robosim.adapter.keypoint_probe import KeypointProbe
from robosim.checkpoint import atomic_write_json, load_tensors, prepare_folder, read_json, save_tensors
from robosim.errors import CheckpointError

WEIGHTS, SIZES = "adapter.safetensors", "adapter.json"

FORMAT = 2
"""What the maps are told: since 2 latent actions are told from how joints move, before from a command's distances. The
weights of some adapters have the same sizes in both."""


@dataclass
class AdapterBundle:
    """All that the learned simulator needs to be driven by commands, and to be judged in metres where that is known."""

    adapter: ActionAdapter
    probe: KeypointProbe
    judge: Judge | None
    """None for recordings without positions: nothing can be judged there."""

    def __post_init__(self) -> None:
        self.modules.eval().requires_grad_(False)

    @property
    def modules(self) -> nn.ModuleDict:
        judge = {} if self.judge is None else {"judge": self.judge}
        return nn.ModuleDict({"adapter": self.adapter, "probe": self.probe, **judge})

    def to(self, device: str) -> AdapterBundle:
        self.modules.to(device)
        return self


def save_adapter(folder: Path, bundle: AdapterBundle) -> None:
    """Write the bundle; the sizes go last, so that a folder that has them is whole."""
    prepare_folder(folder)
    save_tensors(folder / WEIGHTS, bundle.modules.state_dict())
    sizes = {
        "format": FORMAT,
        "adapter": bundle.adapter.to_config(),
        "probe": bundle.probe.to_config(),
        "judge": None if bundle.judge is None else {"tasks": list(bundle.judge.tasks)},
    }
    atomic_write_json(folder / SIZES, sizes)


def load_adapter(folder: Path) -> AdapterBundle:
    """Read what `save_adapter` wrote. Raises `CheckpointError` when it is missing or damaged."""
    sizes = read_json(folder / SIZES)
    try:
        if sizes["format"] != FORMAT:
            raise ValueError(f"format {sizes['format']}")
        bundle = AdapterBundle(
            ActionAdapter.from_config(sizes["adapter"]),
            KeypointProbe.from_config(sizes["probe"]),
            None if sizes["judge"] is None else Judge(sizes["judge"]["tasks"]),
        )
        bundle.modules.load_state_dict(load_tensors(folder / WEIGHTS))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder} holds no adapter that fits its {SIZES}, or one of another version; "
            f"fit it again with: robosim adapt out={folder.parent} resume=false (and the labels= and init= that it had)"
        ) from error
    return bundle
