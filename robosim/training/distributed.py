"""One run on several devices: a process a device under `torchrun`, the weights spread over all of them (FSDP2).

Every process takes its part of each batch. Parameters, gradients and the optimiser's state are sharded; a block of a
transformer is whole only while it computes (PyTorch's `fully_shard`; Zhao et al., arXiv 2304.11277).
"""

from __future__ import annotations

import atexit
import copy
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from robosim.errors import RobosimError, UnsupportedError
from robosim.interrupts import INTERRUPTED
from robosim.ranks import rank, world_size
from robosim.world_model.st_transformer import STTransformer

PATIENCE = timedelta(hours=24)
"""How long a process waits for another: process 0 may decode and label a whole dataset meanwhile. One that died is
noticed at once, by torchrun."""


@contextmanager
def processes() -> Iterator[None]:
    """Join the other processes of a `torchrun`, for as long as the block lasts: the last thing that a process does.

    Success, and an error that all have agreed on (see `robosim.ranks`), take their exit code straight out of the
    process: gloo's threads outlive the group, and one that still holds a tensor aborts the interpreter that is shutting
    down now and then (pytorch/pytorch#179291). Any other error leaves as it comes.
    """
    start()
    try:
        yield
    except (RobosimError, KeyboardInterrupt) as error:
        # torchrun stops the others as soon as one has ended; they are on their way, with an exit code of their own.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        atexit.register(leave, getattr(error, "exit_code", INTERRUPTED))
        raise
    dist.destroy_process_group()
    atexit.register(leave_if_well)


def leave_if_well() -> None:
    """`leave` with success, unless an error has been printed since."""
    if not hasattr(sys, "last_exc") and not hasattr(sys, "last_value"):
        leave(0)


def leave(code: int) -> None:
    """End this process at once, with everything said."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def start() -> None:
    """Join the process group that `torchrun` describes in RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.

    Tensors on a GPU travel by NCCL, all others by gloo.
    """
    cuda = torch.cuda.is_available()
    place = int(os.environ.get("LOCAL_RANK", 0))
    if cuda and place < torch.cuda.device_count():
        torch.cuda.set_device(place)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)


def shard(module: nn.Module, device: str, precision: str) -> nn.Module:
    """A twin of `module` on `device` of which every process holds its part. `module` itself has no weights any more
    (it is on `meta`, so that no weight is in memory twice) until `gather_weights` brings them back.

    On a GPU, bfloat16 parameters travel and compute; the parts that the optimiser steps, and the sums of gradients,
    stay float32. Raises `UnsupportedError` where a machine has more processes than GPUs.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if device == "cuda" and here > torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UnsupportedError(
            f"{here} processes share {count} GPUs of this machine; use torchrun --nproc-per-node={count}, "
            "or device=cpu"
        )
    halved = device == "cuda" and precision == "bfloat16"
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if halved else None,
        reduce_dtype=torch.float32 if halved else None,
        cast_forward_inputs=False,
    )
    mesh = init_device_mesh(device, (world_size(),))
    twin = copy.deepcopy(module, {id(tensor): tensor for tensor in [*module.parameters(), *module.buffers()]})
    module.to_empty(device="meta")
    for transformer in transformers(twin):
        for block in transformer.blocks:
            fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(twin, mesh=mesh, mp_policy=policy)
    return twin


def transformers(module: nn.Module) -> list[STTransformer]:
    return [part for part in module.modules() if isinstance(part, STTransformer)]


@torch.no_grad()
def gather_weights(sharded: nn.Module, module: nn.Module) -> None:
    """Copy the whole weights of `sharded` into process 0's `module`, on the CPU, one tensor at a time."""
    if rank() == 0:
        module.to_empty(device="cpu")
    wholes = dict(module.named_parameters()) | dict(module.named_buffers())
    # A state dict lacks the buffers that aren't saved, and asks FSDP2 for the parts, whatever it has gathered itself.
    for name, part in (dict(sharded.named_buffers()) | sharded.state_dict()).items():
        whole = part.full_tensor() if isinstance(part, DTensor) else part
        if rank() == 0:
            wholes[name].copy_(whole)


def local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor, sharing its memory; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(part: Tensor, tensor: Tensor) -> Tensor:
    """`part` as this process's share of a tensor that is sharded as `tensor` is."""
    if not isinstance(tensor, DTensor):
        return part
    return DTensor.from_local(
        part,
        tensor.device_mesh,
        tensor.placements,
        run_check=False,
        shape=tensor.shape,
        stride=tensor.stride(),
    )


def own_rows(tensor: Tensor, rank: int) -> tuple[int, int]:
    """First row and the row after the last that process `rank` holds of a tensor [rows, ...]."""
    length = tensor.shape[0]
    if not isinstance(tensor, DTensor):
        return 0, length
    size = -(-length // tensor.device_mesh.size())  # FSDP2 cuts as torch.chunk does
    return min(rank * size, length), min((rank + 1) * size, length)
