"""When a stage runs, goes on, or is kept, with stages that take no time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from robosim import stage_runner
from robosim.checkpoint import MANIFEST, read_json, stage_seconds
from robosim.errors import CheckpointError, OutputError
from robosim.stage_runner import Request, Stage, run_stage


@dataclass
class Config:
    steps: int = 10
    workers: int = 0


class Work:
    """Stands for a stage's function: counts its calls, and can be interrupted halfway."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.interrupt = False

    def make(self, name: str, config: Config, run: Path) -> dict[str, Any]:
        self.calls.append((name, config.steps))
        folder = run / name
        folder.mkdir(exist_ok=True)
        (folder / "half.txt").write_text(str(config.steps))
        if self.interrupt:
            raise KeyboardInterrupt
        (folder / "result.txt").write_text(f"{name} {config.steps}")
        return {"steps": config.steps}

    def first(self, config: Config, run: Path) -> dict[str, Any]:
        return self.make("first", config, run)

    def second(self, config: Config, run: Path, seed: int) -> dict[str, Any]:
        return self.make("second", config, run) | {"seed": seed}

    def third(self, config: Config, run: Path) -> dict[str, Any]:
        return self.make("third", config, run)


@pytest.fixture
def work(monkeypatch) -> Work:
    made = Work()
    monkeypatch.setattr(stage_runner, "load", lambda reference: getattr(made, reference.split(":")[1]))
    return made


def stage(name: str, inputs: tuple[str, ...] = ()) -> Stage:
    return Stage(
        name=name,
        title=name,
        command="train",
        schema="",
        function=f"work:{name}",
        inputs=inputs,
        folders=(name,),
        outputs=(f"{name}/result.txt",),
    )


STAGES = {
    "first": stage("first"),
    "second": stage("second", ("first",)),
    "third": stage("third", ("first", "second")),
}


def run(name: str, folder: Path, *, steps: int = 10, seed: int = 0, resume: bool = True, **config) -> bool:
    request = Request(STAGES[name], folder, Config(steps, **config), seed, "cpu", resume)
    return run_stage(request, STAGES, name)


def test_a_finished_stage_is_kept(work: Work, tmp_path: Path):
    assert run("first", tmp_path)
    assert not run("first", tmp_path)
    assert work.calls == [("first", 10)]
    assert read_json(tmp_path / "first" / MANIFEST)["figures"] == {"steps": 10}


def test_a_stage_may_leave_its_files_outside_its_folder(work: Work, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(
        work, "first", lambda config, run: (run / "page.html").write_text("x") and {}, raising=False
    )
    page = replace(STAGES["first"], outputs=("page.html",))
    request = Request(page, tmp_path, Config(), 0, "cpu", True)
    assert run_stage(request, STAGES, "page")
    assert read_json(tmp_path / "first" / MANIFEST)["outputs"].keys() == {"../page.html"}
    assert not run_stage(request, STAGES, "page")


def test_the_number_of_workers_is_not_another_request(work: Work, tmp_path: Path):
    run("first", tmp_path)
    assert not run("first", tmp_path, workers=4)


@pytest.mark.parametrize("change", [{"steps": 11}, {"seed": 1}, {"resume": False}])
def test_a_changed_request_makes_it_again_and_keeps_the_old(work: Work, tmp_path: Path, change, capsys):
    run("first", tmp_path)
    assert run("first", tmp_path, **change)
    assert (tmp_path / "first.old" / "result.txt").read_text() == "first 10"
    shown = capsys.readouterr().out
    assert "made again" in shown
    if "steps" in change:
        assert "steps 10 -> 11" in shown


def test_a_later_stage_follows_its_inputs(work: Work, tmp_path: Path):
    run("first", tmp_path)
    assert run("second", tmp_path, seed=3)
    assert not run("second", tmp_path, seed=3)
    run("first", tmp_path, steps=12)
    assert run("second", tmp_path, seed=3)
    assert read_json(tmp_path / "second" / MANIFEST)["figures"] == {"steps": 10, "seed": 3}


def test_inputs_that_do_not_belong_together_are_refused(work: Work, tmp_path: Path):
    """second was made from the first of then; third, which reads both, must not mix the two."""
    for name in ("first", "second", "third"):
        run(name, tmp_path)
    run("first", tmp_path, steps=12)
    with pytest.raises(CheckpointError, match=r"second .*was made from an earlier first.*robosim train out="):
        run("third", tmp_path)
    run("second", tmp_path)
    assert run("third", tmp_path)


def test_an_interrupted_mistake_does_not_cost_the_finished_result_before_it(work: Work, tmp_path: Path):
    run("first", tmp_path, steps=10)
    work.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        run("first", tmp_path, steps=99)
    work.interrupt = False
    run("first", tmp_path, steps=10)
    assert (tmp_path / "first.old" / "result.txt").read_text() == "first 10"


def test_a_missing_input_names_the_command_that_makes_it(work: Work, tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"second needs first.*robosim train out="):
        run("second", tmp_path)
    assert work.calls == []


def test_an_interrupted_stage_goes_on_and_adds_up_its_time(work: Work, tmp_path: Path, monkeypatch):
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr(stage_runner.time, "monotonic", lambda: float(next(clock)))
    work.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        run("first", tmp_path)
    assert not (tmp_path / "first" / MANIFEST).exists()
    work.interrupt = False
    (tmp_path / "first" / "snapshot").write_text("precious")
    assert run("first", tmp_path)
    assert (tmp_path / "first" / "snapshot").exists()
    assert stage_seconds(tmp_path / "first") == 10.0
    assert not (tmp_path / "first.old").exists()


def test_what_another_request_left_halfway_is_not_continued(work: Work, tmp_path: Path):
    work.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        run("first", tmp_path, steps=10)
    (tmp_path / "first" / "snapshot").write_text("of ten steps")
    work.interrupt = False
    run("first", tmp_path, steps=20)
    assert not (tmp_path / "first" / "snapshot").exists()
    assert (tmp_path / "first.old" / "snapshot").exists()


def test_a_users_own_folder_is_never_moved(work: Work, tmp_path: Path):
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="robosim didn't make"):
        run("first", tmp_path)
    assert (tmp_path / "first" / "thesis.txt").read_text() == "mine"
    assert work.calls == []


def test_a_file_in_the_place_of_a_folder_is_one_error(work: Work, tmp_path: Path):
    (tmp_path / "first").write_text("mine")
    with pytest.raises(OutputError, match="a file is in its place"):
        run("first", tmp_path)
    assert (tmp_path / "first").read_text() == "mine"


def test_a_damaged_result_is_an_error_not_a_silent_rerun(work: Work, tmp_path: Path):
    run("first", tmp_path)
    (tmp_path / "first" / "result.txt").write_text("flipped")
    with pytest.raises(CheckpointError, match=r"result\.txt"):
        run("first", tmp_path)
