"""The probe learns a drawn scene from few labels, and reads recorded and blurred frames alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from robosim.adapter import KeypointProbe, KeypointProbeConfig
from robosim.adapter.colours import memberships
from robosim.adapter.fit import FitConfig, fit_adapter, probe_figures, read_all
from tests.adapter.conftest import BOUND


def test_it_reads_held_out_frames(bundle, held_out):
    figures = probe_figures(read_all(bundle.probe, np.concatenate(held_out.frames)), held_out)
    assert figures["probe_tool_error_m"] < 0.025
    assert figures["probe_object_error_m"] < 0.025
    assert figures["probe_goal_error_m"] < 0.025
    assert figures["probe_joints_mae_rad"] < 0.05


def test_labels_matter(labels, held_out, bundle):
    """Fitted on permuted labels it knows nothing, so the errors above aren't given by the scene's size."""
    frames = torch.from_numpy(np.concatenate(labels.frames))
    order = torch.randperm(len(frames), generator=torch.Generator().manual_seed(0))
    points, joints = (
        torch.from_numpy(np.concatenate(rows))[order] for rows in (labels.points, labels.joints)
    )
    probe = KeypointProbe(KeypointProbeConfig(colours=16))
    probe.fit(frames, joints, points, labels.frame_episodes(), frames, seed=0)
    figures = probe_figures(read_all(probe, np.concatenate(held_out.frames)), held_out)
    assert figures["probe_error_m"] > 0.06


def test_decoded_frames_are_read_as_well(bundle, labels, held_out, blurred, make_episodes):
    frames = blurred(np.concatenate(held_out.frames))
    figures = probe_figures(read_all(bundle.probe, frames), held_out)
    assert figures["probe_error_m"] < 0.025
    probe, video = KeypointProbe(KeypointProbeConfig(colours=16)), make_episodes(8, seed=200).frames
    columns = (labels.frames, labels.joints, labels.points)
    recorded, joints, points = (torch.from_numpy(np.concatenate(rows)) for rows in columns)
    probe.fit(
        recorded, joints, points, labels.frame_episodes(), torch.from_numpy(np.concatenate(video)), seed=0
    )
    recorded_only = probe_figures(read_all(probe, frames), held_out)
    assert figures["probe_error_m"] < 0.7 * recorded_only["probe_error_m"]


def test_left_out_readings_are_honest(labels, held_out):
    """Errors with the episode left out are about those on new episodes, and not those of the fit."""
    columns = (labels.frames, labels.joints, labels.points)
    frames, joints, points = (torch.from_numpy(np.concatenate(rows)) for rows in columns)
    probe = KeypointProbe(KeypointProbeConfig(colours=16))
    left_out = probe.fit(frames, joints, points, labels.frame_episodes(), frames, seed=0)
    claimed = probe_figures(left_out, labels)["probe_error_m"]
    new = probe_figures(read_all(probe, np.concatenate(held_out.frames)), held_out)["probe_error_m"]
    assert 0.6 * new < claimed < 1.7 * new


def test_a_row_does_not_depend_on_its_batch(bundle, held_out):
    frames = torch.from_numpy(held_out.frames[0][:8])
    together = bundle.probe.read(frames)
    alone = [bundle.probe.read(frame[None]) for frame in frames]
    for name in ("joints", "tool", "object", "goal"):
        rows = torch.cat([getattr(row, name) for row in alone])
        torch.testing.assert_close(getattr(together, name), rows, rtol=0, atol=1e-5)


def test_what_is_not_there_is_put_at_the_labels_mean(bundle, held_out):
    empty = torch.full((1, 64, 64, 3), 140, dtype=torch.uint8)
    member = memberships(empty, bundle.probe.codebook_K3)
    place, seen = bundle.probe.goal(member)
    assert seen.item() < 0.1
    torch.testing.assert_close(place[0], bundle.probe.goal.mean_3, rtol=0, atol=0.05)
    member = memberships(torch.from_numpy(held_out.frames[0][:1]), bundle.probe.codebook_K3)
    assert bundle.probe.goal(member)[1].item() > 0.5


def test_loss_is_the_reading_error(bundle, held_out):
    columns = (held_out.frames, held_out.joints, held_out.points)
    frames, joints, points = (torch.from_numpy(np.concatenate(rows)) for rows in columns)
    loss, metrics = bundle.probe({"frames": frames, "joints": joints, "points": points})
    assert loss.item() == pytest.approx(
        np.mean([metrics[f"{n}_error_m"] for n in ("tool", "object", "goal")]), rel=1e-5
    )


def test_frames_of_the_wrong_kind_are_refused(bundle):
    with pytest.raises(ValueError, match="uint8"):
        bundle.probe.read(torch.zeros(1, 64, 64, 3))
    with pytest.raises(ValueError, match=r"\[N,H,W,3\]"):
        bundle.probe.read(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_joints_that_the_picture_does_not_show_are_not_believed(labels, make_episodes, spec):
    """The drawn arm shows its tool, and so the joints that follow from it; not a wrist that turns by lot."""
    rng = np.random.default_rng(0)
    turned = replace(
        labels, joints=[np.concatenate([q[:, :7], rng.random((len(q), 1))], 1) for q in labels.joints]
    )
    video = torch.from_numpy(np.concatenate(make_episodes(2, seed=200).frames))
    probe = fit_adapter(turned, [], video, spec, BOUND, FitConfig(colours=16))[0].probe
    trust = probe.read(video[:2]).trust
    assert trust.shape == (8,) and trust[:7].min() > 0.8 and trust[7] < 0.2


def test_what_labels_say_nothing_of_is_not_believed(labels, make_episodes, spec):
    """The gripper never moves in these labels; and a single episode leaves none out to be told."""
    video = torch.from_numpy(np.concatenate(make_episodes(2, seed=200).frames))

    def trusts(some):
        return fit_adapter(some, [], video, spec, BOUND, FitConfig(rank=3, colours=16))[0].probe.trust_O

    trust = trusts(labels.take([0, 1, 2, 3]))
    assert trust[7] == 0 and trust[0] > 0.5
    assert not trusts(labels.take([0])).any()
