"""Snapshots of a training run: everything that the next step depends on.

A snapshot is a folder `step_00000100/`, written as `….tmp`, its manifest with hashes last, then renamed. The
latest snapshot is the newest whose manifest is valid, so a kill at any moment leaves a run that goes on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from robosim.checkpoint import (
    atomic_write_json,
    file_hash,
    load_tensors,
    prepare_folder,
    read_json,
    save_tensors,
    sync_folder,
    write_error,
)
from robosim.errors import CheckpointError

KEPT = 2
"""Snapshots kept: the newest, and the one before it in case the newest is found damaged."""


def save_snapshot(
    folder: Path, step: int, module: nn.Module, optimiser: Optimizer, config: dict[str, Any]
) -> None:
    """Write the state after `step` finished steps, then drop the oldest snapshots."""
    final = folder / f"step_{step:08d}"
    temporary = prepare_folder(folder / f"{final.name}.tmp")
    try:
        save_tensors(temporary / "model.safetensors", module.state_dict())
        tensors = optimiser_tensors(optimiser) | {"torch_rng": torch.get_rng_state()}
        save_tensors(temporary / "optimiser.safetensors", tensors)
        names = ("model.safetensors", "optimiser.safetensors")
        hashes = {name: file_hash(temporary / name) for name in names}
        atomic_write_json(temporary / "manifest.json", {"step": step, "config": config, "files": hashes})
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
        sync_folder(folder)
    except OSError as error:
        raise write_error(final, error) from error
    for old in snapshots(folder)[:-KEPT]:
        shutil.rmtree(old)


def snapshots(folder: Path) -> list[Path]:
    """Finished snapshot folders, oldest first."""
    return sorted(path for path in folder.glob("step_????????") if path.is_dir())


def restore_latest(folder: Path, module: nn.Module, optimiser: Optimizer, config: dict[str, Any]) -> int:
    """Load the newest valid snapshot of this very `config`; returns its step, 0 where there is none.

    A damaged snapshot is passed over for the one before it.
    """
    for path in reversed(snapshots(folder)):
        with contextlib.suppress(CheckpointError, OSError, KeyError):
            manifest = read_json(path / "manifest.json")
            if manifest["config"] != config:
                return 0
            if any(file_hash(path / name) != digest for name, digest in manifest["files"].items()):
                continue
            module.load_state_dict(load_tensors(path / "model.safetensors"))
            tensors = load_tensors(path / "optimiser.safetensors")
            torch.set_rng_state(tensors.pop("torch_rng"))
            load_optimiser(optimiser, tensors)
            return int(manifest["step"])
    return 0


def drop_snapshots(folder: Path) -> None:
    """Remove all snapshots: the run is finished and its weights are saved."""
    for path in folder.glob("step_*"):
        shutil.rmtree(path, ignore_errors=True)


def optimiser_tensors(optimiser: Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as flat named tensors: `<parameter>.<entry>`."""
    state = optimiser.state_dict()["state"]
    return {
        f"{i}.{key}": torch.as_tensor(value) for i, entry in state.items() for key, value in entry.items()
    }


def load_optimiser(optimiser: Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
