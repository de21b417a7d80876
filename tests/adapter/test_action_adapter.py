"""Commands ↔ latent actions: they carry the motion, respect limits, and don't wander off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from robosim.adapter import ActionAdapter, ActionAdapterConfig, Transitions
from robosim.adapter.action_adapter import STEP_MARGIN
from robosim.adapter.fit import fit_commands, known_or_fitted
from tests.adapter.conftest import BOUND


@pytest.fixture(scope="module")
def adapter(labels, spec) -> ActionAdapter:
    adapter = ActionAdapter()
    adapter.fit(labels.transitions(), spec.robot)
    return adapter.requires_grad_(False)


def command_error(adapter: ActionAdapter, rows: Transitions, latents: torch.Tensor) -> float:
    decoded = adapter.latent_to_command(latents, rows.previous_command_MJ, rows.joints_MJ)
    return (decoded - rows.command_MJ).abs().mean().item()


def test_commands_follow_latents_and_not_chance(adapter, held_out):
    rows = held_out.transitions()
    hold = (rows.command_MJ - rows.previous_command_MJ).abs().mean().item()
    inferred = command_error(adapter, rows, rows.latent_MA)
    assert inferred < 0.2 * hold
    assert command_error(adapter, rows, rows.latent_MA.roll(40, 0)) > 4 * inferred


def test_a_shift_by_one_frame_is_noticed(adapter, held_out):
    rows = held_out.transitions()
    late = rows.latent_MA.roll(1, 0)
    assert command_error(adapter, rows, late) > 2 * command_error(adapter, rows, rows.latent_MA)


def test_latents_follow_commands(adapter, held_out):
    rows = held_out.transitions()
    latent = adapter.command_to_latent(rows.command_MJ, rows.previous_command_MJ, rows.joints_MJ)
    spread = (rows.latent_MA - rows.latent_MA.mean(0)).square().mean()
    assert (latent - rows.latent_MA).square().mean() < 0.05 * spread
    assert latent.abs().max() <= adapter.config.latent_bound
    back = adapter.latent_to_command(latent, rows.previous_command_MJ, rows.joints_MJ)
    hold = (rows.command_MJ - rows.previous_command_MJ).abs().mean()
    assert (back - rows.command_MJ).abs().mean() < 0.2 * hold


def test_joints_are_predicted(adapter, held_out):
    rows = held_out.transitions()
    moved = adapter.predict_joints(rows.command_MJ, rows.previous_command_MJ, rows.joints_MJ)
    still = (rows.next_joints_MJ - rows.joints_MJ).abs().mean()
    assert (moved - rows.next_joints_MJ).abs().mean() < 0.1 * still


def test_a_row_does_not_depend_on_its_batch(adapter, held_out):
    rows = held_out.transitions()
    for call, first in (
        (adapter.latent_to_command, rows.latent_MA),
        (adapter.command_to_latent, rows.command_MJ),
        (adapter.predict_joints, rows.command_MJ),
    ):
        together = call(first[:8], rows.previous_command_MJ[:8], rows.joints_MJ[:8])
        alone = [
            call(first[i : i + 1], rows.previous_command_MJ[i : i + 1], rows.joints_MJ[i : i + 1])
            for i in range(8)
        ]
        torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)


def test_commands_respect_limits_and_the_labelled_step(adapter, labels, spec):
    rows = labels.transitions()
    largest = (rows.command_MJ - rows.previous_command_MJ).abs().amax(0).clamp_min(1e-3)
    wild = torch.randn(200, 5, generator=torch.Generator().manual_seed(0)) * 50
    previous, lower, upper = (
        rows.command_MJ[:1],
        torch.tensor(spec.robot.lower),
        torch.tensor(spec.robot.upper),
    )
    command = adapter.latent_to_command(wild, previous.expand(200, -1), rows.joints_MJ[:1].expand(200, -1))
    assert ((command - previous).abs() <= STEP_MARGIN * largest + 1e-6).all()
    outside = torch.where(torch.arange(8) % 2 == 0, upper + 1, lower - 1).expand(200, -1)
    command = adapter.latent_to_command(wild, outside, outside)
    assert ((command >= lower) & (command <= upper)).all()
    assert torch.isfinite(command).all()


def test_a_joint_that_never_moved_stays(adapter, held_out):
    rows = held_out.transitions()
    command = adapter.latent_to_command(rows.latent_MA, rows.previous_command_MJ, rows.joints_MJ)
    assert command[:, 7].abs().max() < 1e-3


def test_errors_of_redundancy_do_not_add_up(adapter, held_out):
    """Random motions for 60 steps end near the surface of postures; without the pull they don't."""
    rows = held_out.transitions()
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(rows), (60, 16), generator=generator)

    def distance(pull: float) -> float:
        free = ActionAdapter(adapter.config)
        free.load_state_dict(adapter.state_dict())
        free.pull.fill_(pull)
        joints = command = rows.joints_MJ[:16]
        with torch.no_grad():
            for pick in picks:
                previous, command = command, free.latent_to_command(rows.latent_MA[pick], command, joints)
                joints = free.predict_joints(command, previous, joints)
            posture = free._posture(joints)
            return (joints - free.joints_mean - free.surface(posture, posture)).abs().mean().item()

    assert distance(adapter.pull.item()) < 0.5 * distance(0.0)


