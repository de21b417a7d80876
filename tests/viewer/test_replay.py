"""A dataset's commands once more in MuJoCo."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from robosim_datasets.lerobot_io import DatasetWriter, open_dataset

from robosim.errors import ConfigError, UnsupportedError
from robosim.physics.recording import Recorder
from robosim.physics.tasks import make_spec
from robosim.physics.variation import Variation
from robosim.viewer import replay as replay_module
from robosim.viewer.replay import replay_command, replay_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two episodes, the things of different sizes."""
    recorder = Recorder(size=16, variation=Variation(size=(0.8, 1.2)))
    root = tmp_path_factory.mktemp("recorded") / "dataset"
    with DatasetWriter(root, make_spec(tasks=("reach", "soft_push"), size=16), {}) as writer:
        writer.add(recorder.record("reach", "expert", seed=3))
        writer.add(recorder.record("soft_push", "expert", seed=5))
    return open_dataset(root)


def test_a_collected_episode_comes_out_as_it_was(dataset):
    results, shown = replay_dataset(dataset)
    assert [result.task for result in results] == ["reach", "soft_push"]
    for result, episode in zip(results, shown, strict=True):
        assert result.same_start and result.success_recorded and result.success_replayed
        assert result.joint_max_rad < 1e-4 and result.tool_mae_m < 1e-4
        assert np.abs(episode.other.astype(int) - episode.reference).mean() < 4  # the video encoder's share
        assert np.allclose(episode.distance_other, episode.distance_reference, atol=1e-4)


def test_an_unknown_scene_leaves_the_arm(dataset):
    moved = replace(dataset, episodes=[row | {"seed": row["seed"] + 1} for row in dataset.episodes])
    results, _ = replay_dataset(moved)
    for result in results:
        assert not result.same_start and result.success_replayed is None
        assert result.joint_mae_rad < 5e-3 and result.tool_mae_m < 5e-3


def test_a_goal_that_stood_elsewhere_is_noticed(dataset, monkeypatch):
    """The arm starts as it did, the marker doesn't: a scene that was changed since must not pass for the same."""
    draw = replay_module.draw_start

    def moved(*arguments):
        layout = draw(*arguments)
        layout.mocap[:, 1] += 0.02
        return layout

    monkeypatch.setattr(replay_module, "draw_start", moved)
    results, _ = replay_dataset(dataset)
    assert not any(result.same_start for result in results)


def test_the_command_writes_figures_and_a_recording(dataset, tmp_path, capsys):
    replay_command("replay", [f"dataset={dataset.root}", f"out={tmp_path / 'out'}", "episodes=1"])
    figures = json.loads((tmp_path / "out" / "replay.json").read_text())
    assert len(figures["episodes"]) == 1 and figures["episodes"][0]["same_start"]
    assert (tmp_path / "out" / "replay.rrd").stat().st_size > 1000
    assert "uv run rerun" in capsys.readouterr().out


def test_what_cant_be_replayed_is_said(dataset):
    with pytest.raises(ConfigError, match=r"so101 takes 6.*another robot="):
        replay_dataset(dataset, robot="so101")
    with pytest.raises(UnsupportedError, match="ee_delta"):
        replay_dataset(replace(dataset, spec=replace(dataset.spec, action_kind="ee_delta")))
    with pytest.raises(ConfigError, match="dataset="):
        replay_command("replay", [])


def test_why_things_were_not_in_their_places_is_said(dataset):
    results, _ = replay_dataset(dataset)
    assert replay_module.notes(dataset.spec, None, results) == []
    stranger = [replace(results[0], task="juggle")]
    assert "task_file=" in replay_module.notes(dataset.spec, None, stranger)[0]
    assert "isn't the recorded arm" in replay_module.notes(dataset.spec, "so101", results)[0]


def test_a_run_folder_stands_for_its_dataset(dataset):
    assert replay_module.dataset_folder(dataset.root.parent) == dataset.root
    assert replay_module.dataset_folder(dataset.root) == dataset.root
