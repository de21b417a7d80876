"""Mixtures read the parts' own shards, give every part its share, and notice when a part changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from robosim_datasets import clip_files as files
from robosim_datasets.clip_store import ClipStore, build_clip_store, frame_motion
from robosim_datasets.lerobot_io import DatasetWriter
from robosim_datasets.mixture import MixConfig, label_source, merged_spec, mix_clips
from robosim_datasets.sampler import ClipSampler
from robosim_datasets.splits import check_commands, held_out_labelled, label_budget

from robosim.checkpoint import file_hash
from robosim.errors import ConfigError, DatasetError, OutputError
from robosim.evaluation.compare import recorded_range
from robosim.evaluation.replay import held_out_clips
from robosim.spec import LABELS, EnvSpec, RobotSpec

MakeRun = Callable[..., ClipStore]

BARE = {"labels": (), "robot": RobotSpec("bare", (), (), (), ()), "action_kind": "none", "state_names": ()}
"""What the contract of a video without commands says."""


@pytest.fixture(scope="module")
def made(tmp_path_factory, spec: EnvSpec, make_episode) -> Path:
    """runs/long (6 train, 1 val) and runs/short (3 train, 1 val) of the same arm, a third as many clips."""
    runs = tmp_path_factory.mktemp("mixed") / "runs"
    for name, count, length in (("long", 7, 20), ("short", 4, 12)):
        with DatasetWriter(runs / name / "dataset", spec, {"renderer": "squares"}) as writer:
            for number in range(count):
                split = "val" if number == count - 1 else "train"
                writer.add(make_episode(number + count, length, split=split))
        build_clip_store(runs / name / "dataset", runs / name / "clips", progress=False)
    return runs


@pytest.fixture
def runs(made: Path, tmp_path: Path, monkeypatch) -> Path:
    """A copy of `made` that a test may change, below the current folder."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(made, tmp_path / "runs"))


@pytest.fixture
def make_run(runs: Path, spec: EnvSpec, make_episode) -> MakeRun:
    """A run of two episodes under a changed spec; labels that it lacks are empty."""

    def make(name: str, episodes=None, **changes) -> ClipStore:
        changed = replace(spec, **changes)
        with DatasetWriter(runs / name / "dataset", changed, {}) as writer:
            for episode in episodes or [make_episode(50, 12), make_episode(51, 12, split="val")]:
                shown = {
                    camera: np.repeat(np.repeat(frames, 2, 1), 2, 2) if changed.size == 64 else frames
                    for camera, frames in zip(changed.cameras, episode.frames.values(), strict=False)
                }
                missing = {}
                for label in ("state", "action", "environment_state"):
                    if label not in changed.labels:
                        missing[label] = np.zeros((episode.length, 0), np.float32)
                if "reward" not in changed.labels:
                    missing["reward"] = np.zeros(episode.length, np.float32)
                writer.add(replace(episode, frames=shown, **missing))
        return build_clip_store(runs / name / "dataset", runs / name / "clips", progress=False)

    return make


def mix(runs: Path, *data: str, weights: tuple[float, ...] | None = None, out: str = "mix") -> ClipStore:
    mix_clips(MixConfig(data, weights), runs / out)
    return ClipStore(runs / out / "clips")


def test_frames_and_labels_are_those_of_the_parts(runs):
    mixed, parts = mix(runs, "long", "short"), [ClipStore(runs / n / "clips") for n in ("long", "short")]
    assert mixed.spec == parts[0].spec and [part.name for part in mixed.parts] == ["long", "short"]
    assert [row.index for row in mixed.episodes] == [*range(7), *range(4)]
    assert mixed.select("val") == [6, 10]
    position = 0
    for part in parts:
        for own, row in enumerate(part.episodes):
            for camera in ("front", "side"):
                assert np.array_equal(mixed.frames(position, camera=camera), part.frames(own, camera=camera))
            here, there = mixed.episodes[position].start, row.start
            for name in (*LABELS, "motion"):
                values = mixed.column(name)[here : here + row.length]
                assert np.array_equal(values, part.column(name)[there : there + row.length]), name
            position += 1


