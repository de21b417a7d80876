"""Runs on recordings from elsewhere: what can be done with them is done, the rest gets one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from robosim_datasets.lerobot_io import load_episode, open_dataset

import robosim
from robosim.errors import DatasetError, UnsupportedError
from robosim.evaluation.compare import CompareConfig, compare
from robosim.simulator import Simulator
from robosim.stage_runner import flatten
from robosim.training.adapt import adapt
from robosim.training.imagination import PretrainConfig, pretrain
from robosim.training.simulator import open_learned_env
from robosim.viewer.play.session import PlayError, PlaySession
from tests.imported_run import ADAPT, COLUMNS, write_adapted_run, write_imported_run

ADAPTED = [kind for kind in COLUMNS if kind != "video"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Callable[[str], Path]:
    """By kind: a trained run, with an adapter where its video has commands. No test changes it."""
    made: dict[str, Path] = {}

    def of(kind: str) -> Path:
        if kind not in made:
            write = write_imported_run if kind == "video" else write_adapted_run
            made[kind] = write(tmp_path_factory.mktemp("run") / "imported", kind)
        return made[kind]

    return of


@pytest.fixture
def load(run) -> Callable[[str], Simulator]:
    return lambda kind: robosim.load(run(kind), device="cpu")


def test_video_alone_gets_a_sentence_that_says_what_is_needed(run):
    with pytest.raises(DatasetError) as error:
        adapt(ADAPT, run("video"), seed=0)
    sentence = str(error.value)
    assert "\n" not in sentence
    for words in (
        "import or collect",
        "state and action",
        "up to 60 transitions",
        f"robosim play run={run('video')}",
    ):
        assert words in sentence
    assert not (run("video") / "adapter").exists()


@pytest.mark.parametrize("kind", ADAPTED)
def test_figures_are_finite_and_named(run, kind):
    figures = flatten(adapt(ADAPT, run(kind), seed=0))
    assert all(math.isfinite(value) for value in figures.values())
    assert figures["labels"] == 55 and {"command_error", "idle_command_error", "latent_r2"} <= set(figures)
    assert ("decoded.probe_state_error" in figures) == bool(COLUMNS[kind][0])
    assert not [name for name in figures if "judge" in name or "tool" in name or "_rad" in name]


@pytest.mark.parametrize("kind", ADAPTED)
def test_the_environment_runs_to_its_horizon_without_success_or_reward(run, kind):
    states, commands = COLUMNS[kind]
    env = open_learned_env(run(kind), "imported", num_envs=2)
    assert isinstance(env.single_observation_space, spaces.Dict)
    assert env.single_observation_space["agent_pos"].shape == (len(states),)
    assert env.single_action_space.shape == (len(commands),)
    observation, info = env.reset(seed=0)
    for step in range(5):
        assert not (info["is_success"].any() or env.get_attr("_truncated")[0].any()), step
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        assert not reward.any() and not terminated.any()
    assert truncated.all() and np.isinf(info["task_distance"]).all() and np.isnan(info["tool"]).all()


@pytest.mark.parametrize("kind", ADAPTED)
def test_a_step_is_that_of_the_environment(load, kind):
    sim = load(kind)
    env = sim.env("imported")
    states, commands = COLUMNS[kind]
    options = {"frames": sim.starts[None, :1], "agent_pos": np.full((1, len(states)), 9.0)}
    observation, _ = env.reset(seed=[7], options=options)
    seen = sim.start(sim.starts[:1], np.full(len(states), 9.0), seed=7)
    for step in range(3):
        assert np.array_equal(observation["pixels"]["front"][0], seen.frame), step
        assert np.array_equal(observation["agent_pos"][0], seen.joints)
        command = np.full(len(commands), 2.0 * step, np.float32)
        observation, seen = env.step(command[None])[0], sim.step(command)


def test_a_motion_moves_the_state_each_time_it_is_told(load):
    sim = load("motions")
    start = sim.reset(joints=np.full(4, 12.0))
    moved = [sim.step(np.array([3.0, 0.0, 0.0])).joints[0] for _ in range(3)]
    assert start.joints[0] < moved[0] < moved[1] < moved[2]


@pytest.mark.parametrize("kind", ["joints", "targets beside other states"])
def test_to_stay_at_the_start_moves_nothing(load, kind):
    """Of joints it means to send them; other states don't tell the target, so whatever comes first is to stay."""
    sim = load(kind)
    joints = np.array([14.0, 15.0, 0.2, -0.3], np.float32)[: len(COLUMNS[kind][0])]
    start = sim.start(sim.starts[:1], joints)
    told = start.command if kind == "joints" else np.array([21.0, 9.0, 0.0], np.float32)
    adapter, row = sim.bundle.adapter, lambda values: torch.from_numpy(values)[None]
    first = (row(told), adapter.first_command(row(joints)), row(joints))
    known = (row(told), row(told), row(joints))
    assert torch.equal(adapter.command_to_latent(*first), adapter.command_to_latent(*known))
    assert torch.equal(adapter.predict_joints(*first), adapter.predict_joints(*known))
    sim.step(told)
    stayed = sim.moment
    sim.start(sim.starts[:1], joints, previous_command=told)
    sim.step(told)
    assert torch.equal(stayed.latent_1A, sim.moment.latent_1A)
    assert np.array_equal(stayed.observation.joints, sim.observation.joints)
    env = sim.env("imported")
    env.reset(seed=[0], options={"frames": sim.starts[None, :1], "agent_pos": joints[None]})
    assert np.array_equal(env.step(told[None])[0]["agent_pos"][0], stayed.observation.joints)


