"""Task distance and success, judged from what the probe reads.

Two corrections a task, both from labelled frames read with their episode left out. A shift of the vector from goal to
subject, because what a task calls its goal may lie above the marker that the probe sees. And an offset of its length:
a noisy reading overestimates small distances, so a bare threshold would call successes failures. The offset lets as
many frames pass as truly do: false and missed successes then balance, and success rates are unbiased.

Legend of shape suffixes: N rows, M labelled frames, K tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robosim.spec import TaskSpec
from robosim.world_model.protocols import ProbeReading

BAND = (0.75, 0.9, 1.0, 1.1, 1.25)
"""Thresholds, as multiples of the task's, at which the shares of passing frames are matched; the median offset of
those counts, because 200 labels hold few frames near any single one."""

FEWEST_PASSING = 3
"""Frames that must truly pass a threshold (and fail it) for it to be matched."""


@dataclass(frozen=True)
class LabelledReadings:
    """Readings of M labelled frames by a probe that wasn't fitted on them, and what was true there.

    `goal` in both is that of the episode's first frame, as at play. Points are float32 [M,3], metres.
    """

    read: ProbeReading
    true: ProbeReading


class Judge(nn.Module):
    """Implements the world model's `SuccessJudge`."""

    shift_K3: Tensor
    offset_K: Tensor

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.register_buffer("shift_K3", torch.zeros(len(self.tasks), 3))
        self.register_buffer("offset_K", torch.zeros(len(self.tasks)))

    def distance(self, reading: ProbeReading, task: TaskSpec) -> Tensor:
        """Calibrated task distance [N], metres, never below 0. The caller keeps `reading.goal` from the reset.

        Raises `ValueError` when the judge wasn't calibrated for the task.
        """
        index = self._index(task.name)
        return (self._raw(reading, task) + self.offset_K[index]).clamp_min(0)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean absolute error of judged distances: `away` [M,3] (subject minus goal as read, zero on axes that
        don't count), `true` [M] metres, `task` int64 [M]."""
        judged = (batch["away"] + self.shift_K3[batch["task"]]).norm(dim=1) + self.offset_K[batch["task"]]
        loss = (judged.clamp_min(0) - batch["true"]).abs().mean()
        return loss, {"judge_error_m": loss.detach()}

    @torch.no_grad()
    def calibrate(
        self, tasks: Sequence[TaskSpec], readings: Mapping[str, LabelledReadings]
    ) -> dict[str, dict[str, float]]:
        """Set each task's shift and offset; returns its figures (`judge_figures`) on these left-out readings.

        `readings` by task name.
        """
        figures = {}
        for task in tasks:
            index, row = self._index(task.name), readings[task.name]
            off_M3 = _away(row.true, task) - _away(row.read, task)
            self.shift_K3[index] = off_M3.mean(0)
            true_M = _away(row.true, task).norm(dim=1)
            self.offset_K[index] = matching_offset(self._raw(row.read, task), true_M, task.success_distance)
            figures[task.name] = judge_figures(self.distance(row.read, task), true_M, task)
        return figures

    def _raw(self, reading: ProbeReading, task: TaskSpec) -> Tensor:
        shift_3 = self.shift_K3[self._index(task.name)]
        # Shifts are zero on axes that don't count: `_away` is, for readings and truth alike.
        return (_away(reading, task) + shift_3).norm(dim=1)

    def _index(self, name: str) -> int:
        if name not in self.tasks:
            raise ValueError(f"the judge knows the tasks {', '.join(self.tasks)}, not {name!r}")
        return self.tasks.index(name)


def judge_figures(judged_M: Tensor, true_M: Tensor, task: TaskSpec) -> dict[str, float]:
    """How well judged distances [M] stand for true ones [M], metres.

    `error_m`: mean absolute error; `false_success`: share of frames that pass the threshold among those that truly
    fail it; `missed_success`: the reverse; `pass_rate` and `true_pass_rate`: shares of all frames.
    """
    passes, truly = judged_M <= task.success_distance, true_M <= task.success_distance
    return {
        "error_m": (judged_M - true_M).abs().mean().item(),
        "false_success": _share(passes, ~truly),
        "missed_success": _share(~passes, truly),
        "pass_rate": passes.float().mean().item(),
        "true_pass_rate": truly.float().mean().item(),
    }


def matching_offset(raw_M: Tensor, true_M: Tensor, threshold: float) -> float:
    """The offset at which as many raw distances pass as true ones, over the band around `threshold` (metres)."""
    offsets = []
    for factor in BAND:
        passing = int((true_M <= factor * threshold).sum())
        if FEWEST_PASSING <= passing <= len(true_M) - FEWEST_PASSING:
            edges = raw_M.sort().values[passing - 1 : passing + 1]
            offsets.append(factor * threshold - edges.mean().item())
    if not offsets:  # no frame is near: the labels can only tell the typical excess
        offsets = [(true_M - raw_M).median().item()]
    offset = torch.tensor(offsets).median().item()
    # A correction of a threshold's size would say that the probe is useless there, not that it is biased.
    return max(-threshold / 2, min(threshold / 2, offset))


def _away(reading: ProbeReading, task: TaskSpec) -> Tensor:
    """From goal to subject [N,3], zero on axes that don't count."""
    away_N3 = (reading.tool if task.subject == "tool" else reading.object) - reading.goal
    counts_3 = torch.zeros(3, dtype=away_N3.dtype, device=away_N3.device)
    counts_3[list(task.axes)] = 1
    return away_N3 * counts_3


def _share(event_M: Tensor, among_M: Tensor) -> float:
    """Share of `event_M` among the rows of `among_M`; 0 where there are none."""
    return (event_M & among_M).sum().item() / max(1, int(among_M.sum()))
