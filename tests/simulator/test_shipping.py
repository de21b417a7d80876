"""`robosim ship`: what it writes, what it refuses, and that its folder opens by name."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import robosim
from robosim.checkpoint import (
    MANIFEST,
    atomic_write_json,
    finish_stage,
    load_tensors,
    read_json,
    save_tensors,
)
from robosim.cli import main
from robosim.errors import CheckpointError, ConfigError, OutputError
from robosim.evaluation.card import training_of
from robosim.evaluation.shipping import ShipConfig, ship
from robosim.shipped import CARD, is_shipped, locate
from robosim.simulator import Simulator
from robosim.stage_runner import Request, run_stage
from robosim.stage_table import BY_NAME
from robosim.training.loop import TrainConfig
from robosim.training.stages import DynamicsTraining, LatentActionTraining, TokenizerTraining
from robosim.world_model.dynamics import DynamicsConfig
from robosim.world_model.latent_action import LatentActionConfig
from robosim.world_model.st_transformer import STConfig
from robosim.world_model.tokenizer import TokenizerConfig
from robosim.world_model.world import WorldModel, seeded_generators
from tests.simulator.test_shipped import check_drives, check_shipped
from tests.training.test_no_action_leak import make_run
from tests.world_model.conftest import make_world

FEW = TrainConfig(steps=2, batch=4, tensorboard=False)
TRAINING = {
    "tokenizer": TokenizerTraining(TokenizerConfig(channels=8), FEW),
    "latent_action": LatentActionTraining(LatentActionConfig(channels=8, blocks=1), FEW),
    "dynamics": DynamicsTraining(
        DynamicsConfig(STConfig(dim=16, heads=2, layers=1, window=4)),
        FEW,
        clip_length=6,
        context=2,
        horizon=6,
    ),
}


def train_stage(run: Path, name: str, seed: int = 0, **changes) -> bool:
    config = replace(TRAINING[name], **changes)
    return run_stage(Request(BY_NAME[name], run, config, seed, "cpu", True), BY_NAME, name)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run with the manifests of its stages, as `robosim train` leaves them."""
    run = tmp_path_factory.mktemp("trained") / "run"
    make_run(run)
    recipe = {"tasks": ["reach"], "seed": 7, "task_file": "/home/someone/tasks/mine.py"}
    finish_stage(run / "dataset", "collect", recipe, {}, 12.5, {})
    for name in TRAINING:
        train_stage(run, name)
    return run


