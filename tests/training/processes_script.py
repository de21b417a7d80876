"""What the tests of distributed training run, alone or under torchrun: jobs, one after the other, given as JSON.

A job trains a small model on batches that depend on the step alone, and leaves `final.safetensors`. Its `fault`
happens to one process in the middle of the run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from robosim.checkpoint import load_tensors, save_tensors
from robosim.errors import DatasetError, RobosimError
from robosim.ranks import Elsewhere, launched, rank
from robosim.training.distributed import processes
from robosim.training.loop import TrainConfig, train
from robosim.world_model.dynamics import Dynamics, DynamicsConfig
from robosim.world_model.latent_action import LatentActionConfig, LatentActionModel
from robosim.world_model.quantise import FSQ
from robosim.world_model.st_transformer import STConfig
from robosim.world_model.tokenizer import Tokenizer, TokenizerConfig

SIZE, TIME, TOKENS, LEVELS = 32, 5, 9, (4, 3)
QUIET = {"tensorboard": False}
SMALL = STConfig(dim=16, heads=2, layers=2, window=3)


def dynamics(**options) -> nn.Module:
    return Dynamics(
        DynamicsConfig(SMALL, **options),
        LEVELS,
        TOKENS,
        latent_dim=3,
        codes_VC=FSQ(LEVELS).codes(torch.arange(12)),
    )


def latent_action(**options) -> nn.Module:
    # With 8 channels some gradients are mere rounding, see `Batches`: runs then differ by 4e-5, with 16 by 6e-8.
    return LatentActionModel(LatentActionConfig(channels=16, blocks=2, transformer=SMALL, **options), SIZE)


MODELS = {
    "dynamics": dynamics,
    "dynamics, digits and modulation": lambda: dynamics(
        prediction="digits", injection="modulate", corruption=0.2
    ),
    "tokenizer": lambda: Tokenizer(TokenizerConfig(channels=8), SIZE),
    "ST-ViViT of codes": lambda: Tokenizer(
        TokenizerConfig(kind="vit", quantiser="vq", codes=16, encoder=SMALL, decoder=SMALL), SIZE
    ),
    "latent actions": latent_action,
    "discrete latent actions": lambda: latent_action(kind="discrete", network="transformer"),
}


def make(model: str) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[model]()


class Batches:
    """Random clips of moving squares on noise, with everything that any of the models reads."""

    def __init__(self, batch: int, fault: dict | None = None) -> None:
        self.batch, self.fault = batch, fault or {}

    def __call__(self, step: int, rows: slice) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(step)
        shape = self.batch, TIME, TOKENS
        # Textured, so that no gradient is mere rounding, which Adam would scale up to whole steps.
        texture = torch.randint(60, 140, (self.batch, 1, SIZE, SIZE, 3), generator=generator)
        frames = texture.to(torch.uint8).repeat(1, TIME, 1, 1, 1)
        place = torch.randint(0, 12, (self.batch, 2), generator=generator)
        for clip, (x, speed) in zip(frames, place.tolist(), strict=True):
            for t in range(TIME):
                clip[t, 8:16, x + speed * t // 3 : x + speed * t // 3 + 8] = 200
        batch = {
            "tokens": torch.randint(0, 12, shape, generator=generator),
            "latent_action": torch.randn(self.batch, TIME, 3, generator=generator),
            "draft": torch.randn(*shape, 4, generator=generator),
            "frames": frames,
            "noise_seed": torch.arange(self.batch) + 1000 * step,
        }
        if self.fault.get("step") == step and self.fault["rank"] == rank():
            self._break(batch)
        return {name: value[rows] for name, value in batch.items()}

    def _break(self, batch: dict[str, torch.Tensor]) -> None:
        match self.fault["kind"]:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "terminate":
                os.kill(os.getpid(), signal.SIGTERM)
            case "poison":
                batch["draft"][:] = float("nan")
            case "unreadable":
                raise DatasetError("the frames are gone")


def run(job: dict) -> dict[str, float]:
    """Train as the job says; returns the last metrics."""
    config = TrainConfig(
        **{"steps": 12, "batch": 8, "learning_rate": 1e-4, "warmup": 2, "log_every": 1, "save_every": 5}
        | job["train"]
    )
    module, out = make(job["model"]), Path(job["out"])
    last = train(module, Batches(config.batch, job.get("fault")), config, out, job["model"])
    if rank() == 0:
        save_tensors(out / "final.safetensors", module.state_dict() | dict(module.named_buffers()))
    else:
        assert all(tensor.is_meta for tensor in module.state_dict().values()), "process 0 alone has the whole"
    return last


def job(model: str, out: Path, **more) -> dict:
    return {"model": model, "out": str(out), "train": QUIET} | more


def fault(kind: str, step: int, rank: int = 1) -> dict:
    return {"kind": kind, "step": step, "rank": rank}


def launch(*jobs: dict, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """Run the jobs under torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", __file__]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, json.dumps(jobs)], env=environment, capture_output=True, text=True, timeout=300
    )


def rows(out: Path) -> list[dict[str, float]]:
    """The logged steps of a finished job."""
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def final(out: Path) -> dict[str, torch.Tensor]:
    return load_tensors(out / "final.safetensors")


def bit_equal(out: Path, other: Path) -> bool:
    a, b = final(out), final(other)
    return rows(out) == rows(other) and all(torch.equal(a[name], b[name]) for name in a)


def assert_same_run(out: Path, other: Path, skip: Sequence[str] = ()) -> None:
    """Losses and gradient norms of every step, and the final weights but for `skip`, are equal to 1e-5."""
    assert [row["step"] for row in rows(out)] == list(range(12)) == [row["step"] for row in rows(other)]
    for name in ("loss", "gradient_norm"):
        a, b = ([row[name] for row in rows(folder)] for folder in (out, other))
        assert a == pytest.approx(b, rel=1e-5, abs=1e-5), name
    a, b = final(out), final(other)
    for name in a:
        if not name.endswith(tuple(skip)):
            torch.testing.assert_close(
                a[name], b[name], rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )


if __name__ == "__main__":
    try:
        with processes():
            for each in json.loads(sys.argv[1]):
                run(each)
    except RobosimError as error:
        if not isinstance(error, Elsewhere):
            print(f"process {launched()[0]} says: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
