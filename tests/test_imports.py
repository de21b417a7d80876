"""Rules about imports and calls, checked on the source itself."""

from __future__ import annotations

import ast
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

FLOORS = {
    "robosim.spec": 0,
    "robosim.config": 0,
    "robosim.checkpoint": 0,
    "robosim.errors": 0,
    "robosim.progress": 0,
    "robosim.interrupts": 0,
    "robosim.ranks": 0,
    "robosim.vector_env": 0,
    "robosim.shipped": 0,
    "robosim_datasets": 1,
    "robosim.world_model": 2,
    "robosim.physics": 2,
    "robosim.adapter": 3,
    "robosim.training": 4,
    "robosim.simulator": 4,
    "robosim.evaluation": 5,
    "robosim.viewer": 5,
    "robosim.bench": 6,
    "robosim.cli": 7,
    "robosim.commands": 7,
    "robosim.demo_start": 7,
    "robosim.manual": 7,
    "robosim.pipeline": 7,
    "robosim.stage_runner": 7,
    "robosim.stage_table": 7,
    "robosim": 8,
}
"""Floor of every room. A room imports rooms of lower floors, and itself; floors 0 and 7 are one room each. Floor 8 is
the front door: what `import robosim` gives."""

ONE_ROOM = (0, 7)
PLUGIN = "lerobot_policy_robosim"


def sources(repository: Path) -> list[tuple[str, Path]]:
    """(module name, file) of everything that is shipped."""
    places = (("robosim", ""), ("datasets/robosim_datasets", "datasets"), (f"policies/{PLUGIN}", "policies"))
    found = []
    for folder, above in places:
        for path in sorted((repository / folder).rglob("*.py")):
            parts = path.relative_to(repository / above).with_suffix("").parts
            found.append((".".join(parts).removesuffix(".__init__"), path))
    return found


def imported_modules(tree: ast.AST, module: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            yield node.module or ""
            # `from robosim import cli` imports a module too.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str | None:
    """The room that a module belongs to; None for other people's packages."""
    parts = module.split(".")
    if parts[0] == "robosim_datasets":
        return "robosim_datasets"
    if parts[0] != "robosim":
        return None
    return ".".join(parts[:2])


def test_every_room_has_a_floor(repository: Path):
    rooms = {room_of(module) for module, _ in sources(repository)} - {None}
    assert rooms <= set(FLOORS), f"give a floor to {rooms - set(FLOORS)}"


def test_imports_run_downwards(repository: Path):
    faults = []
    for module, path in sources(repository):
        here = room_of(module)
        for target in imported_modules(ast.parse(path.read_text()), module):
            there = room_of(target)
            if target.split(".")[0] == PLUGIN and here is not None:
                faults.append(
                    f"{module} imports {target}: the plug-in is reached through LeRobot's registry only"
                )
            if here is None or there is None or there not in FLOORS or here == there:
                continue
            same_floor = FLOORS[here] == FLOORS[there] and FLOORS[here] not in ONE_ROOM
            if FLOORS[there] > FLOORS[here] or same_floor:
                faults.append(f"{module} (floor {FLOORS[here]}) imports {target} (floor {FLOORS[there]})")
    assert not faults, "\n".join(faults)


def test_the_rule_sees_imports_inside_functions():
    tree = ast.parse("def f():\n    from robosim import cli\n    import robosim.pipeline")
    assert {"robosim.cli", "robosim.pipeline"} <= set(imported_modules(tree, "x"))


FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "torch.load",
    "torch.save",
    "instantiate",
    "hydra.utils.instantiate",
    "yaml.load",
    "yaml.unsafe_load",
}
FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def test_no_file_can_run_code(repository: Path):
    """No pickled file is read, nothing is evaluated, nothing is instantiated from a configuration."""
    faults = []
    for module, path in sources(repository):
        tree = ast.parse(path.read_text())
        for target in imported_modules(tree, module):
            if target.split(".")[0] in FORBIDDEN_MODULES or target == "hydra.utils.instantiate":
                faults.append(f"{module} imports {target}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if name in FORBIDDEN_CALLS:
                    faults.append(f"{module}:{node.lineno} calls {name}")
                faults += [
                    f"{module}:{node.lineno} allows pickle"
                    for keyword in node.keywords
                    if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False"
                ]
    assert not faults, "\n".join(faults)


def test_the_name_datasets_still_means_hugging_face(repository: Path):
    """A package `datasets` in the checkout would shadow the one that LeRobot needs."""
    assert not (repository / "datasets" / "__init__.py").exists()
    site = Path(sysconfig.get_path("purelib")).resolve()
    code = "import datasets, robosim_datasets; print(datasets.__file__)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True, timeout=60
    )
    assert Path(run.stdout.strip()).resolve().is_relative_to(site)


HEAVY = ("torch", "mujoco", "warp", "lerobot", "rerun", "matplotlib", "hydra", "numpy", "rich")


@pytest.mark.parametrize(
    "module", ["robosim.cli", "robosim.config", "robosim.checkpoint", "robosim.progress"]
)
def test_the_command_line_is_light(module: str):
    code = f"import sys, {module}; print(*(m for m in {HEAVY!r} if m in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == ""


def test_the_modules_of_every_command_exist():
    """Commands and stages are named by strings; a renamed function must not wait for a user to be noticed."""
    from robosim.cli import COMMANDS
    from robosim.stage_runner import load
    from robosim.stage_table import STAGES

    for command in COMMANDS:
        assert callable(load(command.run)), command.run
    for stage in STAGES:
        assert callable(load(stage.function)), stage.function
        assert isinstance(load(stage.schema), type), stage.schema
