"""A simulator of the contract that fits on one page: a dot on a plane, driven by two joints and a gripper."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robosim.checkpoint import atomic_write_json, finish_stage
from robosim.evaluation.agreement import agreement_figures, task_figures
from robosim.evaluation.policies import CommandRange, RandomPolicy
from robosim.evaluation.rollouts import run_policy, save_arrays, save_rollouts
from robosim.evaluation.summary import STAGES
from robosim.spec import EnvSpec, RobotSpec, SuccessRule, TaskSpec

SIZE = 32
ROBOT = RobotSpec("dot", ("x", "y", "gripper"), ("rad", "rad", "fraction"), (-1, -1, 0), (1, 1, 1))
RECORDED = CommandRange(np.float32([-1, -1, 0]), np.float32([1, 1, 1]), np.float32([0.1, 0.1, 0]))
TASK = TaskSpec("reach", "move the dot to the marker", 12, 0.1, "tool", (0, 1))


class DotEnv:
    """The dot moves to the commanded place at once; `slip` metres are added to every step along x."""

    def __init__(self, num_envs: int, slip: float = 0.0, task: TaskSpec = TASK) -> None:
        self.num_envs, self.slip, self.task_spec = num_envs, slip, task
        self.metadata = {"render_fps": 10}
        self.steps_taken = 0

    def get_attr(self, name):
        return self.call(name)

    def call(self, name, *args):
        values = {
            "_max_episode_steps": self.task_spec.horizon,
            "task_description": self.task_spec.instruction,
        }
        return (values[name],) * self.num_envs

    def reset(self, *, seed=None, options=None):
        options = options or {}
        draws = [np.random.default_rng(s).uniform(-0.8, 0.8, (2, 2)) for s in seed]
        self.joints = np.zeros((self.num_envs, 3), np.float32)
        self.joints[:, :2] = np.float32([draw[0] for draw in draws])
        self.goal = np.float32([[*draw[1], 0] for draw in draws])
        if "agent_pos" in options:
            self.joints = np.array(options["agent_pos"], np.float32)
        if "goal" in options:
            self.goal = np.array(options["goal"], np.float32)
        self.rule = SuccessRule(self.task_spec.success_distance, self.num_envs)
        self.done = np.zeros(self.num_envs, bool)
        self.success = np.zeros(self.num_envs, bool)
        self.time = np.zeros(self.num_envs, int)
        return self._observation(), self._info()

    def step(self, action):
        self.steps_taken += 1
        before = self._info()["task_distance"]
        alive = ~self.done
        moved = np.clip(action, -1, 1) + np.float32([self.slip, 0, 0])
        self.joints = np.where(alive[:, None], moved, self.joints).astype(np.float32)
        self.time += alive
        holds = self.rule.update(self._info()["task_distance"])
        self.success |= alive & holds
        truncated = (self.time >= self.task_spec.horizon) & ~self.success
        reward = np.where(alive, before - self._info()["task_distance"] + self.success, 0).astype(np.float32)
        self.done = self.success | truncated
        return self._observation(), reward, self.success.copy(), truncated, self._info()

    def _tool(self):
        return np.concatenate([self.joints[:, :2], np.zeros((self.num_envs, 1), np.float32)], axis=1)

    def _info(self):
        tool = self._tool()
        distance = self.task_spec.distance(tool, tool, self.goal).astype(np.float32)
        facts = {"task_distance": distance, "tool": tool, "object": tool, "goal": self.goal}
        return facts | {"is_success": self.success.copy()}

    def _observation(self):
        frames = np.full((self.num_envs, SIZE, SIZE, 3), 40, np.uint8)
        for row in range(self.num_envs):
            for channel, place in enumerate((self.goal[row], self._tool()[row])):
                x, y = np.int64(np.round((np.clip(place[:2], -1, 1) + 1) / 2 * (SIZE - 3)))
                frames[row, y : y + 3, x : x + 3, channel] = 230
        return {"pixels": {"front": frames}, "agent_pos": self.joints.copy()}


class SeekPolicy:
    """Walks half of the way to the marker at every step; it reads the marker off the picture."""

    def reset(self, num_rows):
        self.rows = num_rows

    def act(self, observation, instruction):
        assert len(instruction) == self.rows
        frames = observation["pixels"]["front"].astype(int)
        red = frames[..., 0] > 150
        command = observation["agent_pos"].copy()
        for row, mask in enumerate(red):
            if mask.any():
                y, x = np.argwhere(mask).mean(0)
                goal = (np.array([x, y]) - 1) / (SIZE - 3) * 2 - 1
                command[row, :2] += 0.5 * (goal - command[row, :2])
        return command


@pytest.fixture
def recorded_range():
    return RECORDED


@pytest.fixture
def env_spec():
    return EnvSpec(robot=ROBOT, tasks=(TASK,), size=SIZE)


@pytest.fixture
def make_env():
    return DotEnv


@pytest.fixture
def seek_policy():
    return SeekPolicy()


@pytest.fixture
def finished_run(built_run, tmp_path):
    """A run folder as the stages leave it, with two tasks of the dot and plausible figures."""
    return Path(shutil.copytree(built_run, tmp_path / built_run.name))


@pytest.fixture(scope="session")
def built_run(tmp_path_factory):
    run = tmp_path_factory.mktemp("evaluation") / "dot-nano-s0"
    seek_policy = SeekPolicy()
    horizons = ("1", "4", "8", "16")

    def falling(*values):
        return dict(zip(horizons, values, strict=True))

    figures = {
        "collect": {"episodes": 120, "frames": 4321},
        "tokenizer": {"psnr_db": 29.1, "moving_psnr_db": 22.2, "codes_used": 987},
        "latent_action": {"psnr_db": 19.3, "shuffled_psnr_db": 11.6},
        "dynamics": {
            "moving_psnr_db": falling(16.8, 15.2, 15.2, 14.2),
            "repeat_last_moving_psnr_db": falling(9.8, 10.0, 10.3, 10.4),
            "random_latents_moving_psnr_db": falling(14.0, 11.6, 10.8, 10.9),
            "ceiling_moving_psnr_db": falling(19.2, 20.7, 22.1, 22.0),
            "psnr_db": falling(21.0, 20.1, 19.0, 18.1),
            "delta_psnr_db": 3.0,
            "frames_per_second": 212.0,
        },
        "adapt": {
            "labels": 196,
            "episodes": 7,
            "command_mae_rad": 0.012,
            "tool_mae_m": 0.004,
            "probe_error_m": {"tool": 0.006, "object": 0.011},
        },
        "pretrain": {"reach": {"bc_loss": 0.1}, "soft_push": {"bc_loss": 0.2}},
    }
    tasks, seeds = {}, list(range(20))
    for number, name in enumerate(("reach", "soft_push")):
        task = replace(TASK, name=name)
        physics = run_policy(DotEnv(20, 0, task), seek_policy, seeds, camera="front")
        start = {"agent_pos": physics.agent_pos[:, 0], "goal": physics.goal[:, 0]}
        slipping = DotEnv(20, 0.03 + 0.1 * number, task)
        learned = run_policy(slipping, seek_policy, seeds, options=start, camera="front")
        floor = RandomPolicy(RECORDED, seeds)
        random = run_policy(DotEnv(20, 0, task), floor, seeds)
        tasks[name] = task_figures(physics, learned, random, physics.distance + 0.005, task, 0)
        for kind, rollouts in (("physics", physics), ("learned", learned), ("random", random)):
            save_rollouts(run / "compare" / f"{name}_{kind}.npz", rollouts, 3)
        clips = {"true": physics.frames[:3], "predicted": learned.frames[:3]}
        save_arrays(run / "compare" / f"{name}_replay.npz", clips)
        save_arrays(run / "dynamics" / "strips.npz", clips)
    pooled = agreement_figures(np.array([True, False]), np.array([True, True]), 0)
    replayed = {
        "clips": 48,
        "moving_psnr_db": falling(15.0, 14.0, 13.2, 12.1),
        "other_motions_moving_psnr_db": falling(12.0, 10.5, 10.0, 9.7),
        "repeat_last_moving_psnr_db": falling(9.8, 10.0, 10.3, 10.4),
        "ceiling_moving_psnr_db": falling(19.2, 20.7, 22.1, 22.0),
        "tool_drift_m": falling(0.008, 0.013, 0.02, 0.031),
        "object_drift_m": falling(0.011, 0.012, 0.015, 0.022),
        "tool_probe_error_m": falling(0.006, 0.006, 0.006, 0.006),
        "object_probe_error_m": falling(0.009, 0.009, 0.009, 0.009),
    }
    figures["compare"] = {
        "tasks": tasks,
        "pooled": pooled,
        "replay": replayed,
        "rollout_moving_psnr_db": replayed["moving_psnr_db"],
    }
    for number, (stage, folder) in enumerate(STAGES.items()):
        finish_stage(run / folder, stage, {"seed": 7}, {}, 20.5 * (number + 1), figures[stage])
        log = [{"step": step, "loss": 3 / (1 + step) + 0.1 * number} for step in range(0, 100, 10)]
        (run / folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    atomic_write_json(run / "compare" / "compare.json", figures["compare"])
    return run
