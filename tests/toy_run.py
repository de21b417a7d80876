"""A run folder of toy size, as training leaves it: real episodes of the panda, models with random weights.

What such a simulator shows is nonsense, but everything it does is done as with trained weights.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch
from robosim_datasets.clip_store import build_clip_store
from robosim_datasets.lerobot_io import DatasetWriter

from robosim.adapter import ActionAdapter, AdapterBundle, Judge, KeypointProbe, save_adapter
from robosim.adapter.ridge import BilinearRidge
from robosim.checkpoint import atomic_write_json, prepare_folder, save_tensors
from robosim.physics.recording import Recorder
from robosim.physics.tasks import make_spec
from robosim.spec import RobotSpec
from robosim.world_model import WorldModel
from tests.world_model.conftest import make_world

SIZE = 32


@cache
def toy_run(folder: Path) -> Path:
    """The run that all tests share and none changes; `folder` is `tmp_path_factory.getbasetemp()`."""
    return write_toy_run(folder / "reach-toy-s0")


def write_toy_run(run: Path, adapter: bool = True, world: WorldModel | None = None) -> Path:
    """A run with two training and two held-out episodes of `reach`; without `adapter` it was learned from video."""
    spec = make_spec("panda", ["reach"], SIZE)
    recorder = Recorder("panda", SIZE)
    with DatasetWriter(run / "dataset", spec, {"renderer": {"kind": "warp"}}) as writer:
        for seed in range(4):
            writer.add(recorder.record("reach", "expert", seed, "train" if seed < 2 else "val"))
    build_clip_store(run / "dataset", run / "clips", progress=False)
    write_toy_models(run, world or make_world(size=SIZE))
    if adapter:
        save_adapter(run / "adapter", make_toy_bundle(spec.robot))
    return run


def write_toy_models(run: Path, world: WorldModel) -> None:
    described = {
        "tokenizer": (world.tokenizer, {"size": world.size}),
        "latent_action": (world.latent_action, {"size": world.size}),
        "dynamics": (world.dynamics, {"sampling": asdict(world.sampling)}),
    }
    for name, (model, more) in described.items():
        save_tensors(prepare_folder(run / name) / "model.safetensors", model.state_dict())
        atomic_write_json(run / name / "model.json", {"config": asdict(model.config), **more})


def make_toy_bundle(robot: RobotSpec) -> AdapterBundle:
    """An unfitted adapter with random maps, and a probe that reads the same joints off every frame and is
    believed by half."""
    generator = torch.Generator().manual_seed(0)
    adapter, probe = ActionAdapter(), KeypointProbe()
    for module in adapter.modules():
        if isinstance(module, BilinearRidge):
            for value in module.state_dict().values():
                value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
    adapter.lower.copy_(torch.tensor(robot.lower))
    adapter.upper.copy_(torch.tensor(robot.upper))
    middle = (torch.tensor(robot.lower) + torch.tensor(robot.upper)) / 2
    probe.mean_O.copy_(torch.cat([middle, torch.tensor([0.4, 0.1, 0.2])]))
    probe.trust_O.fill_(0.5)
    return AdapterBundle(adapter, probe, Judge(["reach"]))
