"""Configuration: Hydra's composition into types, and what a mistake looks like."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from robosim.config import (
    RunOptions,
    build,
    choices,
    compose,
    compose_tree,
    config_root,
    group_defaults,
    leaf_keys,
    override_text,
    resolve_device,
    to_dict,
    unknown,
)
from robosim.errors import ConfigError
from robosim.physics.arms.catalogue import ROBOTS
from robosim.physics.tasks import TASKS
from robosim.physics.variation import Variation
from robosim.pipeline import DemoConfig, run_keys
from robosim.stage_runner import Request, load
from robosim.stage_table import STAGES


@dataclass(frozen=True)
class Inner:
    kind: Literal["a", "b"] = "a"
    betas: tuple[float, float] = (0.9, 0.95)
    levels: tuple[int, ...] = (8, 5)


@dataclass(frozen=True)
class Outer:
    steps: int
    rate: float = 1.0
    draft: bool = True
    name: str | None = None
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


def test_a_tree_becomes_frozen_nested_dataclasses_with_tuples_and_literals():
    built = build(Outer, {"steps": 3, "rate": 2, "inner": {"kind": "b", "levels": [7, 7, 7]}}, "")
    assert built == Outer(3, 2.0, inner=Inner("b", levels=(7, 7, 7)))
    assert isinstance(built.rate, float)
    assert build(Outer, to_dict(built), "") == built


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        ({"steps": "abc"}, ["steps", "int", "abc"]),
        ({"steps": 2.5}, ["steps", "int", "2.5"]),
        ({"steps": True}, ["steps", "int"]),
        ({"steps": 1, "draft": 1}, ["draft", "bool"]),
        ({"steps": 1, "rate": "fast"}, ["rate", "float"]),
        ({"steps": 1, "name": 3}, ["name", "str"]),
        ({"steps": 1, "inner": {"kind": "c"}}, ["inner.kind", "'c'", "a, b"]),
        ({"steps": 1, "inner": {"betas": [0.9]}}, ["inner.betas", "2 values"]),
        ({"steps": 1, "inner": {"levels": 8}}, ["inner.levels", "list"]),
        ({"steps": 1, "inner": {"levels": [8, "x"]}}, ["inner.levels", "int"]),
        ({"steps": 1, "inner": 3}, ["inner", "keys"]),
        ({"steps": 1, "inner": {"kidn": "a"}}, ["inner.kidn", "'inner.kind'", "inner.betas"]),
        ({"rate": 1.0}, ["steps", "no value"]),
        ({"steps": 0}, ["at least 1"]),
    ],
)
def test_a_wrong_value_is_named_with_what_is_wanted(tree: dict[str, Any], named: list[str]):
    with pytest.raises(ConfigError) as caught:
        build(Outer, tree, "")
    for word in named:
        assert word in str(caught.value)


def test_overrides_reach_the_typed_configuration():
    config = compose("demo", DemoConfig, ["seed=7", "device=cpu", "resume=false", "out=some/where"])
    assert config == DemoConfig(out="some/where", seed=7, device="cpu", resume=False)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("sed=1", ["'sed'", "did you mean 'seed'", "device"]),
        ("seed=one", ["seed", "int", "one"]),
        ("resume=maybe", ["resume", "bool"]),
        ("seed=1,2", ["several values"]),
        ("+new=1", ["added"]),
        ("~seed=0", ["removed"]),
        ("seed", ["key=value"]),
        ("seed={", ["can't read", "seed={"]),
        ("seed.x=1", ["seed.x"]),
    ],
)
def test_a_wrong_override_is_one_clear_sentence(override: str, named: list[str]):
    with pytest.raises(ConfigError) as caught:
        compose("demo", DemoConfig, [override])
    for word in named:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_choice_of_a_group_names_the_choices():
    with pytest.raises(
        ConfigError, match=r"unknown task 'reech'; did you mean 'reach'\? valid: both, .*suite"
    ):
        compose_tree("pretrain", ["task=reech"])


def test_a_misspelt_nested_key_lists_its_siblings_only():
    with pytest.raises(ConfigError) as caught:
        compose_tree("train", ["dynamics.sampling.temprature=1"])
    assert "did you mean 'dynamics.sampling.temperature'" in str(caught.value)
    assert "tokenizer.train.steps" not in str(caught.value)


def test_a_key_without_its_section_is_found():
    assert "did you mean 'a.b.steps'" in unknown("key", "step", ["a"], ["a.b.steps"])


def test_composing_leaves_no_state_behind():
    first = compose_tree("train", ["stage=dynamics"])
    assert compose_tree("train", []) != first
    assert compose_tree("train", ["stage=dynamics"]) == first


def test_an_unknown_device_is_refused():
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(ConfigError, match="cpu"):
        resolve_device("cpus")


def test_the_files_lie_where_the_package_finds_them(repository: Path, monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    assert config_root() == repository / "configs"
    assert compose_tree("demo")["seed"] == 0


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_the_files_and_the_schema_of_a_stage_have_the_same_keys(stage):
    """A key that is only in the dataclass couldn't be set or explained; one only in the file would fail."""
    tree = compose_tree(stage.command, stage.fixed)
    for key in run_keys():
        assert key in tree, f"configs/{stage.command}.yaml lacks {key}"
    tree = tree[stage.section] if stage.section else {k: v for k, v in tree.items() if k not in run_keys()}
    schema = load(stage.schema)
    own = [name for name in leaf_keys(to_dict(schema())) if name not in run_keys()]
    assert sorted(leaf_keys(tree)) == sorted(own)
    build(schema, tree, "")


