"""What a person played, as a dataset and as a film, whatever dies in between."""

from __future__ import annotations

import os
import shutil
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from rerun.chunk import RrdReader
from robosim_datasets.checks.command import check_dataset
from robosim_datasets.lerobot_io import load_episode, open_dataset

from robosim.simulator import Simulator
from robosim.viewer.play import play_recording
from robosim.viewer.play.session import PlayError, PlaySession, View
from tests.viewer.views import photo


def recorded(play: PlaySession) -> tuple[list[View], Path]:
    """Two stretches from physics, with an undo in the first; returns the views of the first, and the paths."""
    views = [play.start_from_physics("reach", 5)]
    play.start_recording()
    views += [play.press(0), play.command(views[0].joints + 0.03)]
    play.press(7)
    play.undo()
    views.append(play.press(1))
    play.start_from_picture(photo(), "desk.png")
    for code in (3, 4):
        play.press(code)
    view, paths = play.stop_recording()
    assert "5 steps" in view.note and not view.recording
    assert [path.name for path in paths] == ["dataset", "play.rrd"]
    return views, paths[0].parent


def test_a_recording_is_a_sound_dataset(play):
    views, folder = recorded(play)
    assert sorted(path.name for path in folder.iterdir()) == ["dataset", "play.rrd"]
    assert check_dataset(folder / "dataset") == []
    dataset = open_dataset(folder / "dataset")
    assert dataset.provenance == {"source": "robosim play", "simulator": "reach-toy-s0"}
    first, second = (load_episode(dataset, index) for index in range(2))
    assert (first.length, second.length) == (4, 3)
    assert first.task == "reach" and first.behaviour == "play" and first.seed == 5
    assert np.array_equal(first.state, np.stack([view.joints for view in views]))
    # action[t] acts between frames t and t + 1; the step that was undone has left no trace.
    assert np.array_equal(first.action[:-1], np.stack([view.command for view in views[1:]]))
    for frame, view in zip(first.frames["front"], views, strict=True):
        assert np.abs(frame.astype(float) - view.frame).mean() < 12


@pytest.mark.slow  # importing lerobot takes longer than all the rest
def test_stock_lerobot_reads_a_recording(play):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    views, folder = recorded(play)
    dataset = LeRobotDataset("local/play", root=folder / "dataset")
    assert len(dataset) == 7 and dataset.num_episodes == 2
    row = dataset[1]
    assert row["task"] == dataset.meta.tasks.index[0]
    assert np.array_equal(row["observation.state"].numpy(), views[1].joints)
    assert np.array_equal(row["action"].numpy(), views[2].command)


def test_the_rrd_shows_physics_where_it_stood_beside(play, tmp_path):
    views, folder = recorded(play)
    shown: dict[str, list[bytes]] = {}
    for chunk in RrdReader(folder / "play.rrd").stream().to_chunks():
        for row in chunk.to_record_batch().to_pylist():
            for name, value in row.items():
                if name.endswith("Image:buffer") and value:
                    shown.setdefault(chunk.entity_path, []).append(bytes(value[0]))
    assert len(shown["/learned/camera/front"]) == 7
    assert len(shown["/physics/camera/front"]) == len(shown["/difference/camera/front"]) == 4
    assert shown["/learned/camera/front"][0] == views[0].frame.tobytes()
    assert shown["/physics/camera/front"][3] == views[3].twin.tobytes()


def test_the_rrd_of_a_picture_has_the_learned_side_alone(play):
    play.start_from_picture(photo(), "desk.png")
    play.start_recording()
    play.press(0)
    _, (_, rrd) = play.stop_recording()
    entities = {chunk.entity_path for chunk in RrdReader(rrd).stream().to_chunks()}
    assert "/learned/camera/front" in entities
    assert not any("physics" in entity or "difference" in entity for entity in entities)


def test_replay_finds_a_physics_start_again(play):
    from robosim.viewer.replay import replay_dataset

    views, folder = recorded(play)
    results, shown = replay_dataset(open_dataset(folder / "dataset"), count=2)
    assert [result.same_start for result in results] == [True, False]
    assert np.array_equal(shown[0].other[3], views[3].twin)


def test_recordings_never_overwrite_and_an_empty_one_leaves_nothing(play, tmp_path):
    play.start_recording()
    view, paths = play.stop_recording()
    assert paths == [] and "nothing was recorded" in view.note
    assert list((tmp_path / "out").iterdir()) == []
    folders = []
    for _ in range(2):
        play.start_recording()
        assert play.press(0).recorded == 1
        folders.append(play.stop_recording()[1][0].parent.name)
    assert folders == ["play-000", "play-001"]


def test_undo_below_the_recordings_start(play):
    play.press(0)
    play.press(1)
    play.start_recording()
    play.press(2)
    for _ in range(2):
        play.undo()
    assert play.view().recorded == 0
    wanted = [play.view(), play.press(3), play.press(4)]
    dataset = open_dataset(play.stop_recording()[1][0])
    assert np.array_equal(load_episode(dataset, 0).state, np.stack([view.joints for view in wanted]))