def test_no_frame_is_copied_and_columns_lie_beside(runs):
    before = {path: file_hash(path) for path in runs.rglob("*") if path.is_file()}
    mixed = mix(runs, "long", "short")
    mixed.add_column("tokens", np.arange(mixed.num_frames), {"by": "test"})
    assert ClipStore(mixed.path).column("tokens")[-1] == mixed.num_frames - 1
    assert not list((runs / "mix").rglob("frames"))
    for path, digest in before.items():
        assert file_hash(path) == digest
    assert {path for path in runs.rglob("*") if path.is_file() and path not in before} == {
        *(runs / "mix").rglob("*.h5"),
        runs / "mix/clips/index.json",
        runs / "mix/dataset/mixture.json",
    }


def test_figures_and_what_the_run_keeps(runs):
    figures = mix_clips(MixConfig(("runs/long", "runs/short/clips"), (1, 3)), runs / "mix")
    assert figures == {"datasets": ["long", "short"], "episodes": 11, "frames": 188, "weights": [1, 3]}
    parts = json.loads((runs / "mix/dataset/mixture.json").read_text())["parts"]
    assert [(part["name"], part["path"], part["weight"]) for part in parts] == [
        ("long", "../long/clips", 1),
        ("short", "../short/clips", 3),
    ]
    assert parts[0]["source"] == ClipStore(runs / "long/clips").source


def test_the_same_again_is_kept_with_its_columns_and_another_is_refused(runs):
    mixed = mix(runs, "long", "short", weights=(1, 2))
    mixed.add_column("tokens", np.zeros(mixed.num_frames), {})
    assert "tokens" in mix(runs, "long", "short", weights=(1, 2)).column_names()
    with pytest.raises(OutputError, match="already holds a finished result"):
        mix(runs, "long", "short", weights=(2, 1))
    with pytest.raises(OutputError, match="already holds a finished result"):
        mix(runs, "long", out="short")
    assert mixed.source != mix(runs, "long", "short", out="other").source, "weights decide on what is trained"


def test_runs_may_move_together(runs, tmp_path):
    first = mix(runs, "long", "short").frames(9).copy()
    runs.rename(tmp_path / "moved")
    assert np.array_equal(ClipStore(tmp_path / "moved/mix/clips").frames(9), first)


def test_one_dataset_is_a_mixture_too(runs):
    mixed = mix(runs, "long")
    assert mixed.num_frames == 140 and np.array_equal(
        mixed.frames(2), ClipStore(runs / "long/clips").frames(2)
    )


def test_other_robots_leave_no_labels(runs, make_run):
    other = RobotSpec("crane", ("swing", "lift", "hook"), ("rad",) * 3, (-1.0,) * 3, (1.0,) * 3)
    make_run("crane", robot=other)
    mixed = mix(runs, "long", "crane")
    assert mixed.spec.labels == () and mixed.spec.action_kind == "none" and mixed.spec.robot.num_joints == 0
    assert mixed.column_names() == ["motion"]
    with pytest.raises(DatasetError, match="no column 'action'"):
        mixed.column("action")


@pytest.fixture
def with_bare(runs, make_run) -> ClipStore:
    """Two episodes without commands before and behind eleven with them, and beside one with fewer labels."""
    make_run("bare", **BARE)
    make_run("few", labels=("state", "action", "success"))
    return mix(runs, "bare", "long", "short", "few")


def test_labels_are_those_of_the_parts_with_commands(runs, with_bare, spec):
    assert with_bare.spec == replace(spec, labels=("state", "action", "success"))
    assert [row.labelled for row in with_bare.episodes] == [False] * 2 + [True] * 13
    assert with_bare.select("val", labelled=True) == [8, 12, 14]
    assert with_bare.select(labelled=False) == [0, 1] and len(with_bare.select()) == 15
    assert not (with_bare.path / "columns" / "reward.h5").exists()
    long = ClipStore(runs / "long/clips")
    for label in with_bare.spec.labels:
        values, own = with_bare.column(label), long.column(label)
        assert values.dtype == own.dtype and values.shape[1:] == own.shape[1:]
        assert np.array_equal(values[24 : 24 + long.num_frames], own)
        assert not values[:24].any() if label == "success" else np.isnan(values[:24]).all()


