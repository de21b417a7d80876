"""A person at the controls, without the page: starts, undo, branches, recording."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rerun.chunk import RrdReader
from robosim_datasets.lerobot_io import load_episode, open_dataset
from robosim_datasets.validate import check_dataset

import robosim
from robosim.simulator import Simulator
from robosim.viewer.play import history, play_recording
from robosim.viewer.play.session import PlayError, PlaySession, View
from tests.toy_run import SIZE, write_toy_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_toy_run(tmp_path_factory.mktemp("runs") / "reach-toy-s0")


@pytest.fixture(scope="module")
def simulator(run) -> Simulator:
    return robosim.load(run, device="cpu")


@pytest.fixture
def play(simulator, tmp_path) -> PlaySession:
    return PlaySession(simulator, tmp_path / "out")


def assert_same(left: View, right: View) -> None:
    for name in ("frame", "joints", "command"):
        assert np.array_equal(getattr(left, name), getattr(right, name)), name
    assert (left.twin is None) == (right.twin is None)
    assert left.twin is None or np.array_equal(left.twin, right.twin)
    assert left.step == right.step


def photo(colour: str = "teal", size: tuple[int, int] = (90, 60)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def test_what_the_page_asks_first(play, simulator):
    assert play.joint_names[0] == "joint1" and len(play.joint_names) == len(play.units) == 8
    assert play.units[-1] == "fraction" and (play.low < play.high).all()
    assert play.num_codes == 8 and play.has_commands and play.tasks == ["reach"]
    assert [(e.index, e.split, e.task) for e in play.episodes] == [
        (0, "train", "reach"), (1, "train", "reach"), (2, "val", "reach"), (3, "val", "reach")
    ]  # fmt: skip
    view = play.view()
    assert view.frame.shape == (SIZE, SIZE, 3) and view.twin is None and view.step == 0
    assert not view.can_undo and view.branches == ("main",) and view.branch == "main" and not view.recording


def test_two_pages_do_not_disturb_each_other(simulator, tmp_path):
    one, two = (PlaySession(simulator, tmp_path) for _ in range(2))
    alone = [one.press(code) for code in (0, 1, 2)]
    two.press(5)
    one.undo()
    assert_same(one.press(2), alone[2])
    assert two.view().step == 1


def test_physics_stands_beside_a_physics_start(play):
    start = play.start_from_physics("reach", 4)
    assert start.twin is not None and "seed 4" in start.note
    assert np.abs(start.frame.astype(float) - start.twin).mean() < 128
    moved = play.command(start.joints + 0.05)
    assert (moved.twin != start.twin).any() and (moved.frame != start.frame).any()
    pressed = play.press(1)
    assert (pressed.twin != moved.twin).any() and (pressed.command != moved.command).any()


def test_physics_stands_beside_a_recorded_frame_that_it_can_repeat(play, simulator):
    view = play.start_from_dataset(3, 5)
    assert "episode 3" in view.note and view.twin is not None
    recorded = simulator.clips.frames(3, 5, 6)[0]
    assert np.abs(view.twin.astype(float) - recorded).mean() < 6
    row = simulator.clips.episodes[3].start + 5
    assert np.array_equal(view.joints, simulator.clips.column("state")[row])
    assert np.array_equal(view.command, simulator.clips.column("action")[row - 1])


def test_the_frames_before_a_recorded_one_are_its_context(play, simulator):
    """The same frame with and without its past goes on differently."""
    frames = simulator.clips.frames(3, 2, 6)
    assert simulator.window == 4
    warm = simulator.copy()
    cold = simulator.copy()
    warm.start(frames)
    cold.start(frames[-1:])
    play.start_from_dataset(3, 5)
    seen = play.press(2).frame
    assert np.array_equal(seen, warm.press(2).frame)
    assert not np.array_equal(seen, cold.press(2).frame)


def test_no_physics_beside_a_recording_that_it_cannot_repeat(simulator, run, tmp_path, monkeypatch):
    play = PlaySession(simulator, tmp_path)
    states = simulator.clips.column("state").copy()
    monkeypatch.setitem(simulator.clips._columns, "state", states + 0.1)
    assert play.start_from_dataset(3, 5).twin is None


def test_a_picture_has_no_twin(play):
    play.start_from_physics("reach", 1)
    view = play.start_from_picture(photo(), "desk.png")
    assert view.twin is None and "desk.png" in view.note and view.step == 0
    assert play.press(0).twin is None


@pytest.mark.parametrize(
    "ask, words",
    [
        (lambda play: play.start_from_picture(b"dear diary", "notes.png"), r"notes\.png isn't a picture"),
        (lambda play: play.start_from_picture(b"", "void.jpg"), r"void\.jpg is empty"),
        (lambda play: play.start_from_dataset(9, 0), "no episode 9; choose one from 0 to 3"),
        (lambda play: play.start_from_dataset(0, 999), "episode 0 has no frame 999"),
        (lambda play: play.start_from_physics("juggle", 0), "'juggle'; choose from reach"),
        (lambda play: play.press(8), "no latent action 9; choose one from 1 to 8"),
        (lambda play: play.command(np.full(8, np.nan)), "8 numbers"),
        (lambda play: play.switch_branch("elsewhere"), "'elsewhere'; choose from main"),
        (lambda play: play.stop_recording(), "nothing is being recorded"),
    ],
)
def test_what_cannot_be_done_gets_a_sentence_and_changes_nothing(play, ask, words):
    before = play.press(0)
    with pytest.raises(PlayError, match=words):
        ask(play)
    after = play.view()
    assert_same(after, before)
    assert after.note == before.note and after.branches == before.branches


def test_far_commands_are_approached(play, simulator):
    start = play.view()
    reach = simulator.largest_step
    wanted = np.clip(start.command + 3.3 * reach, play.low, play.high).astype(np.float32)
    views = [play.command(wanted) for _ in range(4)]
    first = views[0].command - start.command
    assert (np.abs(first) <= reach + 1e-6).all() and np.abs(first).max() > 0.9 * reach.max()
    assert np.allclose(views[-1].command, wanted, atol=1e-6)
    assert np.array_equal(play.command(play.high + 50).command <= play.high, np.ones(8, bool))


def test_undo_is_exact_and_so_is_what_follows(play):
    states = [play.start_from_physics("reach", 2)]
    rest = states[0].joints

    def go(step: int) -> View:
        return play.press(step % 8) if step % 3 else play.command(rest + 0.01 * step)

    states += [go(step) for step in range(20)]
    for wanted in reversed(states[:-1]):
        assert_same(play.undo(), wanted)
    with pytest.raises(PlayError, match="nothing left to undo"):
        play.undo()
    for step, wanted in enumerate(states[1:]):
        assert_same(go(step), wanted)


def test_the_past_is_bounded(play, monkeypatch):
    monkeypatch.setattr(history, "SPACING", 4)
    monkeypatch.setattr(history, "MOST_STEPS", 10)
    for step in range(30):
        view = play.press(step % 8)
    kept = 0
    while view.can_undo:
        view, kept = play.undo(), kept + 1
    assert 10 <= kept <= 10 + 2 * history.SPACING
    monkeypatch.setattr(history, "MOST_BYTES", 1)
    for step in range(20):
        play.press(step % 8)
        wholes = [entry for entry in play._history._entries if entry.snapshot is not None]
        assert len(wholes) <= 2
    assert play.view().can_undo


def test_branches_go_on_independently(play):
    play.start_from_physics("reach", 3)
    for code in (0, 1, 2):
        fork = play.press(code)
    view = play.new_branch()
    assert view.branches == ("main", "branch 1") and view.branch == "branch 1"
    assert_same(view, fork)
    here = play.press(5)
    assert_same(play.switch_branch("main"), fork)
    there = play.press(5)
    assert_same(there, here)  # the same noise lies ahead of both
    play.press(6)
    assert_same(play.switch_branch("branch 1"), here)
    for _ in range(4):
        view = play.undo()
    assert not view.can_undo and view.step == 0
    assert play.switch_branch("main").step == 5
    for _ in range(6):
        play.new_branch()
    with pytest.raises(PlayError, match="8 branches are the most"):
        play.new_branch()


def test_a_start_leaves_other_branches_alone(play):
    play.press(0)
    kept = play.press(1)
    play.new_branch()
    play.start_from_physics("reach", 3)
    assert_same(play.switch_branch("main"), kept)


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


def test_a_crash_loses_the_stretch_under_way_alone(simulator, tmp_path):
    crashed = PlaySession(simulator, tmp_path)
    crashed.start_recording()
    crashed.press(0)
    crashed.start_from_physics("reach", 1)
    crashed.press(1)
    living = PlaySession(simulator, tmp_path)
    assert not (tmp_path / "play-000" / "dataset").exists()  # it is still being made
    crashed._recording._lock.close()  # what the end of a process does
    note = PlaySession(simulator, tmp_path).view().note
    assert "interrupted" in note and "play-000" in note
    assert [row["length"] for row in open_dataset(tmp_path / "play-000" / "dataset").episodes] == [2]
    living.close()


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


def test_without_an_adapter(run, tmp_path):
    shutil.copytree(run, tmp_path / "video", ignore=shutil.ignore_patterns("adapter"))
    play = PlaySession(robosim.load(tmp_path / "video", device="cpu"), tmp_path / "out")
    assert not play.has_commands and play.tasks == []
    start = play.start_from_dataset(3, 4)
    assert start.twin is None
    moved = play.press(2)
    assert (moved.frame != start.frame).any()
    assert np.array_equal(play.undo().frame, start.frame)
    for ask in (lambda: play.command(np.zeros(8)), play.start_recording):
        with pytest.raises(PlayError, match="robosim adapt"):
            ask()


def test_without_mujoco(simulator, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "robosim.physics.arms.catalogue", None)
    play = PlaySession(simulator, tmp_path)
    assert play.tasks == []
    assert play.start_from_dataset(3, 4).twin is None
    with pytest.raises(PlayError, match="MuJoCo can't start any here"):
        play.start_from_physics("reach", 0)


def test_a_saved_simulator_offers_its_first_frames(simulator, tmp_path):
    simulator.save(tmp_path / "arm")
    play = PlaySession(robosim.load(tmp_path / "arm", device="cpu"), tmp_path / "out")
    assert [(episode.length, episode.split) for episode in play.episodes] == [(1, "val")] * 2
    assert "episode 1" in play.start_from_dataset(1, 0).note
    assert play.start_from_physics("reach", 0).twin is not None
