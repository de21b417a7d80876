from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robosim.evaluation import control
from robosim.evaluation.control import delta_psnr, one_step, partners, shuffle_ratio
from robosim.evaluation.measures import estimate
from tests.evaluation.by_hand import NoBar, noise, stretches_of
from tests.world_model.conftest import make_world

SIZE = 16


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_a_partner_is_another_one_of_the_task_and_each_is_one_once(count):
    task = np.array(["a"] * count + ["b"] * 5)
    able = np.ones(len(task), bool)
    able[-2:] = False
    partner = partners(task, able)
    assert sorted(partner[able]) == np.flatnonzero(able).tolist()
    assert (partner != np.arange(len(task))).all()
    assert (task[partner[able]] == task[able]).all()
    assert partner[~able].tolist() == [-1, -1]


def test_who_is_alone_in_a_task_has_no_partner():
    assert partners(np.array(["a", "b", "b"]), np.array([True, True, False])).tolist() == [-1, -1, -1]


def test_delta_psnr_is_what_the_others_latent_actions_lose(monkeypatch):
    """A simulator that shows its latent actions; the third stretch is alone in its task, the fourth too short."""
    given = []

    def drive(world, start, latents, seeds, bar):
        given.append((latents.shape[1], list(seeds)))
        return brightness(latents[..., 0])

    def brightness(values):
        return values[..., None, None, None].expand(*values.shape, SIZE, SIZE, 3).to(torch.uint8)

    monkeypatch.setattr(control, "drive_by_latents", drive)
    values = torch.tensor([[10.0], [40.0], [90.0], [20.0]]) + torch.arange(6)
    frames = brightness(torch.cat([values[:, :2] * 0, values[:, 1:]], 1))
    stretches = stretches_of(frames, 2, [7, 7, 7, 5], ["a", "a", "b", "a"])
    found = delta_psnr(SimpleNamespace(), stretches, values[..., None], frames[:, 2:], 3, NoBar())
    assert given == [(4, [3, 4])], "four frames, each with the noise of its own rollout"
    assert np.isnan(found.parts_NP[:, 0]).tolist() == [False, False, True, True]
    value = estimate(found, np.arange(4), 0)
    assert value is not None and value["episodes"] == 2
    assert value["value"] == pytest.approx(100 + 20 * np.log10(30 / 255), abs=1e-3)


@pytest.mark.parametrize("draft", [False, True])
def test_the_ratio_is_one_where_latent_actions_are_equal_and_not_where_they_differ(draft):
    world = make_world(draft=draft)
    stretches = stretches_of(noise(4, 6, SIZE, SIZE), 2, [6, 6, 6, 4])
    latents = world.infer_latents(stretches.frames)
    same = shuffle_ratio(world, stretches, latents[:1].expand_as(latents), seed=0)
    assert np.isnan(same.parts_NP[3]).all(), "padding is never trained on"
    assert same.parts_NP[:3, 0] == pytest.approx(same.parts_NP[:3, 1], rel=1e-6)
    other = shuffle_ratio(world, stretches, latents, seed=0)
    assert (np.abs(other.parts_NP[:3, 0] / other.parts_NP[:3, 1] - 1) > 1e-4).all()
    assert other.parts_NP[:3, 1].sum() > 0


def test_one_step_knows_inferred_latent_actions_from_those_of_another():
    """A latent action model that adds what it is told to every pixel; each stretch brightens at its own pace."""
    world = SimpleNamespace(
        device="cpu",
        latent_action=SimpleNamespace(
            predict=lambda frames, latent: frames / 255 + latent[:, :1, None, None] / 255
        ),
    )
    pace = torch.tensor([11, 20, 40, 30])
    frames = (pace[:, None] * torch.arange(5)).to(torch.uint8)[..., None, None, None].expand(4, 5, 8, 8, 3)
    latents = pace[:, None, None].expand(4, 4, 1).float().clone()
    stretches = stretches_of(frames.clone(), 2, [5, 5, 3, 5], ["a", "a", "a", "b"])
    latents[2, 2:], stretches.frames[2, 3:] = torch.nan, 0
    found = {k: estimate(v, np.arange(4), 0) for k, v in one_step(world, stretches, latents).items()}
    values = {name: value["value"] for name, value in found.items() if value is not None}
    assert values["inferred"] == pytest.approx(100)
    # Partners: 0 ← 1, 1 ← 2, 2 ← 0; four steps of the long ones, two of the short; all pixels move.
    off = (4 * 9**2 + 4 * 20**2 + 2 * 29**2) / 10 / 255**2
    assert values["shuffled"] == pytest.approx(-10 * np.log10(off))
    still = (4 * 11**2 + 4 * 20**2 + 2 * 40**2) / 10 / 255**2
    assert values["repeat_last"] == pytest.approx(-10 * np.log10(still))
    assert all(value is not None and value["episodes"] == 3 for value in found.values())


def test_one_step_needs_two_stretches_of_a_task():
    found = one_step(SimpleNamespace(), stretches_of(noise(1, 4, 8, 8)), torch.zeros(1, 3, 1))
    assert {estimate(value, np.arange(1), 0) for value in found.values()} == {None}
