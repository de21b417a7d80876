"""Opening the learned simulator of a run folder, and saving it for elsewhere.

A run holds its video in clips/. A saved simulator has `spec.json` (the contract) and `starts.npz` (`frames` uint8
[E, S, S, 3], held-out first frames) in its place; the parts beside them are the same:

    tokenizer/  latent_action/  dynamics/     model.json, model.safetensors
    adapter/                                  adapter.json, adapter.safetensors (none where video was all)
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from robosim_datasets.clip_store import ClipStore
from robosim_datasets.folders import StagedFolder, write_errors
from robosim_datasets.lerobot_io import read_provenance
from robosim_datasets.mixture import label_source
from torch import Tensor, nn

from robosim.adapter import load_adapter, save_adapter
from robosim.checkpoint import atomic_write_json, prepare_folder, read_json, save_tensors
from robosim.config import resolve_device, unknown
from robosim.errors import CheckpointError, ConfigError
from robosim.shipped import locate
from robosim.simulator.simulator import Simulator
from robosim.spec import EnvSpec
from robosim.world_model.world import Precision, WorldModel

PARTS = ("tokenizer", "latent_action", "dynamics")

SPEC_FILE, STARTS_FILE = "spec.json", "starts.npz"


def load(
    path: str | Path,
    device: str = "auto",
    steps: int | None = None,
    temperature: float | None = None,
    precision: Precision = "float32",
) -> Simulator:
    """Open the learned simulator of a run folder, of a folder that `Simulator.save` wrote, or a shipped one by name.

    `device` is auto, cpu or cuda; `steps` (refinement steps a frame) and `temperature` default to the run's;
    `precision` float32 or bfloat16 is that of the dynamics. Raises `CheckpointError` naming what is missing or damaged
    and what to run, `ConfigError` for sampling that makes no sense.
    """
    check_sampling(steps, temperature)
    folder = locate(path)
    check_parts(folder)
    world = WorldModel.load(folder, resolve_device(device), precision)
    given = {"steps": steps, "temperature": temperature}
    given = {name: value for name, value in given.items() if value is not None}
    world = replace(world, sampling=replace(world.sampling, **given))
    adapted = (folder / "adapter" / "adapter.json").is_file()  # written last
    bundle = load_adapter(folder / "adapter") if adapted else None
    if (folder / SPEC_FILE).is_file():
        about = read_json(folder / SPEC_FILE)
        spec, starts = EnvSpec.from_json(about["spec"]), _read_starts(folder / STARTS_FILE)
        simulator = Simulator(world, spec, bundle, None, starts, about["name"], about["renderer"])
    else:
        clips, name = ClipStore(folder / "clips"), folder.resolve().name
        simulator = Simulator(world, clips.spec, bundle, clips, None, name, _renderer(folder))
    _check_fit(simulator, folder)
    return simulator


def save(simulator: Simulator, folder: Path, precision: Precision = "float32") -> Path:
    """Write a simulator without its video; see `Simulator.save`."""
    if precision not in get_args(Precision):
        raise ConfigError(unknown("precision", precision, get_args(Precision)))
    staged = StagedFolder(folder, marker=SPEC_FILE)
    try:
        write_parts(simulator, staged.path, precision)
        staged.commit()
    except BaseException:
        staged.abort()
        raise
    return folder


def write_parts(simulator: Simulator, folder: Path, precision: Precision) -> None:
    """Write the files of a saved simulator into a folder that is there already."""
    world = simulator.world
    described = {
        "tokenizer": (world.tokenizer, {"size": world.size}),
        "latent_action": (world.latent_action, {"size": world.size}),
        "dynamics": (world.dynamics, {"sampling": asdict(world.sampling)}),
    }
    for name, (model, more) in described.items():
        save_tensors(prepare_folder(folder / name) / "model.safetensors", stored_weights(model, precision))
        atomic_write_json(folder / name / "model.json", {"config": asdict(model.config), **more})
    if simulator.bundle is not None:
        save_adapter(folder / "adapter", simulator.bundle)
    with write_errors(folder / STARTS_FILE):
        np.savez_compressed(folder / STARTS_FILE, frames=simulator.starts)
    about = {"name": simulator.name, "spec": simulator.spec.to_json(), "renderer": simulator.renderer}
    atomic_write_json(folder / SPEC_FILE, about)


def stored_weights(model: nn.Module, precision: Precision) -> dict[str, Tensor]:
    """The state of a model with its trained weights in `precision`; whoever loads it gets float32 again.

    Buffers stay as they are: batch-norm statistics stand right before a rounding to codes, and codebooks and playable
    latent actions are what is rounded to, so that the last bits of these change tokens. All of them are small.
    """
    narrow = {name for name, _ in model.named_parameters()}
    number = getattr(torch, precision)
    return {name: value.to(number) if name in narrow else value for name, value in model.state_dict().items()}


def check_sampling(steps: int | None = None, temperature: float | None = None) -> None:
    """Raise `ConfigError` for values that `load` can't take; None is the run's own."""
    if steps is not None and steps < 1:
        raise ConfigError(f"steps must be 1 (refinement step a frame) or more, not {steps}")
    if temperature is not None and not temperature >= 0:  # nor NaN
        raise ConfigError(f"temperature must be 0 (the most likely token) or more, not {temperature}")


def check_parts(folder: Path) -> None:
    """Raise `CheckpointError` with one sentence where the folder isn't a trained run."""
    if not folder.is_dir():
        raise CheckpointError(
            f"there is no folder {folder}; train a simulator with: robosim demo out={folder}"
        )
    # Written last, so that a stage that was interrupted doesn't count.
    missing = [part for part in PARTS if not (folder / part / "model.json").is_file()]
    if len(missing) == len(PARTS):
        raise CheckpointError(f"{folder} is no run folder: it holds none of {', '.join(PARTS)}")
    if missing:
        raise CheckpointError(
            f"{folder} has no finished {missing[0]}; run: robosim train stage={missing[0]} out={folder}"
        )
    if not (folder / "clips").is_dir() and not (folder / SPEC_FILE).is_file():
        raise CheckpointError(
            f"{folder} has neither clips/ nor {SPEC_FILE}, so its arm is unknown; restore the folder"
        )


def _check_fit(simulator: Simulator, folder: Path) -> None:
    """Raise `CheckpointError` where the parts of a folder were made from different runs."""
    world, spec, bundle = simulator.world, simulator.spec, simulator.bundle
    if spec.size != world.size:
        raise CheckpointError(
            f"the video of {folder} has {spec.size} px, its models make {world.size} px; train them again"
        )
    if bundle is None:
        return
    adapter = bundle.adapter
    sizes = (adapter.config.latent_size, adapter.config.num_joints, len(adapter.joints_mean))
    if sizes != (world.latent_dim, spec.robot.num_joints, len(spec.state_columns)):
        raise CheckpointError(
            f"the adapter of {folder} doesn't fit its latent actions or its arm; run: "
            f"robosim adapt out={folder} resume=false"
        )


def _read_starts(path: Path) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return archive["frames"]
    except Exception as error:  # zipfile, zlib and NumPy each raise their own classes on a damaged file
        raise CheckpointError(
            f"{path} is missing or damaged ({error}); restore it, or save the simulator again"
        ) from error


def _renderer(run: Path) -> str:
    """What drew the run's labelled video; the default where the dataset is gone or was imported."""
    dataset = label_source(run)
    if dataset is None or not (dataset / "meta").is_dir():
        return "warp"
    return str(read_provenance(dataset).get("renderer", {}).get("kind", "warp"))