def test_a_press_at_an_unknown_target_goes_on_from_a_known_one(load):
    sim = load("targets beside other states")
    assert np.isnan(sim.reset(seed=1).command).all()
    pressed = sim.press(2)
    assert np.isfinite(pressed.command).all() and np.isfinite(pressed.joints).all()
    assert np.isfinite(sim.step(pressed.command).joints).all()


@pytest.mark.parametrize("kind", COLUMNS)
def test_every_kind_is_played_by_latent_actions(run, load, kind, tmp_path):
    play = PlaySession(load(kind), tmp_path)
    assert play.tasks == [] and play.has_commands == (kind == "joints")
    start = play.start_from_dataset(6, 4)
    moved = play.press(2)
    assert (moved.frame != start.frame).any() and moved.twin is None
    assert moved.command.shape == (len(COLUMNS[kind][1]),)
    assert np.array_equal(play.undo().frame, start.frame)


@pytest.mark.parametrize(
    "kind, words", [("video", "robosim adapt"), ("motions", r"\(ee_delta\) are no targets")]
)
def test_play_says_why_there_are_no_commands(load, kind, words, tmp_path):
    play = PlaySession(load(kind), tmp_path)
    for ask in (lambda: play.command(np.zeros(3)), play.start_recording):
        with pytest.raises(PlayError, match=words):
            ask()


def test_joint_targets_are_played_and_recorded(load, tmp_path):
    play = PlaySession(load("joints"), tmp_path)
    start = play.start_from_dataset(6, 3)
    play.start_recording()
    told = [play.command(start.command + 1.0).command for _ in range(4)]
    assert (told[0] != start.command).any()
    dataset = open_dataset(play.stop_recording()[1][0])
    episode = load_episode(dataset, 0)
    assert (
        dataset.spec.labels == ("state", "action") and not episode.reward.any() and not episode.success.any()
    )
    assert np.allclose(episode.action[:4], told) and np.allclose(episode.state[0], start.joints)


def test_what_needs_positions_says_so(run, load):
    for call in (
        lambda: pretrain(PretrainConfig(), run("joints")),
        lambda: compare(CompareConfig(), run("joints")),
    ):
        with pytest.raises(DatasetError, match=r"(pretrain|compare) needs a task whose positions"):
            call()
    assert not (run("joints") / "compare").exists()
    sim = load("joints")
    sim.reset()
    with pytest.raises(UnsupportedError, match="without positions"):
        sim.task_distance("imported")
