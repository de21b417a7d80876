"""`init=`: training from another simulator's weights, told by the weights, the manifests and the steps taken."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from robosim_datasets.clip_store import ClipStore

import robosim
from robosim import shipped
from robosim.checkpoint import MANIFEST, atomic_write_json, finish_stage, load_tensors, read_json
from robosim.config import compose_tree
from robosim.errors import CheckpointError, ConfigError
from robosim.shipped import weights_hash
from robosim.stage_runner import Request, run_stage
from robosim.stage_table import BY_NAME
from robosim.training import loop
from robosim.training.loop import TrainConfig
from robosim.training.stages import DynamicsTraining, LatentActionTraining, TokenizerTraining, median_frame
from robosim.world_model.dynamics import DynamicsConfig
from robosim.world_model.latent_action import LatentActionConfig
from robosim.world_model.st_transformer import STConfig
from robosim.world_model.tokenizer import TokenizerConfig
from tests.training import test_no_action_leak
from tests.training.test_no_action_leak import make_run

FEW = TrainConfig(steps=2, batch=4, tensorboard=False)
NONE = replace(FEW, steps=0)
TRAINING = {
    "tokenizer": TokenizerTraining(TokenizerConfig(channels=8, quantiser="vq", codes=16, code_dim=4), FEW),
    "latent_action": LatentActionTraining(LatentActionConfig(channels=8, blocks=1), FEW),
    "dynamics": DynamicsTraining(
        DynamicsConfig(STConfig(dim=16, heads=2, layers=1, window=4)),
        FEW,
        clip_length=6,
        context=2,
        horizon=6,
    ),
}
PARTS = tuple(TRAINING)


def train_stage(run: Path, name: str, **changes) -> bool:
    request = Request(BY_NAME[name], run, replace(TRAINING[name], **changes), 0, "cpu", True)
    return run_stage(request, BY_NAME, name)


def weights(run: Path, part: str) -> dict[str, torch.Tensor]:
    return load_tensors(run / part / "model.safetensors")


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], but: tuple[str, ...] = ()) -> bool:
    assert left.keys() == right.keys()
    return all(torch.equal(left[name], right[name]) for name in left if name not in but)


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    """A finished run."""
    run = tmp_path_factory.mktemp("first") / "run"
    make_run(run)
    finish_stage(run / "dataset", "collect", {}, {}, 1.0, {})
    for name in PARTS:
        train_stage(run, name)
    return run


@pytest.fixture(scope="module")
def other_clips(tmp_path_factory) -> Path:
    """Other video of the same size: another background."""
    run = tmp_path_factory.mktemp("second")
    true_episode = test_no_action_leak.episode

    def darker(seed: int, split: str):
        made = true_episode(seed + 10, split)
        made.frames["front"][:, 20:] = 10
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_no_action_leak, "episode", darker)
        make_run(run)
    finish_stage(run / "dataset", "collect", {}, {}, 1.0, {})
    return run


@pytest.fixture
def run(other_clips: Path, tmp_path: Path) -> Path:
    """A run folder with that video and nothing else."""
    return Path(shutil.copytree(other_clips, tmp_path / "run"))


@pytest.fixture
def steps(monkeypatch) -> list[int]:
    """The steps that are taken."""
    taken: list[int] = []
    step = loop.train_step
    monkeypatch.setattr(loop, "train_step", lambda *given: (taken.append(given[4]), step(*given))[1])
    return taken


def test_without_a_step_the_weights_are_adopted_as_they_are(first, run, steps):
    for name in PARTS:
        train_stage(run, name, init=str(first), train=NONE)
    assert not steps
    # What is made from this run's own video.
    own = {"tokenizer": ("background",), "latent_action": ("playable",), "dynamics": ()}
    for name in PARTS:
        assert same(weights(run, name), weights(first, name), own[name]), name
    store = ClipStore(run / "clips")
    background = median_frame(store, store.select(split="train"))
    assert torch.equal(weights(run, "tokenizer")["background"], background)
    assert not torch.equal(weights(first, "tokenizer")["background"], background)
    figures = {name: read_json(run / name / MANIFEST)["figures"] for name in PARTS}
    assert all(made["train"] == {} and made["init"] == "run" for made in figures.values())
    assert np.isfinite(figures["tokenizer"]["psnr_db"]) and np.isfinite(figures["dynamics"]["delta_psnr_db"])
    assert set(store.column_names()) >= {"tokens", "latent_action"}
    assert "draft" not in store.column_names(), "no training has read them"
    robosim.load(run, device="cpu").reset()


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("name", ["tokenizer", "latent_action"])
def test_training_begins_at_the_weights(first, run, monkeypatch, name, ema):
    """Told by the weights before the first step, not by those after it."""
    begun = []
    real = loop.make_optimiser

    def watch(module, config):
        begun.append({key: value.clone() for key, value in module.state_dict().items()})
        return real(module, config)

    monkeypatch.setattr(loop, "make_optimiser", watch)
    if name == "latent_action":
        train_stage(run, "tokenizer")
        begun.clear()
    train_stage(run, name, init=str(first), train=replace(FEW, ema=ema))
    assert same(begun[0], weights(first, name), ("background",))
    assert not same(weights(run, name), weights(first, name), ("background", "playable"))


def test_other_weights_at_init_make_the_part_again(first, run, tmp_path, steps):
    """And the same ones elsewhere don't; nor does a run without init= ever take them for its own."""
    init = Path(shutil.copytree(first, tmp_path / "init"))
    assert train_stage(run, "tokenizer", init=str(init))
    manifest = read_json(run / "tokenizer" / MANIFEST)
    assert manifest["inputs"]["init"] == weights_hash(init, "tokenizer")
    assert "init" not in manifest["config"]
    assert not train_stage(run, "tokenizer", init=str(first))
    assert len(steps) == 2
    shutil.copytree(run / "tokenizer", init / "tokenizer", dirs_exist_ok=True)
    before = weights(run, "tokenizer")
    assert train_stage(run, "tokenizer", init=str(init))
    assert len(steps) == 4 and not same(weights(run, "tokenizer"), before)
    assert train_stage(run, "tokenizer")
    assert len(steps) == 6 and "init" not in read_json(run / "tokenizer" / MANIFEST)["inputs"]


