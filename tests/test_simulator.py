"""The learned simulator from Python: the README's five lines, and everything that they stand on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import robosim
from robosim.adapter import ActionAdapter, AdapterBundle, save_adapter
from robosim.errors import CheckpointError, ConfigError, OutputError, UnsupportedError
from robosim.simulator import Observation, Simulator
from robosim.world_model import LearnedEnv
from robosim.world_model.picture import PictureError
from tests.toy_run import SIZE, make_toy_bundle, toy_run
from tests.world_model.conftest import make_world

WALK = [
    ("press", 3),
    ("step", 0.04),
    ("press", 0),
    ("step", -0.06),
    ("step", 0.03),
    ("press", 7),
    ("press", 1),
]
"""Longer than the window of the toy dynamics: the cache has gone round."""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return toy_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def loaded(run) -> Simulator:
    return robosim.load(run, device="cpu")


@pytest.fixture
def sim(loaded) -> Simulator:
    return loaded.copy()


def take(sim: Simulator, move: tuple[str, float]) -> Observation:
    kind, value = move
    return sim.press(int(value)) if kind == "press" else sim.step(sim.observation.command + value)


def assert_same(left: Observation, right: Observation) -> None:
    for field in fields(Observation):
        assert np.array_equal(getattr(left, field.name), getattr(right, field.name), equal_nan=True), (
            field.name
        )


def test_the_five_lines_of_the_readme(run, tmp_path):
    Image.fromarray(np.full((90, 160, 3), 120, np.uint8)).save(tmp_path / "photo.png")
    sim = robosim.load(run)
    before = sim.reset(tmp_path / "photo.png")
    obs = sim.step(before.command + 0.1)
    assert obs.frame.shape == (SIZE, SIZE, 3) and obs.frame.dtype == np.uint8
    assert (obs.frame != before.frame).any()
    assert obs.joints.shape == (8,) and obs.joints.dtype == np.float32 and (obs.joints != before.joints).any()


def test_importing_robosim_is_light():
    code = "import robosim, sys; print(*(m for m in ('torch', 'mujoco', 'numpy', 'PIL') if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""


def test_a_step_is_that_of_the_environment(loaded):
    """Bit for bit: what a person sees is what policies are trained and judged in."""
    low, high = loaded.limits
    rest = (low + high) / 2
    commands = [rest + np.float32(0.05) * np.sin(np.arange(8) + step, dtype=np.float32) for step in range(8)]
    sim = loaded.copy()
    frame = sim.starts[1]
    env = sim.env("reach")
    assert isinstance(env, LearnedEnv)
    options = {"frames": frame[None, None], "agent_pos": rest[None], "previous_command": rest[None] + 0.01}
    observation, info = env.reset(seed=[7], options=options)
    seen = sim.start(frame[None], rest, rest + 0.01, seed=7)
    for command in commands:
        observation, _, _, _, info = env.step(command[None])
        seen = sim.step(command)
        assert np.array_equal(observation["pixels"]["front"][0], seen.frame)
        assert np.array_equal(observation["agent_pos"][0], seen.joints)
        assert np.array_equal(info["object"][0], seen.object) and np.array_equal(info["goal"][0], seen.goal)
        assert sim.task_distance("reach") == pytest.approx(info["task_distance"][0])


def test_a_press_is_the_playable_latent_action_itself(sim, monkeypatch):
    """It must not go through the adapter and back, which loses some of it."""
    sim.reset()
    given = []
    step = type(sim.world).step
    monkeypatch.setattr(
        type(sim.world), "step", lambda self, state, z: given.append(z) or step(self, state, z)
    )
    before = sim.observation
    after = sim.press(5)
    assert np.array_equal(given[0][0].numpy(), sim.playable[5])
    rows = (torch.from_numpy(row)[None] for row in (sim.playable[5], before.command, before.joints))
    told = sim.bundle.adapter.latent_to_command(*rows)
    assert np.array_equal(after.command, told[0].numpy())


def test_commands_are_held_to_the_limits(sim):
    low, high = sim.limits
    sim.reset()
    assert np.array_equal(sim.step(high + 9).command, high)
    assert np.array_equal(sim.step(low - 9).command, low)


def test_calls_that_make_no_sense(sim):
    with pytest.raises(RuntimeError, match="reset"):
        sim.press(0)
    with pytest.raises(RuntimeError, match="reset"):
        sim.step(np.zeros(8))
    sim.reset()
    for command in (np.zeros(3), np.full(8, np.nan)):
        with pytest.raises(ValueError, match="command must be 8 finite numbers"):
            sim.step(command)
    for code in (8, -1):
        with pytest.raises(ValueError, match=f"0 to 7, not {code}"):
            sim.press(code)
    with pytest.raises(ValueError, match="context frames must be uint8"):
        sim.start(np.zeros((1, 4, 4, 3), np.uint8))
    with pytest.raises(PictureError, match=r"no\.png can't be opened"):
        sim.reset("no.png")


def test_the_seed_decides_the_start_and_the_noise(sim):
    first = [sim.reset(seed=seed).frame for seed in range(8)]
    assert len({frame.tobytes() for frame in first}) > 1
    shown = []
    for seed in (1, 1, 2):
        sim.start(sim.starts[:1], seed=seed)
        shown.append(sim.press(0).frame)
    assert np.array_equal(shown[0], shown[1]) and not np.array_equal(shown[0], shown[2])


def test_a_snapshot_is_come_back_to_exactly(sim):
    sim.reset()
    for move in WALK[:3]:
        take(sim, move)
    kept = sim.snapshot()
    once = [take(sim, move) for move in WALK]
    for _ in range(2):
        assert_same(sim.restore(kept), kept.observation)
        for move, wanted in zip(WALK, once, strict=True):
            assert_same(take(sim, move), wanted)


def test_copies_go_on_independently(sim):
    sim.reset()
    take(sim, WALK[0])
    other = sim.copy()
    assert other.world is sim.world
    here = take(sim, ("press", 2))
    assert_same(take(other, ("press", 2)), here)
    take(other, ("press", 4))
    assert_same(sim.observation, here)


WORLDS = {
    "each frame alone": {},
    "temporal tokenizer": {"temporal": True},
    "vector quantised": {"quantiser": "vq"},
    "without a draft": {"draft": False},
}


@pytest.mark.parametrize("kind", WORLDS)
def test_a_known_step_is_repeated_exactly(loaded, kind):
    """With one pass instead of K + 1; what follows must be the same to the bit, noise and cache included."""
    sim = Simulator(make_world(size=SIZE, **WORLDS[kind]), loaded.spec, loaded.bundle, starts=loaded.starts)
    sim.reset()
    kept, moments = sim.snapshot(), []
    for move in WALK:
        take(sim, move)
        moments.append(sim.moment)
    wanted = [take(sim, move) for move in WALK]
    sim.restore(kept)
    for moment in moments:
        assert_same(sim.repeat(moment), moment.observation)
    for move, seen in zip(WALK, wanted, strict=True):
        assert_same(take(sim, move), seen)


def test_a_saved_simulator_needs_no_video(sim, tmp_path):
    sim.save(tmp_path / "arm")
    assert not (tmp_path / "arm" / "clips").exists()
    again = robosim.load(tmp_path / "arm", device="cpu")
    assert (again.name, again.spec, again.renderer) == (sim.name, sim.spec, sim.renderer)
    assert np.array_equal(again.starts, sim.starts)
    assert_same(again.reset(seed=3), sim.reset(seed=3))
    for move in WALK:
        assert_same(take(again, move), take(sim, move))
    with pytest.raises(OutputError, match="already"):
        sim.save(tmp_path / "arm")


def test_sampling_is_the_runs_unless_given(run, loaded):
    other = robosim.load(run, device="cpu", steps=1, temperature=0.0).world.sampling
    assert (other.steps, other.temperature, other.order) == (1, 0.0, loaded.world.sampling.order)
    assert loaded.world.sampling.steps == 3


@pytest.mark.parametrize("option", [{"steps": 0}, {"temperature": -1.0}, {"temperature": float("nan")}])
def test_sampling_that_makes_no_sense_gets_a_sentence(run, option):
    with pytest.raises(ConfigError, match=f"{next(iter(option))} must be .* or more, not"):
        robosim.load(run, device="cpu", **option)


def test_without_an_adapter_latent_actions_still_work(run, tmp_path):
    shutil.copytree(run, tmp_path / "video", ignore=shutil.ignore_patterns("adapter"))
    sim = robosim.load(tmp_path / "video", device="cpu")
    before = sim.reset()
    assert np.isnan(before.joints).all() and before.joints.shape == (8,)
    assert (sim.press(2).frame != before.frame).any()
    for call in (lambda: sim.step(np.zeros(8)), lambda: sim.env("reach"), lambda: sim.task_distance("reach")):
        with pytest.raises(UnsupportedError, match="robosim adapt"):
            call()
    sim.save(tmp_path / "saved")
    assert robosim.load(tmp_path / "saved").bundle is None


@pytest.fixture
def damaged(run, tmp_path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "harm, words",
    [
        (lambda run: shutil.rmtree(run), "there is no folder .*run; train a simulator with: robosim demo"),
        (lambda run: [shutil.rmtree(path) for path in run.iterdir()], "is no run folder"),
        (
            lambda run: shutil.rmtree(run / "dynamics"),
            "no finished dynamics; run: robosim train stage=dynamics",
        ),
        (lambda run: (run / "tokenizer/model.json").unlink(), "no finished tokenizer; run: robosim train"),
        (lambda run: shutil.rmtree(run / "clips"), "neither clips/ nor spec.json"),
        (
            lambda run: spoil(run / "dynamics/model.safetensors"),
            r"dynamics/model.safetensors is damaged.*again",
        ),
        (lambda run: spoil(run / "adapter/adapter.safetensors"), r"adapter.safetensors is damaged"),
        (lambda run: spoil(run / "tokenizer/model.json"), r"tokenizer/model.json can't be read"),
    ],
)
def test_a_folder_that_is_no_whole_run_gets_a_sentence(damaged, harm, words):
    harm(damaged)
    with pytest.raises(CheckpointError, match=words):
        robosim.load(damaged, device="cpu")


def test_parts_of_different_runs_are_refused(damaged, run, tmp_path):
    robosim.load(run, device="cpu").save(tmp_path / "saved")
    about = json.loads((tmp_path / "saved/spec.json").read_text())
    about["spec"]["size"] = 64
    (tmp_path / "saved/spec.json").write_text(json.dumps(about))
    with pytest.raises(CheckpointError, match="64 px, its models make 32 px"):
        robosim.load(tmp_path / "saved")
    config = ActionAdapter().to_config() | {"latent_size": 3}
    whole = make_toy_bundle(robosim.load(run, device="cpu").spec.robot)
    other = AdapterBundle(ActionAdapter.from_config(config), whole.probe, whole.judge)
    save_adapter(damaged / "adapter", other)
    with pytest.raises(CheckpointError, match=r"doesn't fit its latent actions.*robosim adapt"):
        robosim.load(damaged, device="cpu")


def test_damaged_starts_get_a_sentence(sim, tmp_path):
    sim.save(tmp_path / "arm")
    spoil(tmp_path / "arm/starts.npz")
    with pytest.raises(CheckpointError, match=r"starts\.npz is missing or damaged"):
        robosim.load(tmp_path / "arm", device="cpu")
