"""The whole path, comparing and replay included, with an arm and a task of one's own."""

from __future__ import annotations

import json
import shutil

import pytest


@pytest.fixture
def folder(repository, tmp_path):
    """The documented examples, somewhere else."""
    for name in ("desk_arm.xml", "desk_arm.yaml", "my_task.py"):
        shutil.copy(repository / "docs" / "examples" / name, tmp_path)
    return tmp_path


@pytest.mark.slow
def test_an_arm_of_ones_own_is_compared_and_replayed(run_offline, tiny_overrides, folder):
    run = run_offline("demo", *tiny_overrides, "robot=desk_arm.xml", "task=reach", "out=runs/own", cwd=folder)
    assert run.returncode == 0, run.stderr[-3000:]
    summary = json.loads((folder / "runs/own/summary.json").read_text())
    assert summary["policy"]["reach"]["episodes"] == 2
    replay = run_offline("replay", "dataset=runs/own/dataset", "out=trust", cwd=folder)
    assert replay.returncode == 0, replay.stderr[-3000:]
    episodes = json.loads((folder / "trust/replay.json").read_text())["episodes"]
    assert len(episodes) == 4
    for episode in episodes:
        assert episode["same_start"] and episode["joint_max_rad"] < 1e-4


@pytest.mark.slow
def test_a_task_of_ones_own_is_collected_and_compared(run_offline, tiny_overrides, folder):
    own = [
        f"{stage}.{key}"
        for stage in ("collect", "compare")
        for key in ("task_file=my_task.py", "tasks=[knock_over]")
    ]
    run = run_offline(
        "demo", *tiny_overrides, *own, "pretrain.tasks=[knock_over]", "out=runs/own", cwd=folder
    )
    assert run.returncode == 0, run.stderr[-3000:]
    summary = json.loads((folder / "runs/own/summary.json").read_text())
    assert list(summary["policy"]) == ["knock_over"]
