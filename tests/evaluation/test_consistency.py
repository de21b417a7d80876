from dataclasses import replace

import numpy as np
import pytest

from robosim.evaluation.consistency import (
    FRAMES,
    SEQUENCES,
    choose_sequences,
    consistency_measures,
    cosine_measures,
    joint_motion_measure,
    spread,
)
from robosim.evaluation.measures import estimate
from robosim.evaluation.measuring import joint_kinematics
from robosim.physics.arms.catalogue import get_robot
from robosim.spec import EnvSpec, RobotSpec
from tests.evaluation.by_hand import NoBar, noise, stretches_of

X, Y = np.eye(3)[:2]


def value(measure, rows=2):
    found = estimate(measure, np.arange(rows), 0)
    return None if found is None else found["value"]


def test_the_same_way_from_everywhere_is_one_whatever_its_length():
    moved = np.stack([np.outer([1, 2, 0.1], X), np.outer([3, 1, 1], Y)])
    found = cosine_measures(moved, np.ones((2, 3), bool), np.arange(2), 2)
    assert value(found["same_sequence"]) == pytest.approx(1)
    assert value(found["different_sequences"]) == pytest.approx(0)


def test_opposite_ways_are_minus_one_and_the_control_sees_what_always_goes_one_way():
    moved = np.stack([np.stack([X, -X]), np.stack([X, -X])])
    found = cosine_measures(moved, np.ones((2, 2), bool), np.arange(2), 2)
    assert value(found["same_sequence"]) == pytest.approx(-1)
    always = cosine_measures(np.tile(X, (2, 2, 1)), np.ones((2, 2), bool), np.arange(2), 2)
    assert value(always["different_sequences"]) == pytest.approx(1)


def test_a_mean_is_over_pairs_of_starts_that_count():
    moved = np.stack([np.stack([X, X, -X]), np.stack([Y, Y, Y])])
    counts = np.array([[True, True, False], [True, True, True]])
    found = cosine_measures(moved, counts, np.array([1, 0]), 2)
    assert found["same_sequence"].parts_NP.tolist() == [[6, 6], [2, 2]]
    every = cosine_measures(moved, np.ones((2, 3), bool), np.array([1, 0]), 2)
    assert every["same_sequence"].parts_NP[1].tolist() == pytest.approx([-2, 6])


def test_who_stays_where_it_is_agrees_with_nothing():
    moved = np.zeros((1, 3, 3))
    assert value(cosine_measures(moved, np.ones((1, 3), bool), np.array([0]), 1)["same_sequence"], 1) == 0


def test_a_sequence_is_where_the_tool_goes_farthest_and_far_enough():
    time = 20
    tool = np.zeros((4, time, 3))
    tool[0, 5 : 5 + FRAMES + 1, 0] = np.linspace(0, 0.2, FRAMES + 1)
    tool[0, 5 + FRAMES + 1 :, 0] = 0.2
    tool[1, :, 0] = np.linspace(0, 0.01, time)  # too little
    tool[2, 10:, 0] = 9.0  # in the padding
    tool[3, :, 0] = np.linspace(0, 0.5, time)
    stretches = stretches_of(noise(4, time + 1, 8, 8), 2, [time + 1, time + 1, 11, 2 + FRAMES - 1])
    assert choose_sequences(tool, stretches) == [(0, 5)]


def test_a_task_has_so_many_sequences_at_most():
    count = 3 * SEQUENCES
    tool = np.cumsum(np.full((count, FRAMES + 2, 3), 0.1), axis=1)
    task = ["a"] * (count - 1) + ["b"]
    chosen = choose_sequences(tool, stretches_of(noise(count, FRAMES + 2, 8, 8), 1, task=task))
    assert len(chosen) == SEQUENCES + 1 and chosen[0][0] == 0 and chosen[-1][0] == count - 1
    assert spread(3, 8) == [0, 1, 2]


