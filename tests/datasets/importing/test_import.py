"""What an import writes, keeps, leaves out, and goes on from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from robosim_datasets.checks.command import check_dataset
from robosim_datasets.clip_store import ClipStore
from robosim_datasets.importing import import_dataset as module
from robosim_datasets.importing.config import ImportConfig
from robosim_datasets.importing.import_dataset import import_clips, import_dataset
from robosim_datasets.lerobot_io import (
    dataset_hash,
    open_dataset,
    read_episode,
    read_episode_table,
    read_provenance,
)

from robosim.cli import main
from robosim.errors import ConfigError, DatasetError


@pytest.fixture
def config(tmp_path: Path) -> ImportConfig:
    (tmp_path / "source").mkdir(exist_ok=True)
    return ImportConfig(str(tmp_path / "source"), size=32, workers=1)


def test_every_frame_action_and_word_arrives(make_source, config, tmp_path):
    source = make_source([21, 31, 41])
    figures = import_dataset(config, tmp_path / "dataset")
    assert (figures["episodes"], figures["frames"], figures["episodes_left_out"]) == (3, 11 + 16 + 21, 0)
    dataset = open_dataset(tmp_path / "dataset", size=32, fps=10)
    assert (
        dataset.spec.action_kind == "ee_delta" and dataset.spec.robot.joint_names == source.info.action_names
    )
    assert dataset.spec.labels == ("state", "action", "reward")
    for index, row in enumerate(dataset.episodes):
        episode, true = read_episode(tmp_path / "dataset", index), source.read(row["source"]["episode"])
        assert episode.instruction == "push the square" and row["source"]["metadata"] == true.metadata
        assert np.array_equal(episode.state, true.state[::2])
        moved = episode.state[1:] - episode.state[:-1]
        assert np.allclose(episode.action[:-1, :2], moved[:, :2], atol=1e-5)
        assert np.array_equal(episode.action[:-1, 2], true.action[1:-1:2, 2])
        assert episode.reward.sum() == true.length and episode.reward[0] == 0
        for frames in episode.frames.values():
            shown = (frames[:, 24:].mean(axis=(1, 2))[:, 0] - 10) / 2
            assert np.abs(shown - np.arange(0, true.length, 2)).max() < 0.9, "frames belong to other rows"


def test_limits_hold_every_command(make_source, config, tmp_path):
    make_source([40, 40])
    import_dataset(config, tmp_path / "dataset")
    dataset = open_dataset(tmp_path / "dataset")
    actions = np.concatenate([read_episode(dataset.root, index).action for index in range(2)])
    assert np.allclose(dataset.spec.robot.lower, actions.min(0))
    assert np.allclose(dataset.spec.robot.upper, actions.max(0))


def test_what_the_source_said_is_kept(make_source, config, tmp_path):
    make_source([20, 20], notes=("the clock is a guess",))
    import_dataset(config, tmp_path / "dataset")
    kept = read_provenance(tmp_path / "dataset")
    assert kept["metadata"] == {"maker": "a test"} and kept["fps"] == 20
    assert kept["cameras"] == {"front": [48, 64], "wrist": [48, 64]}
    assert "the clock is a guess" in kept["notes"] and kept["left_out"] == []


def test_findings_are_printed_before_anything_is_written(make_source, config, tmp_path, monkeypatch, capsys):
    make_source([20, 20])

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "DatasetWriter", stop)
    with pytest.raises(KeyboardInterrupt):
        import_dataset(config, tmp_path / "dataset")
    shown = capsys.readouterr().out
    for fact in ("front 64×48", "front 32×32", "20", "x, y, gripper", "push the square", "train 1, val 1"):
        assert fact in shown
    assert not (tmp_path / "dataset").exists()


def test_damaged_episodes_are_left_out_and_named(make_source, config, tmp_path, capsys):
    source = make_source([20] * 4)
    source.broken = {1}
    figures = import_dataset(config, tmp_path / "dataset")
    assert (figures["episodes"], figures["episodes_left_out"]) == (3, 1)
    kept = [row["source"]["episode"] for row in read_episode_table(tmp_path / "dataset")]
    assert sorted(kept) == [0, 2, 3]
    assert "is cut off" in capsys.readouterr().out.replace("\n", " ")
    assert "episode 1" in read_provenance(tmp_path / "dataset")["left_out"][0]


def test_an_episode_whose_frames_fail_late_is_left_out_too(make_source, config, tmp_path, monkeypatch):
    source = make_source([20] * 3)
    good = source.frames

    def frames(episode, camera, chosen):
        if episode == 2 and len(chosen) > 2:
            raise DatasetError("the video ends early")
        return good(episode, camera, chosen)

    monkeypatch.setattr(source, "frames", frames)
    figures = import_dataset(config, tmp_path / "dataset")
    assert (figures["episodes"], figures["episodes_left_out"]) == (2, 1)
    assert "the video ends early" in read_provenance(tmp_path / "dataset")["left_out"][0]


def test_a_damaged_camera_is_not_called_black(make_source, config, tmp_path):
    source = make_source([20] * 3, cameras={"front": (48, 64)})
    source.missing, source.black = {(1, "front")}, {(2, "front")}
    assert import_dataset(config, tmp_path / "dataset")["episodes"] == 1
    left_out = read_provenance(tmp_path / "dataset")["left_out"]
    assert "damaged: episode 1, camera front: episode 1 has no camera front" in left_out[0]
    assert "black: episode 2, camera front: it is black" in left_out[1]


def test_when_no_episode_is_good_nothing_is_written(make_source, config, tmp_path):
    source = make_source([20, 20])
    source.broken = {0, 1}
    with pytest.raises(DatasetError, match=r"no episode can be imported; the first: .*episode 0"):
        import_dataset(config, tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


def test_when_every_episode_fails_late_nothing_is_written_either(make_source, config, tmp_path, monkeypatch):
    source = make_source([20] * 2)
    good = source.frames

    def frames(episode, camera, chosen):
        if len(chosen) > 2:
            raise DatasetError("the video ends early")
        return good(episode, camera, chosen)

    monkeypatch.setattr(source, "frames", frames)
    with pytest.raises(DatasetError, match=r"no episode can be imported; the first: .*the video ends early"):
        import_dataset(config, tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


def test_an_import_never_sets_its_own_source_aside(make_source, tmp_path, monkeypatch, capsys):
    make_source([20, 20])
    monkeypatch.chdir(tmp_path)
    assert main(["import", "source", "size=32", "out=runs/x"]) == 0
    before = sorted(path for path in (tmp_path / "runs" / "x").rglob("*"))
    for words in (["runs/x", "size=48"], ["runs/x/dataset", "size=48", "out=runs/x"], [".", "out=runs/x"]):
        assert main(["import", *words]) == 2
        assert "is where the source lies; set out= to another run" in capsys.readouterr().err
    assert sorted(path for path in (tmp_path / "runs" / "x").rglob("*")) == before


def test_values_that_are_not_finite_never_arrive(make_source, config, tmp_path, monkeypatch):
    source = make_source([20, 20])
    good = source.read

    def read(episode):
        result = good(episode)
        if episode == 1:
            result.action[7] = np.nan
        return result

    monkeypatch.setattr(source, "read", read)
    assert import_dataset(config, tmp_path / "dataset")["episodes"] == 1
    assert "action isn't finite at frame 7" in read_provenance(tmp_path / "dataset")["left_out"][0]


def test_an_interrupted_import_goes_on_and_ends_the_same(make_source, config, tmp_path, monkeypatch):
    make_source([20] * 6)
    import_dataset(config, tmp_path / "straight")
    good, converted = module.make_episode, []

    def interrupted(source, config, plan, piece):
        if len(converted) == 4:
            raise KeyboardInterrupt
        converted.append(piece.episode)
        return good(source, config, plan, piece)

    monkeypatch.setattr(module, "make_episode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_dataset(config, tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()
    again = []
    monkeypatch.setattr(module, "make_episode", lambda *a: again.append(a[3].episode) or good(*a))
    import_dataset(config, tmp_path / "dataset")
    assert len(again) == 2 and not set(again) & set(converted)
    assert dataset_hash(tmp_path / "dataset") == dataset_hash(tmp_path / "straight")
    assert not (tmp_path / "dataset.shards").exists()


def test_episodes_of_an_attempt_that_saw_others_are_not_mistaken(make_source, config, tmp_path, monkeypatch):
    """Episode 2 can't be read at first: what waits from that attempt stands at other places of the plan."""
    source = make_source([20] * 6)
    source.broken = {2}
    good, converted = module.make_episode, []

    def interrupted(*arguments):
        if len(converted) == 4:
            raise KeyboardInterrupt
        converted.append(arguments[3].episode)
        return good(*arguments)

    monkeypatch.setattr(module, "make_episode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_dataset(config, tmp_path / "dataset")
    source.broken = set()
    monkeypatch.setattr(module, "make_episode", good)
    import_dataset(config, tmp_path / "dataset")
    kept = [row["source"]["episode"] for row in read_episode_table(tmp_path / "dataset")]
    assert sorted(kept) == list(range(6))


def test_many_threads_import_what_one_does(make_source, config, tmp_path):
    make_source([20, 31, 12, 40, 25, 16, 33, 28])
    import_dataset(config, tmp_path / "one")
    import_dataset(replace(config, workers=4), tmp_path / "four")
    for index in range(8):
        a, b = read_episode(tmp_path / "one", index), read_episode(tmp_path / "four", index)
        assert np.array_equal(a.frames["wrist"], b.frames["wrist"]) and np.array_equal(a.action, b.action)


def test_another_request_does_not_go_on_from_these_episodes(make_source, config, tmp_path, monkeypatch):
    make_source([20] * 3)
    monkeypatch.setattr(module, "DatasetWriter", _Interrupting)
    with pytest.raises(KeyboardInterrupt):
        import_dataset(config, tmp_path / "dataset")
    monkeypatch.undo()
    make_source([20] * 3)
    import_dataset(replace(config, size=48), tmp_path / "dataset")
    assert open_dataset(tmp_path / "dataset").spec.size == 48


class _Interrupting:
    def __init__(self, *arguments, **options) -> None:
        self.provenance = {}

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        pass

    def add(self, episode) -> None:
        raise KeyboardInterrupt


def test_the_sources_own_splits_count(make_source, config, tmp_path):
    source = make_source([20] * 4)
    source.splits = {0: "train", 1: "validation", 2: "train", 3: "test"}
    import_dataset(config, tmp_path / "dataset")
    rows = read_episode_table(tmp_path / "dataset")
    assert {row["source"]["episode"]: row["split"] for row in rows} == {
        0: "train",
        2: "train",
        1: "val",
        3: "val",
    }


def test_a_share_is_held_out_where_the_source_holds_out_none(make_source, config, tmp_path):
    make_source([20] * 10)
    held_out = []
    for seed in (0, 1):
        root = tmp_path / f"dataset{seed}"
        import_dataset(replace(config, val_fraction=0.3, seed=seed), root)
        rows = read_episode_table(root)
        held_out.append({row["source"]["episode"] for row in rows if row["split"] == "val"})
    assert [len(numbers) for numbers in held_out] == [3, 3] and held_out[0] != held_out[1]


def test_one_long_recording_is_cut_and_its_end_held_out(make_source, config, tmp_path):
    make_source([401])
    import_dataset(replace(config, cut=5.0, val_fraction=0.25), tmp_path / "dataset")
    rows = read_episode_table(tmp_path / "dataset")
    assert [row["split"] for row in rows] == ["train"] * 3 + ["val"]
    firsts = [row["source"]["first"] for row in rows]
    lasts = [row["source"]["last"] for row in rows]
    assert check_dataset(tmp_path / "dataset") == []
    assert firsts[0] == 0 and lasts[-1] == 400 and firsts[1:] == [last + 2 for last in lasts[:-1]]


def test_a_camera_that_is_black_somewhere_is_left_out_unless_it_is_named(
    make_source, config, tmp_path, capsys
):
    source = make_source([20] * 3)
    source.black = {(1, "wrist")}
    import_dataset(config, tmp_path / "dataset")
    assert open_dataset(tmp_path / "dataset").spec.cameras == ("front",)
    assert "camera wrist shows nothing in 1 of 3 episodes" in capsys.readouterr().out
    figures = import_dataset(replace(config, cameras=("wrist", "front")), tmp_path / "both")
    assert open_dataset(tmp_path / "both").spec.cameras == ("wrist", "front")
    assert figures["episodes"] == 2


def test_a_camera_that_nobody_asked_for_costs_nothing(make_source, config, tmp_path):
    source = make_source([20] * 3)
    source.missing = {(1, "wrist")}
    assert import_dataset(replace(config, cameras=("front",)), tmp_path / "asked")["episodes"] == 3
    assert import_dataset(config, tmp_path / "all")["episodes"] == 3
    assert open_dataset(tmp_path / "all").spec.cameras == ("front",)
    figures = import_dataset(replace(config, cameras=("front", "wrist")), tmp_path / "both")
    assert (figures["episodes"], figures["episodes_left_out"]) == (2, 1)


@pytest.mark.parametrize("stamps", [[np.nan] * 20, [0.0] * 20, [*range(19), 1e15]])
def test_impossible_time_stamps_cost_their_episode_alone(make_source, config, tmp_path, stamps):
    source = make_source([20] * 3)
    source.timestamps = {1: np.array(stamps, float)}
    figures = import_dataset(config, tmp_path / "dataset")
    assert (figures["episodes"], figures["episodes_left_out"]) == (2, 1)
    assert "time stamps" in read_provenance(tmp_path / "dataset")["left_out"][0]


def test_a_given_rate_counts_more_than_time_stamps(make_source, config, tmp_path):
    source = make_source([51, 51])
    source.timestamps = {episode: np.arange(51) / 10 for episode in range(2)}
    assert import_dataset(config, tmp_path / "stamps")["frames"] == 102
    assert import_dataset(replace(config, source_fps=50.0), tmp_path / "given")["frames"] == 22


def test_an_episode_slower_than_the_result_is_left_out(make_source, config, tmp_path):
    source = make_source([20] * 3)
    source.timestamps = {1: np.arange(20) / 4}
    import_dataset(config, tmp_path / "dataset")
    assert "it has 4 frames/s where the result has 10" in read_provenance(tmp_path / "dataset")["left_out"][0]


def test_a_rate_just_below_ours_loses_no_frame(make_source, config, tmp_path):
    make_source([50, 50], fps=9.98)
    assert import_dataset(config, tmp_path / "dataset")["frames"] == 100
    assert open_dataset(tmp_path / "dataset").spec.fps == 10


def test_an_outcome_that_some_episodes_lack_is_not_made_up(make_source, config, tmp_path):
    source = make_source([20] * 3)
    source.without_reward = {2}
    import_dataset(config, tmp_path / "dataset")
    assert open_dataset(tmp_path / "dataset").spec.labels == ("state", "action")


def test_splits_that_hold_nothing_out_are_drawn(make_source, config, tmp_path):
    source = make_source([20] * 6)
    source.splits = dict.fromkeys(range(5), "train")
    import_dataset(config, tmp_path / "dataset")
    assert [row["split"] for row in read_episode_table(tmp_path / "dataset")].count("val") == 1


def test_a_slow_source_keeps_its_rate(make_source, config, tmp_path):
    make_source([20, 20], fps=5.0)
    figures = import_dataset(config, tmp_path / "dataset")
    assert open_dataset(tmp_path / "dataset").spec.fps == 5 and figures["frames"] == 40


def test_video_alone_becomes_clips_without_labels(make_source, config, tmp_path):
    make_source([20, 20], state_names=(), action_names=(), action_kind="none")
    import_clips(config, tmp_path / "run")
    store = ClipStore(tmp_path / "run" / "clips")
    assert store.spec.action_kind == "none" and store.spec.robot.num_joints == 0
    assert set(store.column_names()) == {"motion", "reward"}


def test_a_robosim_dataset_comes_back_exactly(dataset, tmp_path):
    """All but the video, which is encoded a second time."""
    import_dataset(ImportConfig(str(dataset), size=32), tmp_path / "again")
    old, new = open_dataset(dataset), open_dataset(tmp_path / "again")
    assert new.spec == old.spec
    for index in range(len(old.episodes)):
        a, b = read_episode(old.root, index), read_episode(new.root, index)
        for name in ("state", "action", "environment_state", "reward", "success"):
            assert np.array_equal(getattr(a, name), getattr(b, name)), name
        for name in ("task", "instruction", "behaviour", "split", "seed"):
            assert getattr(a, name) == getattr(b, name), name
        for camera in a.frames:
            error = (a.frames[camera].astype(float) - b.frames[camera]) ** 2
            assert 10 * np.log10(255**2 / max(error.mean(), 1e-9)) > 40


def test_pictures_can_be_put_right(make_source, config, tmp_path):
    make_source([20, 20])
    import_dataset(config, tmp_path / "as_it_is")
    import_dataset(replace(config, swap_red_blue=True, upside_down=True), tmp_path / "right")
    wrong, right = (read_episode(tmp_path / name, 0).frames["front"] for name in ("as_it_is", "right"))
    as_wanted = np.abs(wrong[:, ::-1, :, ::-1].astype(int) - right).mean()
    assert as_wanted < 1 and np.abs(wrong.astype(int) - right).mean() > 5 * as_wanted
    assert right[..., 2].max() > 200 > 2 * right[..., 0].max()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 50}, "multiple of 16"),
        ({"cameras": ("side",)}, "unknown camera 'side'.*front, wrist"),
        ({"cameras": ()}, "at least one name"),
        ({"val_fraction": 1.0}, "below 1"),
        ({"cut": 0.0}, "above 0"),
        ({"source": ""}, "say what to import"),
        ({"source": "no/such/place"}, "there is nothing at"),
    ],
)
def test_wrong_keys_are_one_sentence(make_source, config, tmp_path, changes, words):
    make_source([20, 20])
    with pytest.raises(ConfigError, match=words):
        import_dataset(replace(config, **changes), tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


def test_a_source_without_a_rate_asks_for_it(make_source, config, tmp_path):
    make_source([20, 20], fps=None)
    with pytest.raises(ConfigError, match="set source_fps="):
        import_dataset(config, tmp_path / "dataset")
    assert import_dataset(replace(config, source_fps=20.0), tmp_path / "dataset")["frames"] == 20


def test_the_command_takes_its_source_as_the_first_word(make_source, tmp_path, monkeypatch, capsys):
    make_source([20, 20])
    monkeypatch.chdir(tmp_path)
    assert main(["import", "source", "size=32", "out=run"]) == 0
    shown = capsys.readouterr().out
    assert "made run/dataset/, run/clips/" in shown
    assert "next: robosim train stage=tokenizer out=run" in shown
    assert json.loads((tmp_path / "run" / "dataset" / "stage.json").read_text())["stage"] == "import"
    assert main(["import", "source", "size=32", "out=run"]) == 0
    assert "finished before, kept" in capsys.readouterr().out
    assert main(["import", "source", "size=32", "cameras=[side]", "out=run"]) == 2
    assert "unknown camera 'side'" in capsys.readouterr().err
    assert (tmp_path / "run" / "dataset" / "stage.json").exists(), "a mistyped key moved a good import away"
    (tmp_path / "source" / "more").write_text("changed")
    assert main(["import", "source", "size=32", "out=run"]) == 0
    assert "fingerprint" in capsys.readouterr().out