def test_unfit_sizes_are_named(labels, spec):
    with pytest.raises(ValueError, match="4 latent dimensions"):
        ActionAdapter(ActionAdapterConfig(latent_size=4)).fit(labels.transitions(), spec.robot)
    with pytest.raises(ValueError, match="8 joints"):
        short = replace(spec.robot, **{
            name: getattr(spec.robot, name)[:7] for name in ("joint_names", "joint_units", "lower", "upper")
        })  # fmt: skip
        ActionAdapter().fit(labels.transitions(), short)
    with pytest.raises(ValueError, match=r"latent_sise.*choose from.*latent_size"):
        ActionAdapter.from_config({"latent_sise": 5})


def test_gradients_can_tune_it_further(adapter, held_out):
    tuned = ActionAdapter.from_config(adapter.to_config())
    tuned.load_state_dict(adapter.state_dict())
    batch = held_out.transitions().batch()
    before = tuned(batch)[0].item()
    for _ in range(10):
        loss, metrics = tuned(batch)
        weights = list(tuned.to_command.parameters())
        with torch.no_grad():
            for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight -= 1e-2 * slope
    assert loss.item() < before
    assert set(metrics) == {"latent_loss", "command_loss", "joints_loss"}


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ({3: 0.4, 4: 0.41, 5: 0.70, 6: 0.72, 8: 0.725}, 5),
        ({3: 0.4, 4: 0.41, 5: 0.60, 6: 0.72, 8: 0.76}, 8),
        ({3: 0.9, 4: 0.9, 5: 0.9, 6: 0.9, 8: 0.9}, 3),
    ],
)
def test_the_fewest_coordinates_that_tell_latent_actions_about_best(labels, spec, monkeypatch, told, kept):
    monkeypatch.setattr(ActionAdapter, "fit", lambda self, *given: {"latent_r2": told[self.config.rank]})
    adapter, errors = fit_commands(labels, spec, BOUND)
    assert adapter.config.rank == kept and errors == {"latent_r2": told[kept]}
    assert fit_commands(labels, spec, BOUND, rank=4)[0].config.rank == 4, "what is asked for isn't tried"


def servoed(spec, rows: int = 400) -> Transitions:
    """An arm that goes four fifths of the way to each command, and a gripper held open by what it grips."""
    generator = torch.Generator().manual_seed(5)
    joints = torch.rand(rows, 8, generator=generator) - 0.5
    previous = joints + 0.01 * torch.randn(rows, 8, generator=generator)
    command = previous + 0.04 * torch.randn(rows, 8, generator=generator)
    following = joints + 0.8 * (command - joints)
    joints[:, 7], previous[:, 7] = 0.5 + 0.2 * torch.rand(rows, generator=generator), 0.0
    command[:, 7] = 0.0
    following[:, 7] = joints[:, 7] + 0.1 * torch.randn(rows, generator=generator)
    latent = torch.tanh(20 * (following - joints)[:, :5]) * BOUND
    return Transitions(command, previous, joints, following, latent, torch.arange(rows) % 10)


