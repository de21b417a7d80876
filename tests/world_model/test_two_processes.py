"""Models that look at the whole batch (codebooks, batch norm, the liveliest pairs) give two processes one's losses."""

import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

from robosim.world_model.latent_action import LatentActionConfig, LatentActionModel
from robosim.world_model.tokenizer import Tokenizer, TokenizerConfig

STEPS, ROWS = 6, 16


def make(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if name == "tokenizer":
        return Tokenizer(TokenizerConfig(channels=8, quantiser="vq", codes=16, code_dim=4), 16)
    config = LatentActionConfig(kind="discrete", keep_pairs=0.4, channels=8, blocks=1)
    return LatentActionModel(config, 16)


def losses(name: str, rank: int, world: int) -> list[float]:
    """Losses of a few steps on this process's rows; of two processes the first keeps hardly any pair."""
    frames = torch.randint(0, 256, (ROWS, 3, 16, 16, 3), dtype=torch.uint8)
    frames[: ROWS // 2] = frames[: ROWS // 2, :1]
    rows = torch.arange(ROWS).chunk(world)[rank]
    model = make(name)
    optimiser = torch.optim.SGD(model.parameters(), 0.01)
    found = []
    for step in range(STEPS):
        loss, metrics = model({"frames": frames[rows], "noise_seed": rows + 100 * step})
        optimiser.zero_grad()
        (loss * metrics["weight"]).backward()
        total = torch.stack([loss.detach() * metrics["weight"], metrics["weight"]])
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        for value in (total, *gradients) if world > 1 else ():
            dist.all_reduce(value)
        for gradient in gradients:
            gradient /= total[1]
        optimiser.step()
        found.append((total[0] / total[1]).item())
    return found


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    for name in ("tokenizer", "latent_action"):
        torch.manual_seed(1)
        found = losses(name, rank, 2)
        if rank == 0:
            with open(f"{folder}/{name}", "w") as file:
                file.write("\n".join(map(repr, found)))
    dist.destroy_process_group()
    os._exit(
        0
    )  # gloo's threads may abort an interpreter that shuts down (see `robosim.training.distributed`)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks")
    started = [subprocess.Popen([sys.executable, __file__, str(rank), str(path)]) for rank in range(2)]
    assert [process.wait(timeout=100) for process in started] == [0, 0]
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tokenizer", "latent_action"])
def test_two_processes_have_the_losses_of_one(folder, name):
    torch.manual_seed(1)
    one = losses(name, 0, 1)
    two = [float(line) for line in (folder / name).read_text().splitlines()]
    assert two == pytest.approx(one, abs=1e-5)
    assert one[0] != pytest.approx(one[-1], abs=1e-3), "the models must have moved"


if __name__ == "__main__":
    work(int(sys.argv[1]), sys.argv[2])