def test_every_choice_of_every_group_composes():
    commands = sorted(path.stem for path in config_root().glob("*.yaml"))
    assert {"demo", "collect", "train", "adapt", "pretrain", "compare", "report"} <= set(commands)
    for command in commands:
        for group, _ in group_defaults(command):
            for choice in choices(group):
                compose_tree(command, [f"{group}={choice}"])


def test_run_options_are_in_every_command_file():
    for path in config_root().glob("*.yaml"):
        assert {each.name for each in fields(RunOptions)} <= set(compose_tree(path.stem)), path.name


@pytest.fixture
def arm(tmp_path: Path, monkeypatch) -> Path:
    """An arm's file below the current folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "my arms" / "mine (2).xml"
    path.parent.mkdir()
    path.write_text("<mujoco/>")
    return path


@pytest.mark.parametrize("command", ["collect", "demo", "replay", "bench experts", "bench physics"])
def test_an_arm_may_be_a_file_below_the_current_folder(arm: Path, command: str):
    assert compose_tree(command, ["robot='my arms/mine (2).xml'"])["robot"] == str(arm)
    with pytest.raises(ConfigError, match=r"there is no file .*none\.xml"):
        compose_tree(command, ["robot=none.xml"])
    with pytest.raises(ConfigError, match=r"unknown robot 'pandas'; did you mean 'panda'.*\.xml"):
        compose_tree(command, ["robot=pandas"])


def test_the_demo_hands_a_file_on(arm: Path):
    handed = override_text("robot", compose("demo", DemoConfig, ["robot='my arms/mine (2).xml'"]).robot)
    assert compose_tree("collect", [handed])["robot"] == str(arm)
    assert override_text("seed", 3) == "seed=3" and override_text("task", "reach") == "task=reach"


@dataclass(frozen=True)
class Armed:
    robot: str


def test_what_a_file_holds_counts_and_not_where_it_lies(arm: Path):
    def record(path: Path) -> dict[str, Any]:
        return Request(STAGES[0], path.parent, Armed(str(path)), 0, "cpu", True).record()

    before = record(arm)
    moved = arm.rename(arm.parent.parent / arm.name)
    assert record(moved) == before
    moved.with_suffix(".yaml").write_text("joints: [a]")
    assert record(moved) != before
    assert Request(STAGES[0], arm.parent, Armed("panda"), 0, "cpu", True).record()["robot"] == "panda"


def variation_of(*overrides: str) -> Variation:
    return build(Variation, compose_tree("collect", overrides)["variation"], "variation")


def test_variation_is_chosen_as_a_group_and_set_by_factor():
    assert variation_of() == variation_of("variation=none") == Variation()
    mild = variation_of("variation=mild")
    assert mild.size == (0.9, 1.1)
    assert variation_of("variation=mild", "variation.size=0.9") == replace(mild, size=0.9)
    assert variation_of("variation.size=[0.8,1.2]") == Variation(size=(0.8, 1.2))
    wild = variation_of("variation=wild")
    for name in (each.name for each in fields(Variation)):
        (low, high), (lowest, highest) = getattr(mild, name), getattr(wild, name)
        assert lowest <= low < high <= highest, name


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("variation=milt", "did you mean 'mild'"),
        ("variation.sise=1", "did you mean 'variation.size'"),
        ("variation.size=[1,2,3]", r"variation.size needs a value of type float or tuple\[float, float\]"),
        ("variation.size=[1.2,0.8]", r"variation.size=\[1.2,0.8\] needs low ≤ high"),
        ("variation.mass=0", "above 0"),
    ],
)
def test_a_wrong_factor_is_named(override: str, named: str):
    with pytest.raises(ConfigError, match=named):
        variation_of(override)


def test_every_task_and_arm_has_a_file_and_the_suite_is_all_tasks():
    each = {name: compose_tree("collect", [f"task={name}"])["tasks"] for name in choices("task")}
    single = {name for name in each if name not in ("both", "suite")}
    assert all(each[name] == [name] for name in single)
    assert set(each["suite"]) == single and set(each["both"]) <= single
    assert set(TASKS) <= single
    assert set(ROBOTS) <= set(choices("robot"))
