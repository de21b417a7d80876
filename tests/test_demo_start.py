"""Where the demo's simulator begins: which weights are taken, what wins, and what is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import robosim
from robosim import pipeline, shipped, stage_runner
from robosim.adapter import save_adapter
from robosim.checkpoint import MANIFEST, atomic_write_json, load_tensors, prepare_folder, read_json
from robosim.cli import main
from robosim.config import build, compose_tree, to_dict
from robosim.demo_start import STEPS, Start, choose_start
from robosim.evaluation.shipping import ShipConfig, ship
from robosim.spec import RobotSpec
from robosim.stage_runner import Request, load
from robosim.stage_table import BY_NAME
from tests.toy_run import make_toy_bundle

QUICK = ["device=cpu", "data=few"]

EIGHT = RobotSpec("eight", tuple(f"joint{i}" for i in range(8)), ("rad",) * 8, (-1.0,) * 8, (1.0,) * 8)
"""An arm that the toy adapter fits."""


@pytest.fixture
def tiny(shelf: Path) -> Path:
    """A shipped `tiny`: descriptions as the preset has them, a card, and bytes for weights."""
    tree = compose_tree("train", ["model=tiny"])
    for part in STEPS:
        config = build(load(BY_NAME[part].schema), tree[part], part)
        folder = prepare_folder(shelf / "tiny" / part)
        atomic_write_json(folder / "model.json", {"config": to_dict(config.model), "size": 64})
        (folder / "model.safetensors").write_bytes(part.encode())
    tasks = {"reach": {"train": 9, "val": 1}, "soft_push": {"train": 9, "val": 1}, "rope_place": {"train": 0}}
    data = {"arm": "panda", "cameras": ["front"], "size": 64, "episodes_by_task": tasks}
    atomic_write_json(shelf / "tiny" / "card.json", {"name": "tiny", "data": data})
    return shelf / "tiny"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Request]:
    """What the demo asks of each stage; nothing runs."""
    requests: dict[str, Request] = {}
    monkeypatch.setattr(
        pipeline, "run_stage", lambda request, *_: requests.update({request.stage.name: request}) or True
    )
    monkeypatch.setattr(pipeline, "print_result", lambda run: None)
    return requests


def starts(requests: dict[str, Request]) -> dict[str, tuple[str | None, int]]:
    """Of each part the name of what it starts from, and its steps."""
    configs = {part: requests[part].config for part in STEPS}
    return {
        part: (config.init and Path(config.init).name, config.train.steps) for part, config in configs.items()
    }


def preset(model: str, init: str | None = None) -> dict[str, tuple[str | None, int]]:
    tree = compose_tree("train", [f"model={model}"])
    return {part: (init, tree[part]["train"]["steps"]) for part in STEPS}


def test_the_shipped_simulator_is_taken_as_it_is(tiny, asked, capsys):
    assert main(["demo", *QUICK]) == 0
    assert starts(asked) == {part: ("tiny", steps) for part, steps in STEPS.items()}
    assert {request.run.name for request in asked.values()} == {"both-tiny-s0"}
    assert asked["dynamics"].config.model.transformer.dim == 384
    shown = capsys.readouterr().out
    assert "starts from the shipped tiny; from_scratch=true" in shown and "haven't seen" not in shown
    assert "will be trained" not in shown


def test_the_shipped_adapter_is_asked_too_where_there_is_one(tiny, asked):
    assert main(["demo", *QUICK]) == 0
    assert asked["adapt"].config.init is None
    save_adapter(tiny / "adapter", make_toy_bundle(EIGHT))
    assert main(["demo", *QUICK]) == 0
    assert asked["adapt"].config.init == str(tiny)
    assert stage_runner.starting_weights(asked["adapt"]) == {"init": shipped.weights_hash("tiny", "adapter")}
    assert main(["demo", *QUICK, "adapt.init=null"]) == 0
    assert asked["adapt"].config.init is None


def test_an_adapter_that_cannot_be_read_is_told_before_anything_runs(tiny, asked, capsys):
    folder = prepare_folder(tiny / "adapter")
    for file in ("adapter.json", "adapter.safetensors"):
        (folder / file).write_text('{"format": 1}')
    assert main(["demo", *QUICK]) == 4 and not asked
    assert "holds no adapter that fits" in capsys.readouterr().err


def test_a_folder_of_that_name_does_not_take_its_place(tiny):
    Path("tiny").mkdir()
    assert choose_start(None, False, compose_tree("collect")).init == tiny


def test_from_scratch_nothing_is_taken(tiny, asked, capsys):
    assert main(["demo", *QUICK, "from_scratch=true"]) == 0
    assert starts(asked) == preset("nano")
    assert asked["report"].run.name == "both-nano-s0"
    assert "from scratch" not in capsys.readouterr().out
    assert choose_start("tiny", True, {}) == Start("tiny", None)


def test_a_size_that_is_not_shipped_is_trained_and_that_is_said(tiny, asked, capsys):
    assert main(["demo", *QUICK, "model=small"]) == 0
    assert starts(asked) == preset("small") and asked["report"].run.name == "both-small-s0"
    line = "  no small is shipped (shipped are: tiny): small is trained from scratch\n"
    assert line in capsys.readouterr().out


def test_without_a_shipped_simulator_nano_is_trained_and_that_is_said(shelf, asked, capsys):
    assert main(["demo", *QUICK]) == 0
    assert starts(asked) == preset("nano")
    line = "  no tiny is shipped (none is shipped with this robosim): nano is trained from scratch\n"
    assert line in capsys.readouterr().out


def test_what_is_asked_of_a_stage_wins(tiny, asked, capsys):
    assert main(["demo", *QUICK, "tokenizer.train.steps=100", "dynamics.train.learning_rate=1e-4"]) == 0
    assert starts(asked) == {part: ("tiny", steps) for part, steps in (STEPS | {"tokenizer": 100}).items()}
    assert asked["dynamics"].config.train.learning_rate == 1e-4
    assert "tokenizer will be trained, the dynamics still know the earlier one" in capsys.readouterr().out
    assert main(["demo", *QUICK, "tokenizer.train.steps=100", "dynamics.train.steps=50"]) == 0
    assert starts(asked)["dynamics"] == ("tiny", 50)
    assert "will be trained" not in capsys.readouterr().out


def test_a_part_with_an_init_of_its_own_is_trained(tiny, asked):
    shutil.copytree(tiny, "mine")
    assert main(["demo", *QUICK, "dynamics.init=mine"]) == 0
    assert starts(asked)["dynamics"] == preset("tiny", "mine")["dynamics"]
    assert main(["demo", *QUICK, "dynamics.init=null"]) == 0
    assert starts(asked)["dynamics"] == preset("tiny")["dynamics"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("robot=so101", "the arm panda, not so101"),
        ("size=128", "frames of 64 px, not 128 px"),
        ("cameras=[wrist]", "the camera front, not wrist"),
    ],
)
def test_video_that_it_cannot_show_is_learned_from_scratch(tiny, override, words):
    video = compose_tree("collect", [override])
    line = f"the shipped tiny knows {words}: nano is trained from scratch"
    assert choose_start(None, False, video) == Start("nano", None, (line,))
    assert choose_start("tiny", False, video) == Start("tiny", None, (line.replace("nano", "tiny"),))


def test_an_arm_of_ones_own_is_never_that_of_the_card(tiny):
    video = compose_tree("collect", []) | {"robot": "/home/someone/panda.xml"}
    assert "the arm panda, not panda.xml" in choose_start(None, False, video).lines[0]


def test_the_arm_of_the_collection_decides(tiny, asked, capsys):
    assert main(["demo", *QUICK, "collect.robot=so101"]) == 0
    assert starts(asked) == preset("nano")
    assert "  the shipped tiny knows the arm panda, not so101: nano is" in capsys.readouterr().out


def test_another_arm_starts_from_it_where_that_is_asked_for(tiny, asked):
    given = [f"{part}.init={tiny}" for part in STEPS]
    assert main(["demo", *QUICK, "robot=so101", "model=tiny", *given]) == 0
    assert starts(asked) == preset("tiny", "tiny")


def test_tasks_that_it_has_not_seen_are_named(tiny):
    start = choose_start(None, False, compose_tree("collect", ["tasks=[reach,rope_place,cloth_fold]"]))
    assert start.init == tiny
    assert start.lines[1].startswith("its weights haven't seen rope_place, cloth_fold; ")


def test_a_model_made_otherwise_is_refused_before_anything_runs(tiny, asked, capsys):
    assert main(["demo", *QUICK, "dynamics.model.transformer.layers=2"]) == 2
    shown = capsys.readouterr().err
    assert "its dynamics is made otherwise: transformer.layers 4 (here 2)" in shown
    assert "from_scratch=true" in shown and not asked


def test_the_demo_runs_on_adopted_weights(shelf, demo_run: Path, tiny_overrides, monkeypatch, capsys):
    """Up to the adapter: with video, weights and the order as in the whole demo; another run's weights are seen."""
    ship(demo_run, shelf / "nano", ShipConfig(run=str(demo_run)))
    run = Path("runs/again").resolve()
    for name in ("dataset", "clips"):
        shutil.copytree(demo_run / name, run / name)
    ran, real = {}, pipeline.run_stage

    def first_five(request: Request, stages: Any, heading: str) -> bool:
        if request.stage.name in ("pretrain", "compare", "report"):
            return False
        ran[request.stage.name] = real(request, stages, heading)
        return ran[request.stage.name]

    monkeypatch.setattr(pipeline, "run_stage", first_five)
    monkeypatch.setattr(pipeline, "print_result", lambda run: None)
    overrides = [text for text in tiny_overrides if "train.steps" not in text and "from_scratch" not in text]
    arguments = ["demo", *overrides, "model=nano", "out=runs/again"]
    assert main(arguments) == 0, capsys.readouterr().err
    assert "starts from the shipped nano" in capsys.readouterr().out
    assert ran == {
        "collect": False,
        "tokenizer": True,
        "latent_action": True,
        "dynamics": True,
        "adapt": True,
    }
    for part in STEPS:
        manifest = read_json(run / part / MANIFEST)
        assert manifest["inputs"]["init"] == shipped.weights_hash(shelf / "nano", part)
        assert manifest["config"]["train"]["steps"] == 0 and manifest["figures"]["init"] == "nano"
    name = "head.weight"
    adopted = load_tensors(run / "dynamics/model.safetensors")[name]
    assert adopted.equal(load_tensors(demo_run / "dynamics/model.safetensors")[name].bfloat16().float())
    sim = robosim.load(run, device="cpu")
    assert sim.step(sim.reset().joints).frame.shape == (64, 64, 3)
    assert main(arguments) == 0 and not any(ran.values())
    card = json.loads((shelf / "nano/card.json").read_text())
    (shelf / "nano/dynamics/model.json").write_text(json.dumps(read_json(shelf / "nano/dynamics/model.json")))
    assert card["name"] == "nano" and main(arguments) == 0
    assert [name for name, made in ran.items() if made] == ["dynamics"]
