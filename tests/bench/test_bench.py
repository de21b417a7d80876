"""The benchmarks: what they print, that seeds decide it, and that tasks and arms appear by themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robosim.bench import cells as module
from robosim.bench.cells import Cell, cells
from robosim.bench.experts import ExpertsConfig, Outcome, bench_experts, measure_experts, summarise
from robosim.bench.physics import bench_physics
from robosim.bench.sheet import MOMENTS, contact_sheet
from robosim.errors import ConfigError
from robosim.physics.arms.catalogue import ROBOTS
from robosim.physics.tasks import TASKS
from robosim.physics.tasks.reach import Reach


def test_cells_are_every_task_on_every_arm_that_can_do_it(monkeypatch):
    class Hold(Reach):
        name = "hold"

        @classmethod
        def supports(cls, robot):
            return robot.spec.name == "panda"

    monkeypatch.setitem(TASKS, "hold", Hold)
    able, unable = cells(None, None)
    assert {*able, *unable} == {Cell(task, robot) for task in TASKS for robot in ROBOTS}
    assert Cell("hold", "panda") in able
    assert [cell.robot for cell in unable if cell.task == "hold"] == [
        robot for robot in ROBOTS if robot != "panda"
    ]
    assert cells("both", "panda")[0] == [Cell("reach", "panda"), Cell("soft_push", "panda")]


def test_an_arm_that_can_do_nothing_of_it_is_named(monkeypatch):
    monkeypatch.setattr(Reach, "supports", classmethod(lambda cls, robot: False))
    with pytest.raises(ConfigError, match="panda can't do reach"):
        module.cells("reach", "panda")


def test_a_summary_has_interval_means_and_the_seeds_that_failed():
    row = summarise(
        [Outcome(seed, seed != 3, 10 + seed, 0.01, {"dent_m": 0.1 * seed}, seed == 2) for seed in range(4)]
    )
    assert (row["episodes"], row["successes"], row["rate"], row["failed_seeds"]) == (4, 3, 0.75, [3])
    assert row["interval"] == [0.3006, 0.9544], "Wilson's, of 3 of 4"
    assert row["mean_frames"] == 11.5 and row["measures"]["dent_m"] == pytest.approx(0.15)
    assert row["warnings"] == 1


def test_experts_prints_json_and_writes_it(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bench_experts(
        "bench experts",
        ["task=reach", "robot=panda", "episodes=3", "workers=1", "seed=3", "out=made/experts.json"],
    )
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert result == json.loads(Path("made/experts.json").read_text())
    assert result["command"].startswith("robosim bench experts task=reach")
    assert result["seed"] == 3 and result["machine"]["mujoco"]
    (row,) = result["results"]
    assert (row["task"], row["robot"], row["episodes"]) == ("reach", "panda", 3)
    assert row["successes"] == 3 and row["warnings"] == 0 and row["interval"][0] < 1 == row["interval"][1]
    assert "interval" in shown.err and "reach" in shown.err


def test_the_first_seed_decides_the_result():
    able = [Cell("reach", "panda")]
    first, again, other = (
        measure_experts(ExpertsConfig(episodes=2, seed=seed, workers=1), able) for seed in (5, 5, 6)
    )
    assert first == again != other


def test_physics_prints_figures_and_draws_a_sheet(tmp_path: Path, capsys):
    sheet = tmp_path / "sheet.png"
    bench_physics(
        "bench physics", ["task=reach", "robot=panda", "episodes=1", "workers=2", "seed=3", f"sheet={sheet}"]
    )
    result = json.loads(capsys.readouterr().out)
    (row,) = result["results"]
    assert row["control_steps_per_second"] > row["frames_per_second_core"] > 0
    assert 0 < row["render_ms_64"] < row["render_ms_128"]
    assert row["frames_per_second_all"] > 0 and result["processes"] == 2
    assert "process_time" in result["clocks"]
    picture = np.asarray(Image.open(sheet))
    assert picture.shape[0] > 128 and picture.shape[1] > len(MOMENTS) * 128


def test_a_sheet_holds_the_pictures_in_their_places():
    red, blue = (np.full((5, 16, 16, 3), colour, np.uint8) for colour in ([200, 0, 0], [0, 0, 200]))
    sheet = np.asarray(contact_sheet([("reach · panda", red), ("reach · so101", blue)]))
    assert (
        (sheet == [200, 0, 0]).all(axis=-1).sum() == (sheet == [0, 0, 200]).all(axis=-1).sum() == 5 * 16 * 16
    )
    assert np.flatnonzero((sheet == [200, 0, 0]).all(axis=-1).any(axis=1)).max() < (
        np.flatnonzero((sheet == [0, 0, 200]).all(axis=-1).any(axis=1)).min()
    )


@pytest.mark.parametrize("override", ["episodes=0", "task=fold", "robot=ur5", "workers=-1"])
def test_a_wrong_key_is_refused(override: str):
    with pytest.raises(ConfigError):
        bench_experts("bench experts", ["task=reach", override])
