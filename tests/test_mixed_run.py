"""A large set of bare video and a few episodes with commands, mixed: the adapter learns from the few alone."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from robosim_datasets.clip_store import ClipStore
from robosim_datasets.mixture import MixConfig, mix_clips
from robosim_datasets.sampler import ClipSampler
from robosim_datasets.splits import label_budget

import robosim
from robosim import pipeline
from robosim.checkpoint import load_tensors
from robosim.errors import ConfigError, DatasetError
from robosim.evaluation.jobs import dataset_renderer
from robosim.spec import LABELS
from robosim.stage_runner import flatten
from robosim.training.adapt import adapt
from robosim.viewer.play.session import PlaySession
from tests.imported_run import ADAPT, write_imported_clips, write_trained


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """A trained run: eight episodes of bare video, then eight with commands, then eight bare ones."""
    runs = tmp_path_factory.mktemp("mixed")
    for name, kind in (("bare", "video"), ("arm", "joints"), ("more", "video")):
        write_imported_clips(runs / name, kind)
    mix_clips(MixConfig((str(runs / "bare"), str(runs / "arm"), str(runs / "more"))), runs / "run")
    return write_trained(runs / "run")


@pytest.fixture(scope="module")
def figures(mixed: Path) -> dict:
    return adapt(ADAPT, mixed, seed=0)


def test_the_adapter_learns_from_the_labelled_episodes_alone(mixed: Path, figures):
    flat = flatten(figures)
    assert flat["labels"] == 55 and flat["episodes"] == 5
    assert all(math.isfinite(value) for value in flat.values())
    weights = load_tensors(mixed / "adapter" / "adapter.safetensors")
    assert all(value.isfinite().all() for value in weights.values() if value.is_floating_point())
    assert set(label_budget(ClipStore(mixed / "clips"), 60)) <= set(range(8, 14))


def test_what_drew_the_video_is_read_of_the_labelled_part(mixed: Path, tmp_path):
    shutil.copytree(mixed.parent, tmp_path / "runs")
    written = tmp_path / "runs/arm/dataset/meta/robosim.json"
    about = json.loads(written.read_text())
    del about["sha256"]  # as in datasets of the first versions
    about["provenance"]["renderer"] = {"kind": "opengl"}
    written.write_text(json.dumps(about))
    assert dataset_renderer(tmp_path / "runs/run") == "opengl"
    assert robosim.load(tmp_path / "runs/run", device="cpu").renderer == "opengl"


def test_what_lies_in_the_other_rows_changes_nothing(mixed: Path, figures, monkeypatch):
    before, column = load_tensors(mixed / "adapter" / "adapter.safetensors"), ClipStore.column
    bare = np.repeat([not row.labelled for row in ClipStore(mixed / "clips").episodes], 12)
    assert bare.sum() == 16 * 12

    def garbage(self: ClipStore, name: str) -> np.ndarray:
        values = column(self, name)
        if name not in LABELS:
            return values
        values = values.copy()
        assert np.isnan(values[bare]).all() and np.isfinite(values[~bare]).all()
        values[bare] = 1e6
        return values

    monkeypatch.setattr(ClipStore, "column", garbage)
    assert flatten(adapt(ADAPT, mixed, seed=0)) == flatten(figures)
    after = load_tensors(mixed / "adapter" / "adapter.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_training_the_world_model_opens_no_label(mixed: Path, tmp_path):
    shutil.copytree(mixed.parent, tmp_path / "runs")
    for label in ("state", "action"):
        (tmp_path / "runs/run/clips/columns" / f"{label}.h5").unlink()
    store = ClipStore(tmp_path / "runs/run/clips")
    columns = ("frames", "tokens", "latent_action")
    batch = ClipSampler(store, store.select("train"), 4, 64, 0, columns=columns)(0)
    assert set((batch["episode"] // 8).tolist()) == {0, 1, 2}
    assert batch["latent_action"].isfinite().all()


def test_it_is_played_from_every_episode(mixed: Path, figures, tmp_path):
    play = PlaySession(robosim.load(mixed, device="cpu"), tmp_path)
    store = ClipStore(mixed / "clips")
    assert play.has_commands
    for episode in (3, 12, 20):
        view = play.start_from_dataset(episode, 4)
        assert np.isfinite(view.joints).all() and np.isfinite(view.command).all()
        row = store.episodes[episode]
        assert row.labelled == np.array_equal(view.joints, store.column("state")[row.start + 4])
        assert np.isfinite(play.command(view.command + 1.0).joints).all()


def test_without_a_held_out_labelled_episode_one_sentence_says_so(tmp_path):
    write_imported_clips(tmp_path / "bare", "video")
    write_imported_clips(tmp_path / "arm", "joints", held_out=0)
    mix_clips(MixConfig((str(tmp_path / "bare"), str(tmp_path / "arm"))), tmp_path / "run")
    with pytest.raises(DatasetError, match=r"no val episode with commands .* val_fraction .*mix again"):
        adapt(ADAPT, tmp_path / "run", seed=0)


def test_commands_that_mean_different_things_are_named(tmp_path):
    for name, kind in (("bare", "video"), ("arm", "joints"), ("tool", "motions")):
        write_imported_clips(tmp_path / name, kind)
    mix_clips(MixConfig(tuple(str(tmp_path / name) for name in ("bare", "arm", "tool"))), tmp_path / "run")
    with pytest.raises(DatasetError) as error:
        adapt(ADAPT, tmp_path / "run", seed=0)
    sentence = str(error.value)
    for words in (
        "commands of arm, tool in",
        "don't mean the same",
        "several arms",
        "data=",
        "robosim play run=",
    ):
        assert words in sentence
    assert "\n" not in sentence


class Stop(Exception):
    pass


@pytest.fixture
def train(tmp_path, monkeypatch) -> Callable[..., None]:
    """`robosim train` up to the mixture."""
    run_stage = pipeline.run_stage

    def only_mixing(request, *rest):
        if request.stage is not pipeline.MIX:
            raise Stop
        return run_stage(request, *rest)

    def command(*overrides: str) -> None:
        pipeline.run_command("train", ["stage=tokenizer", f"out={tmp_path / 'run'}", *overrides])

    monkeypatch.setattr(pipeline, "run_stage", only_mixing)
    return command


def test_another_seed_of_training_keeps_the_mixture(tmp_path, train):
    write_imported_clips(tmp_path / "bare", "video")
    for seed in (0, 1):
        with pytest.raises(Stop):
            train(f"data=[{tmp_path / 'bare'}]", f"seed={seed}")
        store = ClipStore(tmp_path / "run/clips")
        if seed == 0:
            store.add_column("tokens", np.zeros(store.num_frames), {})
    assert "tokens" in store.column_names()
    assert not list((tmp_path / "run").glob("*.old"))


@pytest.mark.parametrize(
    "override, words", [("weights=[1,2]", "weights= needs data="), ("data=[]", "names no dataset")]
)
def test_weights_of_nothing_are_refused(tmp_path, train, override, words):
    with pytest.raises(ConfigError, match=words):
        train(override)
    assert not (tmp_path / "run").exists()