@pytest.fixture(scope="module")
def shipped(trained, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("shipped") / "toy"
    ship(trained, out, ShipConfig(run=str(trained), limits=("One camera.",)))
    return out


# ---- half precision


@torch.no_grad()
def shown(world: WorldModel) -> dict[str, torch.Tensor]:
    """What every part of a world model makes of the same frames, tokens and latent actions.

    All of it is continuous in the weights. A rollout isn't: its frames come from tokens, and of random weights the
    least change, even that from one processor to another, flips those which stand on an edge.
    """
    generator = torch.Generator().manual_seed(0)
    tokenizer, rows = world.tokenizer, 4
    clips = torch.randint(0, 256, (rows, 5, world.size, world.size, 3), generator=generator).to(torch.uint8)
    tokens = torch.randint(0, tokenizer.num_codes, (rows, 5, tokenizer.num_tokens), generator=generator)
    latents = torch.rand(rows, 4, world.latent_dim, generator=generator) * 3 - 1.5
    state = world.start_tokens(tokens[:, :4], latents, seeded_generators(range(rows)))
    draft = world.draft(state, latents[:, 3])
    assert draft is not None
    hidden = torch.arange(tokenizer.num_tokens).expand(rows, -1) % 2 == 0
    has_past = torch.ones(rows, dtype=torch.bool)
    present = tokens[:, 4], hidden, latents[:, 3], draft, has_past, state.cache
    return {
        "features": tokenizer.features_next(clips[:, 0], tokenizer.new_state(rows), commit=False),
        "decoded": tokenizer.decode_clips(tokens),
        "latents": world.infer_latents(clips),
        "predicted": world.latent_action.predict(clips[:, 0].float() / 255, latents[:, 0]),
        "draft": draft,
        "logits": torch.cat(world.dynamics.step(*present, commit=False), -1),
    }


def rms(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt())


@pytest.mark.parametrize("quantiser", ["fsq", "vq"])
def test_half_precision_halves_the_weights_and_keeps_what_they_show(loaded, tmp_path, quantiser):
    world = make_world(size=loaded.size, quantiser=quantiser)
    sim = Simulator(world, loaded.spec, loaded.bundle, starts=loaded.starts)
    sim.save(tmp_path / "full")
    sim.save(tmp_path / "half", precision="bfloat16")
    again = robosim.load(tmp_path / "half", device="cpu").world
    for part in ("tokenizer", "latent_action", "dynamics"):
        model, opened = getattr(world, part), getattr(again, part)
        full, half = (tmp_path / name / part / "model.safetensors" for name in ("full", "half"))
        weights = sum(value.numel() for value in model.parameters())
        saved = full.stat().st_size - half.stat().st_size
        assert saved == pytest.approx(2 * weights, rel=0.02), part
        stored, held = load_tensors(half), opened.state_dict()
        for name, value in model.named_parameters():
            assert stored[name].dtype == torch.bfloat16
            assert torch.equal(stored[name], value.bfloat16())
            assert held[name].dtype == torch.float32 and torch.equal(held[name], value.bfloat16().float())
        for name, value in model.named_buffers():
            assert name not in stored or torch.equal(stored[name], value), name
            assert name not in held or torch.equal(held[name], value), name
    adapters = [(tmp_path / name / "adapter/adapter.safetensors").read_bytes() for name in ("full", "half")]
    assert adapters[0] == adapters[1]
    # bfloat16 has 8 significant bits, 0.4 % a weight, some layers deep: 0.5 to 1.8 %. With 4 bits it is 7 % and more.
    full, half = shown(world), shown(again)
    for name, value in full.items():
        assert 1e-3 < rms(value - half[name]) / float(value.std()) < 0.04, name


def test_a_precision_that_is_none_is_refused(loaded, tmp_path):
    with pytest.raises(ConfigError, match=r"unknown precision 'float16'.*float32, bfloat16"):
        loaded.save(tmp_path / "arm", precision="float16")
    assert not (tmp_path / "arm").exists()


# ---- names


def put_on(shelf: Path, folder: Path, name: str) -> Path:
    return Path(shutil.copytree(folder, shelf / name))


def test_a_shipped_name_opens_without_a_run(shelf, shipped):
    put_on(shelf, shipped, "toy")
    sim = robosim.load("toy", device="cpu")
    assert sim.name == "toy" and sim.clips is None
    before = sim.reset()
    assert (sim.press(1).frame != before.frame).any()


def test_a_folder_of_the_users_goes_first(shelf, shipped, run):
    put_on(shelf, shipped, "toy")
    Path("toy").symlink_to(run)
    assert robosim.load("toy", device="cpu").name == run.name
    assert locate("./toy") == Path("toy") and not is_shipped(Path("toy"))


def test_an_unknown_name_says_what_is_shipped(shelf, shipped):
    with pytest.raises(CheckpointError, match=r"no folder tiny.*none is shipped.*robosim demo out=runs/tiny"):
        robosim.load("tiny")
    put_on(shelf, shipped, "toy")
    put_on(shelf, shipped, "unfinished")
    (shelf / "unfinished" / CARD).unlink()
    with pytest.raises(CheckpointError, match=r"shipped are: toy\)"):
        robosim.load("tiny")
    with pytest.raises(CheckpointError, match="there is no folder runs/toy; train"):
        robosim.load("runs/toy")


# ---- the command


def test_what_is_shipped_keeps_its_promises(shipped):
    check_shipped(shipped)


def test_one_with_an_adapter_takes_joint_commands(run, shelf):
    ship(run, shelf / "arm", ShipConfig(run=str(run), name="arm"))
    check_shipped(shelf / "arm")
    check_drives(robosim.load("arm", device="cpu"))


def test_a_changed_byte_and_a_worse_prediction_are_seen(shipped, tmp_path):
    folder = Path(shutil.copytree(shipped, tmp_path / "toy"))
    card = read_json(folder / CARD)
    card["check"]["one_step_psnr_db"] += 0.2
    atomic_write_json(folder / CARD, card)
    with pytest.raises(AssertionError):
        check_shipped(folder)
    folder = Path(shutil.copytree(shipped, tmp_path / "other"))
    (folder / "starts.npz").write_bytes((folder / "starts.npz").read_bytes()[:-1] + b"x")
    with pytest.raises(AssertionError, match=r"starts\.npz"):
        check_shipped(folder)


def test_the_card_says_how_it_was_made(shipped, trained):
    card = read_json(shipped / CARD)
    assert card["name"] == "toy" and card["precision"] == "bfloat16" and card["limits"] == ["One camera."]
    data = card["data"]
    assert (data["made_by"], data["config"]["seed"], data["wall_seconds"]) == ("collect", 7, 12.5)
    assert data["config"]["task_file"] == "mine.py"
    assert data["episodes"] == {"train": 4, "val": 2} and data["frames"] == 72
    assert data["episodes_by_task"] == {"reach": {"train": 4, "val": 2}}
    for name in TRAINING:
        manifest = read_json(trained / name / MANIFEST)
        of = card["training"][name]
        assert of["config"] == manifest["config"]
        assert (of["seed"], of["steps"], of["init"]) == (0, 2, None)
        assert of["wall_seconds"] == manifest["wall_seconds"]
        assert card["parameters"][name] == manifest["figures"]["parameters"]
        assert card["hardware"]["trained_on"][name] == "1 × CPU"
    figures = read_json(trained / "dynamics" / MANIFEST)["figures"]
    assert card["held_out"]["dynamics"]["psnr_db"] == figures["psnr_db"]
    assert "train" not in card["held_out"]["dynamics"]
    assert card["hardware"]["shipped_on"]["cores"] >= 1


def test_parts_that_were_taken_as_they_are_keep_their_record(shelf, shipped, trained, tmp_path):
    run, first = Path(shutil.copytree(trained, tmp_path / "run")), put_on(shelf, shipped, "toy")
    for name in TRAINING:
        shutil.rmtree(run / name)
        train_stage(run, name, init="toy", train=replace(FEW, steps=0))
    card = ship(run, tmp_path / "again", ShipConfig(run=str(run)))
    for name in TRAINING:
        known = read_json(first / CARD)
        source = {"taken_from": f"toy of {known['date']}"}
        assert card["training"][name] == known["training"][name] | source
    other = first / "dynamics/model.safetensors"
    tensors = load_tensors(other)
    save_tensors(other, {key: value + 1 for key, value in tensors.items()})
    changed = ship(run, tmp_path / "changed", ShipConfig(run=str(run)))["training"]
    assert "taken_from" in changed["tokenizer"] and "taken_from" not in changed["dynamics"]
    shutil.rmtree(first)
    gone = ship(run, tmp_path / "gone", ShipConfig(run=str(run)))["training"]["dynamics"]
    assert (gone["init"], gone["steps"], "taken_from" in gone) == ("toy", 0, False)


def test_what_the_run_does_not_say_is_null(shipped, run, tmp_path):
    card = read_json(shipped / CARD)
    assert card["evaluation"] is None and card["held_out"]["adapt"] is None
    assert card["hardware"]["reported_on"] is None and card["hardware"]["trained_on"]["adapt"] is None
    bare = ship(run, tmp_path / "bare", ShipConfig(run=str(run), name="arm"))
    assert bare["name"] == "arm" and "adapter/adapter.safetensors" in bare["files"]
    assert bare["data"]["config"] is None and bare["data"]["episodes"] == {"train": 2, "val": 2}
    assert all(value is None for of in bare["training"].values() for value in of.values())
    assert all(value is None for value in bare["held_out"].values())


def test_a_card_has_the_evaluation_of_all_tasks_together(trained, tmp_path):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    (run / "evaluation").mkdir()
    figures = {"psnr": {"1": {"value": 19.98765, "low": None, "episodes": 12345}}}
    measured = {
        "command": f"robosim evaluate run={run} clips=8",
        "data": str(run),
        "pooled": figures | {"moving_psnr_gain_db": {"latent_ceiling": figures}},
        "tasks": {"reach": figures},
    }
    (run / "evaluation/evaluation.json").write_text(json.dumps(measured))
    card = ship(run, tmp_path / "toy", ShipConfig(run=str(run)))
    shown = {"psnr": {"1": {"value": 19.99, "low": None}}}
    command = "robosim evaluate run=run clips=8"
    assert card["evaluation"] == {"command": command, "data": "run", "pooled": shown}


def test_starts_are_counted_by_task(trained, tmp_path):
    ship(trained, tmp_path / "one", ShipConfig(run=str(trained), starts=1))
    assert len(robosim.load(tmp_path / "one", device="cpu").starts) == 1


def test_one_that_is_too_large_leaves_nothing(trained, tmp_path):
    out = tmp_path / "toy"
    with pytest.raises(OutputError, match=r"MB, more than most_mb=0\.01.*nothing was written"):
        ship(trained, out, ShipConfig(run=str(trained), most_mb=0.01))
    assert list(tmp_path.iterdir()) == []


def test_the_size_that_counts_is_that_of_the_weights(trained, tmp_path):
    card = ship(trained, tmp_path / "toy", ShipConfig(run=str(trained)))
    weights = card["weight_bytes"] / 1e6
    assert weights < card["total_bytes"] / 1e6
    ship(trained, tmp_path / "again", ShipConfig(run=str(trained), most_mb=weights))
    with pytest.raises(OutputError, match="more than most_mb"):
        ship(trained, tmp_path / "less", ShipConfig(run=str(trained), most_mb=weights - 1e-6))


def test_stale_figures_are_refused(trained, tmp_path):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    train_stage(run, "latent_action", seed=1)
    with pytest.raises(CheckpointError, match=r"dynamics in .* was made from an earlier latent_action"):
        ship(run, tmp_path / "toy", ShipConfig(run=str(run)))
    run = Path(shutil.copytree(trained, tmp_path / "other"))
    shutil.copy(tmp_path / "run/latent_action/model.safetensors", run / "latent_action/model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing or was changed"):
        ship(run, tmp_path / "toy", ShipConfig(run=str(run)))
    assert not (tmp_path / "toy").exists()


def test_only_a_run_with_its_video_is_shipped(shipped, tmp_path):
    with pytest.raises(CheckpointError, match="has no clips/: a saved simulator can't be shipped again"):
        ship(shipped, tmp_path / "toy", ShipConfig(run=str(shipped)))


@pytest.mark.parametrize(
    ("override", "words"),
    [("starts=0", "starts must be"), ("most_mb=0", "most_mb above 0"), ("name=a/b", "name='a/b' can't be")],
)
def test_values_that_make_no_sense_are_refused(capsys, override, words):
    assert main(["ship", "run=x", override]) == 2
    assert words in capsys.readouterr().err


def test_the_command_names_what_it_made(trained, shelf, capsys):
    assert main(["ship"]) == 2
    assert "run is empty" in capsys.readouterr().err
    assert main(["ship", f"run={trained}", "out=made/toy", "limits=[one camera]"]) == 0
    shown = capsys.readouterr().out
    assert "made made/toy: 10 files" in shown and "next: robosim play run=made/toy" in shown
    assert "dB as shipped" in shown and "no limits" not in shown and "null" not in shown
    check_shipped(Path("made/toy"))
    assert main(["ship", f"run={trained}", "out=made/toy"]) == 5
    assert "already holds a finished result" in capsys.readouterr().err


def test_the_card_says_whose_maps_an_adapter_has():
    """Its probe and judge are the run's, so that it isn't a part that was taken as it is."""
    figures = {"init": "tiny", "maps_from": "tiny", "labels": 196}
    config = {"labels": 200, "seed": 0, "init": "tiny"}
    manifest = {"config": config, "wall_seconds": 9.0, "inputs": {"init": "hash"}, "figures": figures}
    told = training_of("adapt", manifest)
    assert told["init"] == told["maps_from"] == "tiny" and told["init_sha256"] == "hash"
    assert "taken_from" not in told and told["config"]["labels"] == 200
    own = training_of("adapt", manifest | {"figures": {"labels": 196}, "inputs": {}})
    assert own["init"] is None and "maps_from" not in own