def test_the_labels_come_from_the_first_dataset_that_has_commands(runs, with_bare):
    assert with_bare.spec.labels
    assert label_source(runs / "mix") == (runs / "long/dataset").resolve()
    assert label_source(runs / "bare") == runs / "bare/dataset"
    shutil.rmtree(runs / "long/dataset")
    assert label_source(runs / "mix") == (runs / "short/dataset").resolve()
    assert label_source(runs / "nowhere") is None


def test_only_labelled_episodes_are_in_the_budget(with_bare):
    for seed in range(4):
        chosen = label_budget(with_bare, 1000, seed=seed)
        assert chosen == with_bare.select("train", labelled=True)
    assert held_out_labelled(with_bare) == [8, 12, 14]


def test_labelled_episodes_in_the_wrong_split_are_missed(runs, make_run, make_episode):
    make_run("bare", **BARE)
    make_run("held", [make_episode(3, split="val")])
    make_run("learnt", [make_episode(3)])
    with pytest.raises(DatasetError, match=r"no train episode of .*held/clips has commands.*mix again"):
        label_budget(mix(runs, "bare", "held", out="without_held"), 100)
    with pytest.raises(DatasetError, match=r"no val episode with commands.*mix again"):
        held_out_labelled(mix(runs, "bare", "learnt", out="without_learnt"))


def test_what_compare_reads_of_commands_is_recorded(runs, make_run):
    make_run("bare", **BARE)
    plain, mixed = mix(runs, "long", out="plain"), mix(runs, "bare", "long")
    for name, values in vars(recorded_range(plain)).items():
        assert np.array_equal(values, getattr(recorded_range(mixed), name)), name
    ours, theirs = (held_out_clips(store, "reach", 4, 20) for store in (plain, mixed))
    assert len(ours) == len(theirs) > 0 and np.isfinite(theirs.command).all()
    assert np.array_equal(ours.state, theirs.state)


def test_bare_video_alone_and_differing_commands_get_their_own_sentence(runs, make_run):
    make_run("bare", **BARE)
    make_run("other", action_kind="other")
    bare = mix(runs, "bare", out="only")
    assert bare.spec.labels == () and bare.column_names() == ["motion"]
    with pytest.raises(DatasetError, match="has no commands, so there is no adapter"):
        check_commands(bare, 200)
    with pytest.raises(DatasetError, match=r"the commands of long, other in .* don't mean the same"):
        check_commands(mix(runs, "bare", "long", "other"), 200)
    check_commands(mix(runs, "bare", "long", out="fine"), 200)


def test_an_index_of_before_counts_as_labelled(runs):
    path = mix(runs, "long").path
    index = files.read_index(path)
    for row in index["episodes"]:
        del row["labelled"]
    files.write_index(path, index)
    assert len(ClipStore(path).select(labelled=True)) == 7


def test_labels_are_those_that_all_have_and_limits_the_widest(spec):
    narrow = replace(spec.robot, lower=(-1.0, -4.0, 0.0), upper=(1.0, 4.0, 1.0))
    fewer = replace(spec, robot=narrow, labels=("state", "action"))
    merged = merged_spec([spec, fewer])
    assert merged.labels == ("state", "action") and merged.action_kind == "joint_position"
    assert (merged.robot.lower, merged.robot.upper) == ((-3.0, -4.0, 0.0), (3.0, 4.0, 1.0))
    for change in ({"action_kind": "other"}, {"state_names": ("x", "y", "z")}):
        assert merged_spec([spec, replace(spec, **change)]).labels == ()


def test_cameras_are_those_in_common(runs, make_run):
    make_run("top", cameras=("top", "side"))
    mixed = mix(runs, "long", "top")
    assert mixed.spec.cameras == ("side",)
    assert np.array_equal(mixed.frames(0), ClipStore(runs / "long/clips").frames(0, camera="side"))
    assert np.array_equal(mixed.frames(7), ClipStore(runs / "top/clips").frames(0, camera="side"))
    for episode in (0, 7):  # the motion is that of the camera in common
        row = mixed.episodes[episode]
        expected = frame_motion(mixed.frames(episode))
        assert np.array_equal(mixed.column("motion")[row.start : row.start + row.length], expected)