def test_displacements_are_read_from_the_start_to_the_end_of_the_very_sequence(monkeypatch):
    """A simulator in which a latent action moves the tool to the right by its number, a probe that reads that."""
    import torch

    from robosim.evaluation import consistency
    from robosim.evaluation.drift import Places

    given = {}

    def drive(world, start, latents, seeds, bar):
        given.update(latents=latents, start=start, seeds=seeds)
        shown = start[:, -1:, ..., 0].float() + latents.cumsum(1)[..., 0][:, :, None, None]
        return shown[..., None].expand(*shown.shape, 3)

    def read(probes, frames, task_N):
        assert len(task_N) == len(frames)
        place = frames[:, :, 0, 0, 0].float().numpy()[..., None] * X
        return Places(place, place)

    monkeypatch.setattr(consistency, "drive_by_latents", drive)
    monkeypatch.setattr(consistency, "read_places", read)
    frames = (
        torch.zeros(3, 14, 4, 4, 3, dtype=torch.uint8) + torch.tensor([50, 90, 20])[:, None, None, None, None]
    )
    frames = frames.to(torch.uint8)
    latents = torch.arange(3 * 13).reshape(3, 13, 1).float()
    latents[2] = -latents[2]
    parts = (stretches_of(frames, 2), latents, frames[:, 1], [(0, 1), (2, 3)])
    found = consistency_measures(None, None, *parts, 5, NoBar())
    assert given["latents"][:3, :, 0].tolist() == [list(range(2, 2 + FRAMES))] * 3
    assert given["latents"][3:, 0, 0].tolist() == [-(26 + 4)] * 3
    assert given["start"][:, -1, 0, 0, 0].tolist() == [50, 90, 20] * 2
    assert given["seeds"].tolist() == [5, 6, 7, 8, 9, 10]
    # Each sequence from the two starts that aren't its own.
    assert found["same_sequence"].parts_NP[[0, 2]].tolist() == [[2, 2], [2, 2]]
    assert np.isnan(found["same_sequence"].parts_NP[1]).all()
    assert value(found["different_sequences"], 3) == pytest.approx(-1)


def test_the_reference_is_the_same_motion_of_the_joints_from_every_start():
    """An arm of two joints, the first turning the whole plane: bent otherwise, it goes another way."""

    def tool_of(joints):
        first, both = joints[:, 0], joints.sum(1)
        return np.stack([np.cos(first) + np.cos(both), np.sin(first) + np.sin(both), 0 * first], 1)

    turned = np.array([0.0, 0.5, np.pi / 2])
    state = np.zeros((3, 2 + FRAMES, 2), np.float32)
    state[:, :, 0] = turned[:, None]
    state[0, 1:, 1] = np.linspace(
        0, 0.01, FRAMES + 1
    )  # the second joint turns a little, in the first stretch alone
    robot = RobotSpec("two", ("a", "b"), ("rad", "rad"), (-4.0, -4.0), (4.0, 4.0))
    stretches = stretches_of(noise(3, 2 + FRAMES, 8, 8), 2, state=state)
    found = joint_motion_measure(tool_of, robot, stretches, [(0, 0)])
    # Its own start isn't counted; between the other two it goes apart by as much as they are turned.
    assert found.parts_NP[0] == pytest.approx([2 * np.cos(np.pi / 2 - 0.5), 2], abs=1e-4)
    still = RobotSpec("still", ("a", "b"), ("rad", "rad"), (-4.0, 0.0), (4.0, 0.0))
    assert joint_motion_measure(tool_of, still, stretches, [(0, 0)]).parts_NP[0, 0] == 0  # beyond its limits


def test_only_joints_of_a_known_arm_have_kinematics():
    spec = EnvSpec(get_robot("panda").spec, ())
    state = np.tile(np.float32((*get_robot("panda").rest, 0.0)), (2, 4, 1))
    stretches = stretches_of(noise(2, 4, 8, 8), state=state)
    tool_of = joint_kinematics(spec, stretches)
    assert tool_of is not None and tool_of(state[0]).shape == (4, 3)
    unknown = stretches_of(noise(2, 4, 8, 8), state=np.full_like(state, np.nan))
    strange = replace(spec, robot=replace(spec.robot, name="strange"))
    for other, of in (
        (spec, unknown),
        (spec, stretches_of(noise(2, 4, 8, 8))),
        (replace(spec, action_kind="ee_delta"), stretches),
        (replace(spec, state_names=("a", "b")), stretches),
        (strange, stretches),
    ):
        assert joint_kinematics(other, of) is None