def test_a_later_stage_notices_that_its_part_began_elsewhere(first, run):
    train_stage(run, "tokenizer", init=str(first))
    train_stage(run, "latent_action")
    train_stage(run, "tokenizer")
    with pytest.raises(CheckpointError, match=r"latent_action in .* was made from an earlier tokenizer"):
        train_stage(run, "dynamics")


def test_an_interrupted_training_goes_on_only_from_the_same_weights(first, run, tmp_path, steps, monkeypatch):
    init = Path(shutil.copytree(first, tmp_path / "init"))
    many = replace(FEW, steps=4, save_every=2)

    class Stop(Exception):
        pass

    real = loop.train_step

    def stop(*given):
        if given[4] == 3:
            raise Stop
        return real(*given)

    def interrupted() -> None:
        with monkeypatch.context() as broken, pytest.raises(Stop):
            broken.setattr(loop, "train_step", stop)
            train_stage(run, "tokenizer", init=str(init), train=many)

    interrupted()
    assert train_stage(run, "tokenizer", init=str(init), train=many)
    assert steps == [0, 1, 2, 2, 3]
    shutil.rmtree(run / "tokenizer")
    steps.clear()
    interrupted()
    shutil.copytree(first / "tokenizer", init / "tokenizer", dirs_exist_ok=True)
    (init / "tokenizer" / "model.json").write_text((init / "tokenizer" / "model.json").read_text() + "\n")
    assert train_stage(run, "tokenizer", init=str(init), train=many)
    assert steps == [0, 1, 2, 0, 1, 2, 3]


