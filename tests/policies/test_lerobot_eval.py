"""The stock `lerobot-eval`, offline, runs our checkpoint in both simulators."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lerobot.envs.factory import make_env_config
from lerobot.envs.utils import env_to_policy_features

from robosim.errors import ConfigError
from robosim.physics.env import make_spec
from robosim.spec import EnvSpec


@pytest.fixture(scope="module")
def spec() -> EnvSpec:
    return make_spec("panda")


def lerobot_eval(checkpoint: Path, out: Path, *arguments: str) -> dict:
    """Run `lerobot-eval` for two episodes in a process without network; return its eval_info.json."""
    command = [
        sys.executable,
        "-m",
        "lerobot.scripts.lerobot_eval",
        f"--policy.path={checkpoint}",
        *arguments,
    ]
    command += ["--eval.n_episodes=2", "--eval.batch_size=2", f"--output_dir={out}"]
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=offline, cwd=out.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((out / "eval_info.json").read_text())


def test_the_environment_offers_what_the_policy_expects(spec):
    features = env_to_policy_features(make_env_config("robosim_physics", task="soft_push"))
    joints = spec.robot.num_joints
    assert {key: feature.shape for key, feature in features.items()} == {
        "action": (joints,),
        "observation.state": (joints,),
        "observation.images.front": (3, 64, 64),
    }


def test_unknown_task_and_missing_run_are_one_clear_line():
    with pytest.raises(ValueError, match=r"unknown task 'raech'; this dataset has reach, .*soft_push"):
        make_env_config("robosim_physics", task="raech")
    with pytest.raises(ConfigError, match=r"add --env\.run="):
        make_env_config("robosim_learned")


@pytest.mark.slow
def test_lerobot_eval_in_physics(demo_run, tmp_path):
    """With the policy that the demo pretrained inside the learned simulator."""
    policy = demo_run / "policy" / "reach" / "pretrained_model"
    info = lerobot_eval(policy, tmp_path / "eval", "--env.type=robosim_physics", "--env.task=reach")
    assert info["overall"]["n_episodes"] == 2
    assert len(info["overall"]["video_paths"]) == 2


@pytest.mark.slow
def test_lerobot_eval_in_the_learned_simulator(demo_run, tmp_path):
    """With the policy that the demo pretrained, on the demo's own run folder."""
    policy = demo_run / "policy" / "soft_push" / "pretrained_model"
    arguments = ("--env.type=robosim_learned", "--env.task=soft_push", f"--env.run={demo_run}")
    info = lerobot_eval(policy, tmp_path / "eval", *arguments)
    assert info["overall"]["n_episodes"] == 2
    assert len(info["overall"]["video_paths"]) == 2