def test_without_a_common_camera_each_shows_its_first(runs, make_run):
    make_run("top", cameras=("top",))
    mixed = mix(runs, "long", "top")
    assert mixed.spec.cameras == ("view",)
    assert np.array_equal(mixed.frames(1, camera="view"), ClipStore(runs / "long/clips").frames(1))
    assert np.array_equal(mixed.frames(8), ClipStore(runs / "top/clips").frames(1))


def test_a_second_camera_called_view_is_not_taken_for_the_first(runs, make_run):
    make_run("top", cameras=("top", "view"))
    mixed = mix(runs, "long", "top")
    assert mixed.spec.cameras == ("view",)
    top = ClipStore(runs / "top/clips")
    assert np.array_equal(mixed.frames(8), top.frames(1, camera="top"))
    assert (top.frames(1, camera="top") != top.frames(1, camera="view")).any()
    row, own = mixed.episodes[7], top.column("motion")[: top.episodes[0].length]
    assert np.array_equal(mixed.column("motion")[row.start : row.start + row.length], own)


def test_tasks_of_one_name_that_differ_are_told_apart(runs, make_run, spec):
    longer = replace(spec.tasks[0], horizon=99)
    make_run("longer", tasks=(longer, spec.tasks[1]))
    mixed = mix(runs, "long", "longer")
    assert [task.name for task in mixed.spec.tasks] == ["reach", "soft_push", "reach_2"]
    assert mixed.spec.task("reach_2").horizon == 99
    assert len(mixed.select(task="reach")) == 7 and mixed.select(task="reach_2") == [7, 8]


def test_other_sizes_and_rates_are_refused_by_name(runs, make_run):
    make_run("large", size=64)
    with pytest.raises(DatasetError, match=r"long has frames of 32 pixels and large of 64.*size=32"):
        mix(runs, "long", "large")
    make_run("fast", fps=20)
    with pytest.raises(DatasetError, match=r"long runs at 10 frames/s and fast at 20.*fps=10"):
        mix(runs, "long", "fast")
    assert not (runs / "mix" / "clips").exists()


@pytest.mark.parametrize(
    ("data", "weights", "words"),
    [
        ((), None, "names no dataset"),
        (("long",), (1.0, 2.0), "2 numbers for 1 datasets"),
        (("long", "short"), (1.0, 0.0), "numbers above 0"),
        (("long", "short"), (1.0, float("nan")), "numbers above 0"),
        (("long", "runs/long"), None, "more than once"),
        (("long", "mix"), None, "the run that the mixture goes to"),
    ],
)
def test_wrong_keys_are_refused(runs, data, weights, words):
    mix(runs, "long")
    with pytest.raises(ConfigError, match=words):
        mix_clips(MixConfig(data, weights), runs / "mix")


def test_what_cannot_be_mixed_is_named(runs, make_run, make_episode):
    with pytest.raises(DatasetError, match=r"data=absent has no clips.*robosim import"):
        mix(runs, "long", "absent")
    mix(runs, "long", "short", out="first")
    with pytest.raises(DatasetError, match=r"data=first is a mixture itself.*long, short"):
        mix(runs, "first", "short")
    make_run("held", [make_episode(3, split="val")])
    with pytest.raises(DatasetError, match="held has no training episodes"):
        mix(runs, "long", "held", weights=(1, 1))
    assert len(mix(runs, "long", "held").episodes) == 8


def test_a_part_that_is_gone_changed_or_damaged_is_named(runs, make_run):
    mixed = mix(runs, "long", "short")
    shard = runs / "short/clips/frames/front-00000.h5"
    content = shard.read_bytes()
    shard.write_bytes(content[:-100] + bytes(100))
    with pytest.raises(DatasetError, match=r"runs/short/clips/frames/front-00000\.h5 was changed"):
        ClipStore(mixed.path).frames(8)
    shard.write_bytes(content[:-1])
    with pytest.raises(DatasetError, match=r"runs/short/clips/frames/front-00000\.h5 has .* delete .*short"):
        ClipStore(mixed.path)
    shutil.rmtree(runs / "short")
    with pytest.raises(DatasetError, match=r"short, a part of the mixture .*no clip store"):
        ClipStore(mixed.path)
    make_run("short")
    with pytest.raises(DatasetError, match=r"short, a part of the mixture .*was changed since .*mix again"):
        ClipStore(mixed.path)


