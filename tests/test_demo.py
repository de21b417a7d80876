"""The whole path, all eight stages, tiny and without network."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robosim.evaluation.summary import missing_fields

STAGES = ("collect", "tokenizer", "latent_action", "dynamics", "adapt", "pretrain", "compare", "report")
HORIZONS = ("1", "4", "8", "16")
PROMISED = (
    "seed",
    *(f"wall_seconds.{stage}" for stage in STAGES),
    "video.episodes",
    "video.frames",
    "tokenizer.psnr_db",
    "tokenizer.moving_psnr_db",
    "tokenizer.codes_used",
    "latent_action.psnr_db",
    "latent_action.shuffled_psnr_db",
    *(f"dynamics.moving_psnr_db.{h}" for h in HORIZONS),
    *(f"dynamics.repeat_last_moving_psnr_db.{h}" for h in HORIZONS),
    *(f"dynamics.psnr_db.{h}" for h in HORIZONS),
    "dynamics.delta_psnr_db",
    "dynamics.frames_per_second",
    "adapter.labels",
    "adapter.episodes",
    "adapter.command_mae_rad",
    "adapter.tool_mae_m",
    "adapter.probe_error_m",
    *(
        f"policy.{task}.{name}"
        for task in ("reach", "soft_push")
        for name in (
            "success_learned",
            "success_physics",
            "success_random_physics",
            "final_distance_physics_m",
            "final_distance_random_m",
            "episodes",
        )
    ),
)


@pytest.fixture(scope="module")
def summary(demo_run: Path) -> dict[str, Any]:
    return json.loads((demo_run / "summary.json").read_text())


def find(tree: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        tree = tree[key]
    return tree


@pytest.mark.parametrize("field", PROMISED)
def test_the_summary_holds(summary: dict[str, Any], field: str):
    value = find(summary, field)
    assert isinstance(value, int | float) and not isinstance(value, bool)
    assert math.isfinite(value)


def test_no_promised_field_is_missing(summary: dict[str, Any]):
    assert missing_fields(summary) == []
    summary = json.loads(json.dumps(summary))
    del summary["dynamics"]["psnr_db"]["8"]
    assert missing_fields(summary) == ["dynamics.psnr_db.8"]


def test_replay_by_recorded_commands_is_in_the_summary(summary: dict[str, Any]):
    replayed = find(summary, "adapter.rollout_moving_psnr_db")
    values = list(replayed.values()) if isinstance(replayed, dict) else [replayed]
    assert values and all(math.isfinite(value) for value in values)


def test_the_summary_says_what_was_asked_and_made(summary: dict[str, Any], demo_run: Path):
    from robosim_datasets.clip_store import ClipStore

    store = ClipStore(demo_run / "clips")
    assert summary["seed"] == 5
    assert summary["video"]["episodes"] == len(store.episodes) == 16
    assert summary["video"]["frames"] == store.num_frames
    assert 0 < summary["adapter"]["labels"] <= 200
    assert summary["policy"]["reach"]["episodes"] == 2


def test_the_files_are_there(demo_run: Path):
    assert "<html" in (demo_run / "report.html").read_text()
    assert (demo_run / "rollouts.rrd").stat().st_size > 1000
    for task in ("reach", "soft_push"):
        folder = demo_run / "policy" / task / "pretrained_model"
        assert {"config.json", "model.safetensors"} <= {path.name for path in folder.iterdir()}


def test_every_stage_left_a_manifest_and_a_heading(demo_run: Path):
    from robosim.stage_table import STAGES as DECLARED

    log = (demo_run.parent.parent / "log.txt").read_text()
    assert tuple(stage.name for stage in DECLARED) == STAGES
    for number, stage in enumerate(DECLARED, 1):
        assert f"[{number}/8] {stage.name}" in log
        assert stage.manifest(demo_run).exists()
        manifest = json.loads(stage.manifest(demo_run).read_text())
        assert manifest["stage"] == stage.name
        assert manifest["outputs"], f"{stage.name} keeps no hash of what it made"
        assert manifest["config"]["seed"] == 5
    assert "rerun runs/tiny/rollouts.rrd" in log
    assert "adapter.labels" in log


def test_stock_lerobot_opens_the_dataset(demo_run: Path):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    data = LeRobotDataset("robosim", root=demo_run / "dataset", video_backend="pyav")
    assert data.num_episodes == 16
    assert data[0]["observation.images.front"].shape == (3, 64, 64)


def test_running_it_again_keeps_every_stage(demo_run: Path, run_offline, tiny_overrides):
    before = {path: path.stat().st_mtime_ns for path in demo_run.rglob("*") if path.is_file()}
    run = run_offline("demo", *tiny_overrides, "out=runs/tiny", cwd=demo_run.parent.parent)
    assert run.returncode == 0, run.stderr[-4000:]
    assert run.stdout.count("finished before, kept") == 8
    assert {path: path.stat().st_mtime_ns for path in demo_run.rglob("*") if path.is_file()} == before


def test_a_stage_of_the_demo_counts_for_its_own_command(demo_run: Path, run_offline):
    run = run_offline("report", "seed=5", "out=runs/tiny", cwd=demo_run.parent.parent)
    assert run.returncode == 0, run.stderr[-4000:]
    assert "finished before, kept" in run.stdout


def test_the_recorded_frames_of_the_comparison_are_of_both_simulators(demo_run: Path):
    from robosim.evaluation.rollouts import load_rollouts

    physics = load_rollouts(demo_run / "compare" / "reach_physics.npz")
    learned = load_rollouts(demo_run / "compare" / "reach_learned.npz")
    assert np.array_equal(physics.seeds, learned.seeds)
    assert not np.array_equal(physics.frames[:, -1], learned.frames[:, -1])


def test_an_out_folder_that_is_a_file_is_one_line_and_stays(tmp_path: Path, run_offline):
    (tmp_path / "runs").write_text("mine")
    run = run_offline("demo", "device=cpu", cwd=tmp_path)
    assert run.returncode == 5
    assert "a file is in its place" in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
    assert (tmp_path / "runs").read_text() == "mine"