def test_long_stretches_are_cut(play, monkeypatch):
    monkeypatch.setattr(play_recording, "LONGEST", 3)
    play.start_recording()
    for step in range(8):
        play.press(step)
    assert play.view().recorded == 8
    dataset = open_dataset(play.stop_recording()[1][0])
    lengths = [row["length"] for row in dataset.episodes]
    assert lengths == [4, 4, 3] and sum(lengths) - len(lengths) == 8


def test_a_page_that_goes_away_loses_nothing(play, tmp_path):
    play.start_recording()
    play.press(0)
    play.close()
    play.close()
    assert check_dataset(tmp_path / "out" / "play-000" / "dataset") == []


def crash(simulator: Simulator, out: Path) -> PlaySession:
    """Two stretches, of which the second was under way when the process ended."""
    crashed = PlaySession(simulator, out)
    crashed.start_recording()
    crashed.press(0)
    crashed.start_from_physics("reach", 1)
    crashed.press(1)
    return crashed


def end_of_process(crashed: PlaySession) -> None:
    crashed._recording._lock.close()


def test_a_crash_loses_the_stretch_under_way_alone(simulator, tmp_path):
    crashed = crash(simulator, tmp_path)
    living = PlaySession(simulator, tmp_path)
    assert not (tmp_path / "play-000" / "dataset").exists()  # it is still being made
    end_of_process(crashed)
    note = PlaySession(simulator, tmp_path).view().note
    assert "interrupted" in note and "play-000" in note
    assert [row["length"] for row in open_dataset(tmp_path / "play-000" / "dataset").episodes] == [2]
    living.close()


class Death(BaseException):
    """The process is gone: nothing of it catches this."""


def die_after(monkeypatch: pytest.MonkeyPatch, changes: int) -> None:
    """Let the process rename and remove so many files and folders, and no more."""
    made = count()
    for name in ("rename", "replace", "unlink", "rmdir"):
        change = getattr(os, name)

        def limited(*arguments, change=change, **options):
            if next(made) >= changes:
                raise Death
            return change(*arguments, **options)

        monkeypatch.setattr(os, name, limited)


def test_a_finished_recording_outlives_a_death_at_any_point(simulator, tmp_path, monkeypatch):
    crashed = crash(simulator, tmp_path / "crashed")
    crashed.start_from_picture(photo(), "desk.png")
    end_of_process(crashed)
    for changes in count():
        out = shutil.copytree(tmp_path / "crashed", tmp_path / f"died after {changes}")
        try:
            with monkeypatch.context() as patch:
                die_after(patch, changes)
                play_recording.finish_interrupted(out)
            break
        except Death:
            assert play_recording.finish_interrupted(out) == ([out / "play-000" / "dataset"], [])
            assert sorted(path.name for path in (out / "play-000").iterdir()) == ["dataset", "play.rrd"]
            dataset = open_dataset(out / "play-000" / "dataset")
            assert [row["length"] for row in dataset.episodes] == [2, 2]
    assert changes >= 10


def test_what_is_not_a_recordings_own_stays(play, tmp_path):
    play.start_recording()
    (play.recording_folder / "mine.txt").write_text("notes")
    play.stop_recording()
    assert [path.name for path in (tmp_path / "out" / "play-000").iterdir()] == ["mine.txt"]


def test_a_recording_that_cannot_be_finished_keeps_no_one_from_playing(simulator, tmp_path, monkeypatch):
    end_of_process(crash(simulator, tmp_path))
    [stretch] = (tmp_path / "play-000" / "episodes").iterdir()
    whole = stretch.read_bytes()
    stretch.write_bytes(whole[:200])
    play = PlaySession(simulator, tmp_path)
    assert "play-000 was interrupted and can't be finished" in play.view().note
    assert "0000.npz is damaged" in play.view().note
    stretch.write_bytes(whole)
    (tmp_path / "play-000" / "about.json").write_text("{}")
    assert "can't be finished" in PlaySession(simulator, tmp_path).view().note
    assert stretch.read_bytes() == whole


def test_a_disk_that_is_full_at_the_start_is_in_the_note(simulator, tmp_path, monkeypatch):
    end_of_process(crash(simulator, tmp_path))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert "the disk is full" in PlaySession(simulator, tmp_path).view().note
    assert "finished a recording" in PlaySession(simulator, tmp_path).view().note


def test_a_full_disk_while_recording_gets_a_sentence(play, monkeypatch):
    play.start_recording()
    play.press(0)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(play_recording.np, "savez", full)
        with pytest.raises(PlayError, match="disk is full"):
            play.start_from_physics("reach", 1)
    wanted = [play.view(), play.press(1)]
    dataset = open_dataset(play.stop_recording()[1][0])
    assert [row["length"] for row in dataset.episodes] == [2]
    assert np.array_equal(load_episode(dataset, 0).state, np.stack([view.joints for view in wanted]))
