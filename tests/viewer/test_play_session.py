"""A person at the controls, without the page: starts, undo, branches."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest

import robosim
from robosim.viewer.play import history
from robosim.viewer.play.session import PlayError, PlaySession, View
from tests.toy_run import SIZE
from tests.viewer.views import assert_same, photo


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


def test_a_step_that_physics_fails_is_as_if_it_had_never_been(play, simulator, tmp_path, monkeypatch):
    undisturbed = PlaySession(simulator, tmp_path)
    for session in (play, undisturbed):
        session.start_from_physics("reach", 3)
        before = session.press(0)
    physics = type(play._twins["reach"]._env)
    step = physics.step

    def explode(self, actions):
        step(self, actions)
        raise FloatingPointError("NaN in QACC")

    with monkeypatch.context() as patch:
        patch.setattr(physics, "step", explode)
        with pytest.raises(FloatingPointError):
            play.press(1)
    assert_same(play.view(), before)
    for code in (2, 3):
        assert_same(play.press(code), undisturbed.press(code))
    for _ in range(3):
        play.undo()
    assert not play.view().can_undo


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
