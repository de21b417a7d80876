"""What the processes of one distributed run share. In a single process every function here is the identity.

Losses divide by counts of the *whole* batch, so that two processes get the losses and gradients of one. And what
goes wrong in one process ends them all, with one message: that of the process in which it went wrong.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from robosim.errors import RobosimError

if TYPE_CHECKING:
    from torch import Tensor


class Elsewhere(RobosimError):
    """Another process of this run failed and says why; this one ends silently, with the same exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def launched() -> tuple[int, int]:
    """This process's number and the number of processes, as `torchrun` put them into the environment."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def distributed() -> bool:
    """Whether a process group of more than one process is up."""
    if (
        "torch.distributed" not in sys.modules
    ):  # torch takes seconds to import, and without it there is no group
        return False
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process's number, 0 being the one that writes files and talks."""
    import torch.distributed as dist

    return dist.get_rank() if distributed() else 0


def world_size() -> int:
    import torch.distributed as dist

    return dist.get_world_size() if distributed() else 1


def barrier() -> None:
    """Wait until every process is here."""
    import torch.distributed as dist

    if distributed():
        dist.barrier()


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of every process's `value`; gradients flow to all of them."""
    if not distributed():
        return value
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(value)


def gather_over_ranks(value: Tensor) -> Tensor:
    """Every process's `value` [n, ...] of equal shape, one below the other in rank order; without gradients."""
    if not distributed():
        return value
    import torch
    import torch.distributed as dist

    parts = [torch.empty_like(value) for _ in range(world_size())]
    dist.all_gather(parts, value.detach().contiguous())
    return torch.cat(parts)


def gather_texts(text: str) -> list[str]:
    """Every process's `text`, in rank order."""
    if not distributed():
        return [text]
    import torch

    data = torch.tensor(list(text.encode()), dtype=torch.uint8)
    lengths = gather_over_ranks(torch.tensor([len(data)])).tolist()
    padded = torch.zeros(1, max(1, *lengths), dtype=torch.uint8)
    padded[0, : len(data)] = data
    rows = gather_over_ranks(padded).tolist()
    return [bytes(row[:length]).decode() for row, length in zip(rows, lengths, strict=True)]


def any_rank(flag: bool) -> bool:
    """Whether `flag` is true in any process."""
    return "1" in gather_texts("1" if flag else "0")


def together[T](work: Callable[[], T]) -> T:
    """Do `work` in every process. Where it fails in one, that one raises its error and all others `Elsewhere`.

    `work` itself must not wait for other processes.
    """
    if not distributed():
        return work()
    result, failure = None, None
    try:
        result = work()
    except BaseException as error:
        failure = error
    _agree(gather_texts(_failure_text(failure)), failure)
    return result  # pyright: ignore[reportReturnType]


def alone[T](work: Callable[[], T]) -> T:
    """Let process 0 do `work` while the others wait; all get its result, which must be plain JSON, or its failure."""
    if not distributed():
        return work()
    result, failure = None, None
    if rank() == 0:
        try:
            result = work()
        except BaseException as error:
            failure = error
    _agree(gather_texts(_failure_text(failure)), failure)
    shared = json.loads(gather_texts(json.dumps(result))[0])
    return result if rank() == 0 else shared  # pyright: ignore[reportReturnType]


def shared_failure(error: RobosimError) -> RobosimError:
    """What to raise in every process for an `error` that all have met: process 0 says it."""
    return error if rank() == 0 else Elsewhere(str(error), error.exit_code)


def _failure_text(failure: BaseException | None) -> str:
    if failure is None:
        return ""
    code = 130 if isinstance(failure, KeyboardInterrupt) else getattr(failure, "exit_code", 1)
    return json.dumps([f"{type(failure).__name__}: {failure}", code])


def _agree(texts: list[str], own: BaseException | None) -> None:
    """Raise if any process failed: the first one that did raises its own error."""
    for number, text in enumerate(texts):
        if text:
            if number == rank() and own is not None:
                raise own
            message, code = json.loads(text)
            raise Elsewhere(f"process {number}: {message}", code)
