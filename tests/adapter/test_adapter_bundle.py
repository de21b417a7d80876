"""Fitting as a whole, the figures, and the file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robosim.adapter import LabelledEpisodes, evaluate_adapter, load_adapter, save_adapter
from robosim.adapter.labels import STATE_COLUMNS
from robosim.errors import CheckpointError, DatasetError


def test_saved_and_loaded_it_answers_the_same(bundle, held_out, spec, tmp_path: Path):
    save_adapter(tmp_path / "adapter", bundle)
    loaded = load_adapter(tmp_path / "adapter")
    rows = held_out.transitions()
    inputs = (rows.previous_command_MJ, rows.joints_MJ)
    for name, first in (("latent_to_command", rows.latent_MA), ("command_to_latent", rows.command_MJ)):
        ours, theirs = (getattr(b.adapter, name)(first, *inputs) for b in (bundle, loaded))
        assert torch.equal(ours, theirs)
    frames = torch.from_numpy(held_out.frames[0])
    ours, theirs = bundle.probe.read(frames), loaded.probe.read(frames)
    assert torch.equal(ours.tool, theirs.tool) and torch.equal(ours.goal, theirs.goal)
    assert torch.equal(
        bundle.judge.distance(ours, spec.tasks[0]), loaded.judge.distance(theirs, spec.tasks[0])
    )
    assert not any(parameter.requires_grad for parameter in loaded.modules.parameters())


def test_a_damaged_folder_is_named(bundle, tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"adapter\.json is missing"):
        load_adapter(tmp_path)
    save_adapter(tmp_path, bundle)
    sizes = json.loads((tmp_path / "adapter.json").read_text())
    sizes["adapter"]["latent_size"] = 3
    (tmp_path / "adapter.json").write_text(json.dumps(sizes))
    with pytest.raises(CheckpointError, match="fit it again with: robosim adapt out="):
        load_adapter(tmp_path)
    save_adapter(tmp_path, bundle)
    (tmp_path / "adapter.safetensors").write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match="damaged"):
        load_adapter(tmp_path)


def test_figures_tell_good_latents_from_shuffled_ones(bundle, held_out, spec):
    figures = evaluate_adapter(bundle, held_out, spec)
    assert figures["command_mae_rad"] < 0.25 * figures["shuffled_command_mae_rad"]
    assert figures["tool_mae_m"] < 0.015
    assert figures["hold_tool_mae_m"] == pytest.approx(0.025, abs=0.005)  # the drawn tool's speed
    assert figures["latent_r2"] > 0.9
    assert figures["probe_error_m"] < 0.025
    assert figures["judge"]["reach"]["error_m"] < 0.025


def test_kinematics_of_the_caller_are_used(bundle, held_out, spec):
    figures = evaluate_adapter(
        bundle, held_out, spec, forward_kinematics=lambda joints: np.zeros((len(joints), 3))
    )
    assert figures["tool_mae_m"] == 0


def test_first_commands_start_from_the_first_posture(labels: LabelledEpisodes):
    rows, first = labels.transitions(), [0]
    for latents in labels.latents[:-1]:
        first.append(first[-1] + len(latents))
    assert torch.equal(rows.previous_command_MJ[first], rows.joints_MJ[first])
    later = np.setdiff1d(np.arange(len(rows)), first)
    assert torch.equal(rows.previous_command_MJ[later], rows.command_MJ[later - 1])
    assert len(rows) == labels.num_transitions == 195


def test_columns_that_do_not_align_are_refused(labels: LabelledEpisodes):
    with pytest.raises(DatasetError, match=r"labelled episode 1.*must agree"):
        replace(labels, latents=[labels.latents[0], labels.latents[1][:-1], *labels.latents[2:]])
    with pytest.raises(DatasetError, match="no labelled episode"):
        LabelledEpisodes([], [], [], [], [], [])


def test_state_columns_are_the_contracts():
    assert {name: (part.start, part.stop) for name, part in STATE_COLUMNS.items()} == {
        "tool": (0, 3),
        "object": (3, 6),
        "goal": (6, 9),
    }
