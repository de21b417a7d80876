import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from robosim.errors import DatasetError
from robosim.evaluation import compare as module
from robosim.evaluation.compare import SHARD, CompareConfig, compare, start_seeds
from robosim.evaluation.jobs import ReplayJob, Replays, RolloutJob, Rollouts
from robosim.evaluation.policies import RandomPolicy
from robosim.evaluation.replay import Replayed
from robosim.evaluation.rollouts import load_arrays, load_rollouts, run_policy
from robosim.spec import EnvSpec

LENGTH = 20
LOWER, STEP = np.full(3, -1, np.float32), np.full(3, 0.1, np.float32)


@pytest.fixture
def store(env_spec, tmp_path):
    """Two tasks, three episodes each, the last of each held out; the arm creeps by .01 a frame."""
    task = env_spec.tasks[0]
    spec = EnvSpec(env_spec.robot, (task, replace(task, name="soft_push")), size=env_spec.size)
    episodes = [
        SimpleNamespace(start=LENGTH * i, length=LENGTH, task=spec.tasks[i // 3].name, split=split)
        for i, split in enumerate(("train", "train", "val") * 2)
    ]
    steps = np.tile(np.arange(LENGTH, dtype=np.float32), 6)[:, None]
    columns = {
        "state": steps * [[0.01, 0, 0]],
        "action": steps * [[0.01, 0, 0]] + [[0.01, 0, 0]],
        "environment_state": steps * np.array([0.01] * 6 + [0.02] * 3),
    }
    return SimpleNamespace(
        path=tmp_path / "clips",
        spec=spec,
        episodes=episodes,
        num_frames=LENGTH * 6,
        column=lambda name: columns[name].astype(np.float32),
        select=lambda split=None, task=None, labelled=None: [
            i for i, e in enumerate(episodes) if split in (None, e.split) and task in (None, e.task)
        ],
        frames=lambda e, start, stop, camera: np.random.default_rng(e).integers(
            0, 256, (LENGTH, 32, 32, 3), dtype=np.uint8
        )[start:stop],
    )


@pytest.fixture
def run_with_dots(monkeypatch, store, make_env, seek_policy, tmp_path):
    """`compare` on the dot: jobs run here, the learned simulator slips, replays err by a constant."""
    seen = []

    def roll_out(job):
        task = store.spec.task(job.task)
        count = len(job.seeds)
        physics = run_policy(make_env(count, 0.0, task), seek_policy, job.seeds, camera="front")
        start = {"agent_pos": physics.agent_pos[:, 0], "goal": physics.goal[:, 0]}
        slipping = make_env(count, 0.04, task)
        learned = run_policy(slipping, seek_policy, job.seeds, options=start, camera="front")
        floor = RandomPolicy(replace(job.recorded, lower=LOWER, step=STEP), job.seeds)
        random = run_policy(make_env(count, 0.0, task), floor, job.seeds)
        return Rollouts(physics, learned, random, physics.distance + 0.02)

    def replay(job):
        clips = job.clips
        near, far = np.maximum(clips.frames, 10) - 10, np.maximum(clips.frames, 90) - 90
        tool, body = clips.positions[..., :3] + [0.03, 0, 0], clips.positions[..., 3:6]
        distance = np.zeros(clips.frames.shape[:2])
        own = Replayed(near, clips.state, tool, body, distance)
        return Replays(own, replace(own, frames=far), clips.frames, tool, body + np.array([0, 0.02, 0]))

    def run_jobs(open_worker, jobs, workers, bar):
        seen.extend(jobs)
        return [roll_out(job) if isinstance(job, RolloutJob) else replay(job) for job in jobs]

    monkeypatch.setattr(module, "ClipStore", lambda path: store)
    monkeypatch.setattr(module, "run_jobs", run_jobs)

    def call(**options):
        seen.clear()
        return compare(CompareConfig(**options), tmp_path), seen

    return call


def test_compare_writes_everything_and_reports_it(run_with_dots, tmp_path):
    figures, jobs = run_with_dots(episodes=30, replay_steps=16, kept_episodes=2)
    sizes = [len(job.seeds) for job in jobs if isinstance(job, RolloutJob)]
    assert sizes == [SHARD, 30 - SHARD] * 2
    assert sum(isinstance(job, ReplayJob) for job in jobs) == 2
    for task in ("reach", "soft_push"):
        values = figures["tasks"][task]
        assert values["episodes"] == 30 and values["success_physics"] > values["success_random_physics"]
        assert values["judge"]["bias_m"] == pytest.approx(0.02, abs=1e-5)
        for name, kept in (("physics", 2), ("learned", 2), ("random", 0)):
            rollouts = load_rollouts(tmp_path / "compare" / f"{task}_{name}.npz")
            assert len(rollouts) == 30 and len(rollouts.frames) == kept
        clips = load_arrays(tmp_path / "compare" / f"{task}_replay.npz")
        assert clips["true"].shape == clips["predicted"].shape == (1, 17, 32, 32, 3)
        assert clips["distance_true"].shape == clips["distance_predicted"].shape == (1, 17)
    written = json.loads((tmp_path / "compare" / "compare.json").read_text())
    assert len(written["tasks"]["reach"]["table"]) == 30
    for task in figures["tasks"].values():
        assert "table" not in task
    assert figures["pooled"]["bias"] == pytest.approx(
        np.mean([task["bias"] for task in figures["tasks"].values()])
    )


def test_the_replay_is_pooled_over_tasks_by_horizon(run_with_dots):
    figures, _ = run_with_dots(episodes=5)
    replay = figures["replay"]
    assert figures["rollout_moving_psnr_db"] == replay["moving_psnr_db"]
    assert list(replay["moving_psnr_db"]) == ["1", "4", "8", "16"]
    for horizon, own in replay["moving_psnr_db"].items():
        assert own > 25 > replay["other_motions_moving_psnr_db"][horizon]
        assert replay["ceiling_moving_psnr_db"][horizon] > 60
        assert replay["repeat_last_moving_psnr_db"][horizon] < 12
    assert replay["tool_drift_m"]["8"] == pytest.approx(0.03, abs=1e-6)
    assert replay["object_drift_m"]["8"] == pytest.approx(0.0, abs=1e-6)
    assert replay["object_probe_error_m"]["8"] == pytest.approx(0.02, abs=1e-6)
    assert replay["clips"] == 2 and replay["steps"] == 16


def test_starts_are_shared_by_seed_and_differ_between_tasks(run_with_dots):
    first, jobs = run_with_dots(episodes=30)
    again, _ = run_with_dots(episodes=30)
    assert first == again
    seeds = [seed for job in jobs if isinstance(job, RolloutJob) for seed in job.seeds]
    assert len(set(seeds)) == 60
    assert start_seeds("reach", 30, 0) == tuple(seeds[:30]) != start_seeds("reach", 30, 1)


def test_random_commands_are_as_lively_as_the_data(run_with_dots):
    _, jobs = run_with_dots(episodes=2)
    recorded = next(job.recorded for job in jobs if isinstance(job, RolloutJob))
    assert recorded.step == pytest.approx([0.01, 0, 0], abs=1e-6)
    assert recorded.upper == pytest.approx([0.2, 0, 0], abs=0.01)


def test_nothing_long_enough_to_replay_is_an_error(run_with_dots):
    with pytest.raises(DatasetError, match="no val episode of 41 frames"):
        run_with_dots(episodes=2, replay_steps=40)
