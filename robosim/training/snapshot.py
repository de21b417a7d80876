"""Snapshots of a training run: everything that the next step depends on.

A snapshot is a folder `step_00000100/` with one safetensors file a process, `rank_00000.safetensors` and so on, and a
manifest that says which process holds which rows of which tensor. It is written as `….tmp`, the manifest with hashes
last, then renamed. The latest snapshot is the newest whose manifest is valid, so a kill at any moment leaves a run
that goes on, on the same number of processes to the same bits, and on any other number too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from robosim.checkpoint import (
    atomic_write_json,
    file_hash,
    prepare_folder,
    read_json,
    save_tensors,
    sync_folder,
    write_error,
)
from robosim.errors import CheckpointError
from robosim.ranks import alone, gather_texts, rank, together, world_size
from robosim.training.distributed import like, local, own_rows
from robosim.training.ema import WeightAverage

KEPT = 2
"""Snapshots kept: the newest, and the one before it in case the newest is found damaged."""

Held = dict[str, list[list[int]]]
"""Where a tensor's rows are: [process, first row, row after the last] of each part; empty for a single number."""


@dataclass(frozen=True)
class TrainingState:
    """What a training run changes as it goes."""

    module: nn.Module
    optimiser: Optimizer
    average: WeightAverage | None = None

    def weights(self) -> dict[str, Tensor]:
        """Every tensor that exists before the first step: weights, buffers, their average."""
        tensors = {f"model.{name}": tensor for name, tensor in self.module.state_dict().items()}
        if self.average:
            parameters = dict(self.module.named_parameters())
            tensors |= {
                f"average.{name}": like(value, parameters[name])
                for name, value in self.average.values.items()
            }
        return tensors

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by name; sharded tensors as such."""
        state = {
            f"optimiser.{name}.{entry}": torch.as_tensor(value)
            for name, parameter in self._optimised()
            for entry, value in self.optimiser.state.get(parameter, {}).items()
        }
        return self.weights() | state | {"torch_rng": torch.get_rng_state()}

    @torch.no_grad()
    def restore(self, saved: SavedTensors) -> None:
        """Take in what `tensors` once gave, which may have been spread over another number of processes."""
        for name, tensor in self.weights().items():
            local(tensor).copy_(saved.part(name, tensor))
        parameters = dict(self._optimised())
        state: dict[int, dict[str, Tensor]] = {}
        numbers = {name: number for number, name in enumerate(parameters)}
        for name in saved.names("optimiser."):
            key, entry = name.removeprefix("optimiser.").rsplit(".", 1)
            parameter = parameters[key]
            value = like(saved.part(name, parameter), parameter) if saved.held[name] else saved.whole(name)
            state.setdefault(numbers[key], {})[entry] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        torch.set_rng_state(saved.whole("torch_rng"))

    def _optimised(self) -> list[tuple[str, nn.Parameter]]:
        """The trained parameters with their names, in the optimiser's order."""
        names = {parameter: name for name, parameter in self.module.named_parameters()}
        return [(names[p], p) for group in self.optimiser.param_groups for p in group["params"]]


class SavedTensors:
    """The tensors of a snapshot folder, of which each process reads the rows that it needs."""

    def __init__(self, folder: Path, held: Held) -> None:
        self.folder, self.held = folder, held

    def names(self, prefix: str) -> list[str]:
        return [name for name in self.held if name.startswith(prefix)]

    def whole(self, name: str) -> Tensor:
        """A tensor that isn't sharded."""
        with self._open(0) as file:
            return file.get_tensor(name)

    def part(self, name: str, wanted: Tensor) -> Tensor:
        """The rows of `name` that this process holds of `wanted`, a tensor of the same shape."""
        if not self.held[name]:
            return self.whole(name)
        start, stop = own_rows(wanted, rank())
        pieces = []
        for process, first, last in self.held[name]:
            a, b = max(start, first), min(stop, last)
            if a < b:
                with self._open(process) as file:
                    pieces.append(file.get_slice(name)[a - first : b - first])
        return torch.cat(pieces) if pieces else local(wanted).detach().cpu()

    @contextlib.contextmanager
    def _open(self, process: int) -> Iterator[Any]:
        with safe_open(self.folder / file_name(process), "pt") as file:
            yield file


def file_name(process: int) -> str:
    return f"rank_{process:05d}.safetensors"


def save_snapshot(
    folder: Path, step: int, state: TrainingState, config: dict[str, Any], metrics: dict[str, float]
) -> None:
    """Write the state after `step` finished steps, every process its part, then drop the oldest snapshots.

    `metrics` are those logged last.
    """
    final = folder / f"step_{step:08d}"
    temporary = folder / f"{final.name}.tmp"
    tensors = state.tensors()

    def make_room() -> None:
        shutil.rmtree(temporary, ignore_errors=True)
        prepare_folder(temporary)

    def write_own() -> str:
        own = {
            name: local(tensor) for name, tensor in tensors.items() if rank() in holders(tensor, world_size())
        }
        save_tensors(temporary / file_name(rank()), own)
        return file_hash(temporary / file_name(rank()))

    def publish() -> None:
        held = {name: placement(tensor, world_size()) for name, tensor in tensors.items()}
        files = {file_name(process): digest for process, digest in enumerate(digests)}
        manifest = {
            "step": step,
            "config": config,
            "metrics": metrics,
            "files": files,
            "tensors": held,
        }
        atomic_write_json(temporary / "manifest.json", manifest)
        try:
            shutil.rmtree(final, ignore_errors=True)
            os.replace(temporary, final)
            sync_folder(folder)
            for old in snapshots(folder)[:-KEPT]:
                shutil.rmtree(old)
        except OSError as error:
            raise write_error(final, error) from error

    alone(make_room)
    digests = gather_texts(together(write_own))
    alone(publish)


def holders(tensor: Tensor, world: int) -> range:
    """The processes whose files have (a part of) `tensor`: all, or the first alone."""
    return range(world) if isinstance(tensor, DTensor) else range(1)


def placement(tensor: Tensor, world: int) -> list[list[int]]:
    """Which process holds which rows, as in `Held`."""
    if not tensor.shape:
        return []
    return [[process, *own_rows(tensor, process)] for process in holders(tensor, world)]


def snapshots(folder: Path) -> list[Path]:
    """Finished snapshot folders, oldest first."""
    return sorted(path for path in folder.glob("step_????????") if path.is_dir())


def restore_latest(
    folder: Path, state: TrainingState, config: dict[str, Any]
) -> tuple[int, dict[str, float]]:
    """Load the newest valid snapshot of this very `config`; returns its step, 0 where there is none, and metrics.

    A damaged snapshot is passed over for the one before it.
    """
    found = alone(lambda: latest(folder, config))
    if found is None:
        return 0, {}
    manifest = together(lambda: read_json(folder / found / "manifest.json"))
    together(lambda: state.restore(SavedTensors(folder / found, manifest["tensors"])))
    return int(manifest["step"]), manifest["metrics"]


def latest(folder: Path, config: dict[str, Any]) -> str | None:
    """Name of the newest snapshot whose files are all as they were written, if it is of this `config`."""
    for path in reversed(snapshots(folder)):
        with contextlib.suppress(CheckpointError, OSError, KeyError):
            manifest = read_json(path / "manifest.json")
            if manifest["config"] != config:
                return None
            if all(file_hash(path / name) == digest for name, digest in manifest["files"].items()):
                return path.name
    return None