def test_a_shipped_simulator_of_half_precision_is_a_start(first, run, tmp_path, monkeypatch):
    robosim.load(first, device="cpu").save(tmp_path / "shelf" / "toy", precision="bfloat16")
    (tmp_path / "shelf" / "toy" / "card.json").write_text("{}")
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "shelf")
    monkeypatch.chdir(tmp_path)
    train_stage(run, "tokenizer", init="toy", train=NONE)
    adopted, kept = weights(run, "tokenizer"), weights(first, "tokenizer")
    assert {value.dtype for value in adopted.values()} == {torch.float32}
    assert torch.equal(adopted["quantiser.codebook"], kept["quantiser.codebook"])
    name = next(name for name in adopted if name.startswith("encoder.") and adopted[name].ndim > 1)
    assert torch.equal(adopted[name], kept[name].bfloat16().float())
    assert read_json(run / "tokenizer" / MANIFEST)["figures"]["init"] == "toy"


def test_a_model_made_otherwise_is_refused_with_the_keys_that_differ(first, run, steps):
    wrong = replace(TRAINING["tokenizer"].model, channels=16, patch=4, augment=0.5)
    with pytest.raises(
        ConfigError,
        match=r"its tokenizer is made otherwise: patch 8 \(here 4\), channels 8 \(here 16\);",
    ):
        train_stage(run, "tokenizer", init=str(first), model=wrong)
    train_stage(run, "tokenizer")
    with pytest.raises(ConfigError, match="channels 8"):
        train_stage(run, "tokenizer", init=str(first), model=wrong)
    assert (run / "tokenizer" / MANIFEST).exists(), "the earlier result stays in its place"
    train_stage(run, "latent_action")
    steps.clear()
    deeper = DynamicsConfig(STConfig(dim=16, heads=2, layers=2, window=4))
    with pytest.raises(ConfigError, match=r"transformer\.layers 1 \(here 2\)"):
        train_stage(run, "dynamics", init=str(first), model=deeper)
    assert not steps


def test_another_way_of_training_is_no_other_model(first, run):
    train_stage(run, "tokenizer", init=str(first), train=NONE)
    model = replace(TRAINING["latent_action"].model, chain=True, moving_weight=1.0)
    train_stage(run, "latent_action", init=str(first), train=NONE, model=model)
    adopted, kept = weights(run, "latent_action"), weights(first, "latent_action")
    assert same(adopted, kept, but=("playable",))


def test_a_dynamics_of_another_vocabulary_is_refused(first, run, steps):
    other = replace(TRAINING["tokenizer"].model, codes=32)
    train_stage(run, "tokenizer", model=other)
    train_stage(run, "latent_action")
    steps.clear()
    with pytest.raises(ConfigError, match=r"tensors of its dynamics don't fit here .*the same init="):
        train_stage(run, "dynamics", init=str(first))
    assert not steps


def test_weights_for_frames_of_another_size_are_refused(first, run, tmp_path, steps):
    init = Path(shutil.copytree(first, tmp_path / "init"))
    description = read_json(init / "tokenizer" / "model.json")
    atomic_write_json(init / "tokenizer" / "model.json", description | {"size": 64})
    with pytest.raises(ConfigError, match="is for frames of 64 px, this video has 32 px"):
        train_stage(run, "tokenizer", init=str(init))
    assert not steps


def test_starts_that_are_none_get_a_sentence(first, run, tmp_path, monkeypatch, steps):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"tokenizer\.train\.steps=0 trains nothing.*init=NAME"):
        train_stage(run, "tokenizer", train=NONE)
    with pytest.raises(CheckpointError, match="no folder tinny, and no shipped simulator"):
        train_stage(run, "tokenizer", init="tinny")
    half = Path(shutil.copytree(first, tmp_path / "half", ignore=shutil.ignore_patterns("tokenizer")))
    with pytest.raises(CheckpointError, match=r"half has no finished tokenizer \(.*safetensors is missing\)"):
        train_stage(run, "tokenizer", init=str(half))
    with pytest.raises(ConfigError, match="is the run that this stage writes to"):
        train_stage(run, "tokenizer", init=str(run))
    assert not steps and not (run / "tokenizer" / MANIFEST).exists()


def test_one_key_starts_the_part_that_is_trained():
    tree = compose_tree("train", ["init=tiny", "dynamics.init=runs/mine"])
    assert [tree[part]["init"] for part in PARTS] == ["tiny", "tiny", "runs/mine"]
    assert all(compose_tree("train")[part]["init"] is None for part in PARTS)