def test_a_gripper_that_is_held_open_does_not_spoil_the_arm(spec):
    rows, adapter = servoed(spec), ActionAdapter(ActionAdapterConfig(rank=8))
    adapter.fit(rows, spec.robot)
    with torch.no_grad():
        moved = adapter.predict_joints(rows.command_MJ, rows.previous_command_MJ, rows.joints_MJ)
    off, step = moved - rows.next_joints_MJ, rows.next_joints_MJ - rows.joints_MJ
    assert off[:, :7].square().mean() < 1e-3 * step[:, :7].square().mean()


def test_joints_beyond_the_limits_of_commands_make_no_motion(spec):
    """Recorded limits are those of commands: an arm that sags beyond them and is told to stay stays."""
    narrow = replace(spec.robot, upper=(0.1,) * 8)
    rows, adapter = servoed(spec), ActionAdapter(ActionAdapterConfig(rank=8))
    adapter.fit(rows, narrow)
    joints = torch.full((1, 8), 0.3)
    with torch.no_grad():
        assert adapter.predict_joints(joints, joints, joints).max() <= 0.1
        assert adapter.command_to_latent(joints, joints, joints).abs().max() < 0.1


@pytest.mark.parametrize("latent_map", ["ridge", "network"])
def test_commands_bring_back_an_arm_that_is_seen_elsewhere(spec, latent_map):
    """Seen 0.02 rad ahead of where it is, the arm is told a motion that is shorter by as much."""
    rows, adapter = servoed(spec), ActionAdapter(ActionAdapterConfig(rank=8, latent_map=latent_map))
    adapter.fit(rows, spec.robot)
    given = rows.command_MJ, rows.previous_command_MJ
    ahead = torch.tensor([0.02] * 7 + [0.0])
    with torch.no_grad():
        told, back = (adapter.command_to_latent(*given, rows.joints_MJ + shift) for shift in (0.0, ahead))
    motions = [torch.atanh((latent / BOUND).clamp(-0.98, 0.98)) / 20 for latent in (told, back)]
    assert (motions[1] - motions[0]).mean().item() == pytest.approx(0.8 * -0.02, rel=0.2)


def taken(known, labels, spec) -> tuple[ActionAdapter, dict[str, float]]:
    fitted, errors = fit_commands(labels, spec, BOUND, 3)
    return known_or_fitted(known, fitted, errors, labels, spec.robot)


def test_a_known_adapter_is_taken_where_it_tells_more(bundle, held_out, spec):
    """Few labels tell less than an adapter of many; of other latent actions, or of another arm, it tells nothing."""
    known, few = bundle.adapter, held_out.take([0, 1])
    own_errors = fit_commands(few, spec, BOUND, 3)[1]
    adapter, errors = taken(known, few, spec)
    assert adapter is known and errors["latent_r2"] > own_errors["latent_r2"]
    assert errors.keys() == {*own_errors, "known_latent_r2"}

    other = replace(few, latents=[-latent for latent in few.latents])
    adapter, errors = taken(known, other, spec)
    assert adapter is not known and errors["known_latent_r2"] < 0
    arm = replace(spec, robot=replace(spec.robot, upper=(1.5,) * 7 + (1.0,)))
    adapter, errors = taken(known, few, arm)
    assert adapter is not known and "known_latent_r2" not in errors


def test_maps_fitted_on_a_single_episode_prove_nothing_against_known_ones(bundle, held_out, spec):
    """They tell the noise of their own labels, which no episode is left out to show."""
    rng = np.random.default_rng(0)
    one = held_out.take([0])
    one = replace(one, latents=[latent + rng.normal(0, 0.1, latent.shape) for latent in one.latents])
    fitted, errors = fit_commands(one, spec, BOUND)
    assert known_or_fitted(bundle.adapter, fitted, errors, one, spec.robot)[0] is bundle.adapter
    assert errors["latent_r2"] > bundle.adapter.errors(one.transitions(), spec.robot)["latent_r2"]