def test_every_changed_character_of_the_index_is_noticed(runs):
    path = mix(runs, "long", "short", weights=(1, 2)).path / "index.json"
    text = path.read_text()
    for old, new in (
        ('"start": 20', '"start": 21'),
        ('"weight": 2', '"weight": 3'),
        ('"first_frame": 140', '"first_frame": 14'),
    ):
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises(DatasetError, match=r"index\.json was changed since it was written"):
            ClipStore(path.parent)


def shares(store: ClipStore, **options) -> tuple[list[float], torch.Tensor]:
    """The parts' shares of many drawn rows, and the rows' (episode, start)."""
    sampler = ClipSampler(store, store.select("train"), 4, 4096, 5, columns=(), **options)
    drawn = [sampler(step) for step in range(5)]
    clips = torch.cat([torch.stack([batch["episode"], batch["start"]], 1) for batch in drawn])
    ends = np.cumsum([part.episodes for part in store.parts])
    part = np.searchsorted(ends, clips[:, 0].numpy(), side="right")
    return (np.bincount(part) / len(part)).tolist(), clips


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_each_dataset_gives_its_share(runs, bias):
    measured, clips = shares(mix(runs, "long", "short", weights=(1, 4)), motion_bias=bias)
    assert measured == pytest.approx([0.2, 0.8], abs=0.01)
    if bias:
        return
    # Within a part every clip is equally likely: 6 × 17 of `long`, 3 × 9 of `short`.
    _, counts = clips.unique(dim=0, return_counts=True)
    for share, some in ((0.2, counts[:102]), (0.8, counts[102:])):
        expected = 20480 * share / len(some)
        assert ((some - expected) ** 2 / expected).sum() < len(some) + 4 * np.sqrt(2 * len(some))
    assert len(counts) == 129


def test_without_weights_every_clip_is_equally_likely(runs):
    measured, _ = shares(mix(runs, "long", "short"))
    assert measured == pytest.approx([102 / 129, 27 / 129], abs=0.01)


def test_motion_bias_chooses_within_the_part(runs):
    def moved(bias: float) -> float:
        store = mix(runs, "long", "short", weights=(1, 4))
        _, clips = shares(store, motion_bias=bias)
        motion = np.concatenate([[0], np.cumsum(store.column("motion"))])
        first = np.array([store.episodes[e].start for e in clips[:, 0]]) + clips[:, 1].numpy()
        short = clips[:, 0].numpy() >= 7
        return float((motion[first + 3] - motion[first])[short].mean())

    assert moved(1.0) > 1.03 * moved(0.0)


def test_a_weighted_row_depends_on_seed_step_and_place_alone(runs):
    store = mix(runs, "long", "short", weights=(1, 2))
    make = lambda batch: ClipSampler(store, store.select("train"), 4, batch, 3, motion_bias=0.5)  # noqa: E731
    small, large = make(1), make(8)
    for step in range(8):
        for name, values in small(step).items():
            assert torch.equal(values[0], large(step)[name][0]), name
    part = large(5, slice(2, 5))
    assert all(torch.equal(part[name], values[2:5]) for name, values in large(5).items())


def test_a_mixture_of_one_with_a_weight_draws_what_its_dataset_draws(runs):
    own, mixed = ClipStore(runs / "long/clips"), mix(runs, "long", weights=(3,))
    one, other = (
        ClipSampler(store, store.select("train"), 4, 16, 3, motion_bias=0.5)(2) for store in (own, mixed)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_weighted_dataset_of_short_episodes_is_named(runs):
    store = mix(runs, "long", "short", weights=(1, 1))
    with pytest.raises(DatasetError, match=r"short has a weight.*clips of 15 frames"):
        ClipSampler(store, store.select("train"), 15, 4, 0)
    long_only = [episode for episode in store.select("train") if episode < 7]
    assert ClipSampler(store, long_only, 15, 4, 0).num_clips == 6 * 6
    unweighted = mix(runs, "long", "short", out="equal")
    assert ClipSampler(unweighted, unweighted.select("train"), 15, 4, 0).num_clips == 6 * 6
