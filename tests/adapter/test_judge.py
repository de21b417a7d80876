"""The judge's calibration removes what a probe gets systematically wrong, and says what is left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from robosim.adapter.judge import Judge, LabelledReadings, matching_offset
from robosim.spec import TaskSpec
from robosim.world_model.protocols import ProbeReading

REACH = TaskSpec("reach", "reach it", 30, 0.04, "tool")
PUSH = TaskSpec("soft_push", "push it", 45, 0.04, "object", (0, 1))
HEIGHT = 0.03
"""The goal lies this far above what the probe takes for it."""


def readings(count: int, noise: float, seed: int) -> LabelledReadings:
    """Subjects around a goal, read with noise."""
    generator = torch.Generator().manual_seed(seed)
    joints, goal = torch.zeros(count, 8), torch.rand(count, 3, generator=generator) * 0.2
    tool, block = (goal + 0.05 * torch.randn(count, 3, generator=generator) for _ in range(2))
    noisy = [point + noise * torch.randn(count, 3, generator=generator) for point in (tool, block, goal)]
    noisy[2][:, 2] -= HEIGHT
    return LabelledReadings(ProbeReading(joints, *noisy), ProbeReading(joints, tool, block, goal))


def judge_on(train: LabelledReadings) -> Judge:
    judge = Judge([REACH.name, PUSH.name])
    judge.calibrate((REACH, PUSH), {REACH.name: train, PUSH.name: train})
    return judge


@pytest.mark.parametrize("task", [REACH, PUSH], ids=lambda task: task.name)
def test_success_rates_are_unbiased_on_new_frames(task: TaskSpec):
    judge, new = judge_on(readings(400, 0.02, seed=0)), readings(4000, 0.02, seed=1)
    truth = task.distance(new.true.tool.numpy(), new.true.object.numpy(), new.true.goal.numpy())
    true_rate = (truth <= task.success_distance).mean()

    def bias(judge: Judge) -> float:
        return abs(
            (judge.distance(new.read, task) <= task.success_distance).float().mean().item() - true_rate
        )

    assert bias(judge) < 0.2 * true_rate
    assert bias(judge) < 0.5 * bias(Judge([task.name]))
    assert np.abs(judge.distance(new.read, task).numpy() - truth).mean() < 0.025


def test_it_states_its_error():
    train = readings(2000, 0.015, seed=0)
    figures = Judge([PUSH.name]).calibrate((PUSH,), {PUSH.name: train})[PUSH.name]
    assert 0.005 < figures["error_m"] < 0.02
    assert figures["pass_rate"] == pytest.approx(figures["true_pass_rate"], abs=0.03)
    assert 0 < figures["false_success"] < 0.2
    assert 0 < figures["missed_success"] < 0.4
    worse = Judge([PUSH.name]).calibrate((PUSH,), {PUSH.name: readings(2000, 0.03, seed=0)})[PUSH.name]
    assert worse["error_m"] > 1.5 * figures["error_m"]


def test_perfect_readings_need_no_offset():
    row = readings(400, 0.0, seed=0)
    exact = LabelledReadings(row.true, row.true)
    judge = judge_on(exact)
    assert judge.offset_K.abs().max() < 2e-3
    truth = PUSH.distance(row.true.tool.numpy(), row.true.object.numpy(), row.true.goal.numpy())
    torch.testing.assert_close(judge.distance(row.true, PUSH), torch.from_numpy(truth), rtol=0, atol=2e-3)


def test_axes_that_do_not_count_are_ignored():
    judge, row = judge_on(readings(400, 0.01, seed=0)), readings(8, 0.01, seed=1).read
    lifted = replace(row, object=row.object + torch.tensor([0, 0, 0.5]))
    torch.testing.assert_close(judge.distance(lifted, PUSH), judge.distance(row, PUSH))
    assert (judge.distance(replace(row, tool=row.tool + 0.5), REACH) > judge.distance(row, REACH) + 0.3).all()


def test_labels_without_a_near_frame_give_a_bounded_offset():
    far = torch.linspace(0.2, 0.4, 50)
    assert matching_offset(far + 0.3, far, 0.04) == -0.02
    assert matching_offset(far + 0.01, far, 0.04) == pytest.approx(-0.01, abs=1e-6)


def test_an_unknown_task_is_named():
    with pytest.raises(ValueError, match="knows the tasks reach, not 'soft_push'"):
        Judge(["reach"]).distance(readings(2, 0.0, seed=0).read, PUSH)
