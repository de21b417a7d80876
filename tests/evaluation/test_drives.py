from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robosim.evaluation import drives
from robosim.evaluation.drives import drive_by_commands, drive_by_latents, infer, reconstruct
from tests.evaluation.by_hand import NoBar, noise, stretches_of
from tests.world_model.conftest import make_world

SIZE, CONTEXT = 16, 3


@pytest.fixture(scope="module")
def world():
    return make_world()


def test_latent_actions_move_the_frames_that_they_lie_between(world):
    frames = noise(2, 7, SIZE, SIZE)
    stretches = stretches_of(frames, CONTEXT)
    latents, now = infer(world, stretches), CONTEXT - 1
    shown = drive_by_latents(world, frames[:, :CONTEXT], latents[:, now:], [5, 6], NoBar())
    assert torch.equal(latents, world.infer_latents(frames))
    assert torch.equal(
        shown, world.rollout(frames[:, :CONTEXT], world.infer_latents(frames)[:, now:], seed=5)
    )


def test_stretches_are_looked_at_in_parts_of_any_size(world, monkeypatch):
    stretches = stretches_of(noise(3, 5, SIZE, SIZE))
    whole = infer(world, stretches), reconstruct(world, stretches)
    monkeypatch.setattr(drives, "FRAMES", 1)
    for a, b in zip(whole, (infer(world, stretches), reconstruct(world, stretches)), strict=True):
        assert a.shape == b.shape and torch.allclose(a.float(), b.float(), atol=1)


def test_a_rollout_depends_on_its_own_seed_alone_and_goes_as_far_as_it_must(world, monkeypatch):
    frames = noise(3, 6, SIZE, SIZE)
    latents = infer(world, stretches_of(frames))
    together = drive_by_latents(world, frames[:, :1], latents, [7, 8, 9], NoBar())
    alone = drive_by_latents(world, frames[2:, :1], latents[2:], [9], NoBar())
    assert (together[2:] != alone).float().mean() < 0.01
    assert torch.equal(drive_by_latents(world, frames[2:, :1], latents[2:], [9], NoBar()), alone)
    assert not torch.equal(drive_by_latents(world, frames[2:, :1], latents[2:], [3], NoBar()), alone)
    monkeypatch.setattr(drives, "BATCH", 1)
    short = drive_by_latents(world, frames[:, :1], latents, [7, 8, 9], NoBar(), np.array([5, 2, 5]))
    assert short[1, 1].any() and not short[1, 2:].any()
    assert (short[2:] != alone).float().mean() < 0.01


class Listener:
    """Stands in for `LearnedEnv`: shows the command that it was given, and keeps what it was started with."""

    started: list

    def __init__(self, world, spec, task, adapter, probe, judge, num_envs):
        assert len(spec.cameras) == 1 and spec.task(task).subject == "none"
        self.camera, self.rows, self.horizon = spec.cameras[0], num_envs, spec.task(task).horizon

    def reset(self, seed, options):
        Listener.started.append((seed, options))

    def step(self, command):
        frames = np.broadcast_to(command[:, :1, None, None], (self.rows, SIZE, SIZE, 3)).astype(np.uint8)
        return {"pixels": {self.camera: frames}}, 0, 0, 0, {}


def commanded(context: int, start: int):
    count = np.arange(2 * 8, dtype=np.float32).reshape(2, 8, 1) + np.zeros((1, 1, 3), np.float32)
    labels = {"command": count, "state": 100 + count, "before": np.full((2, 3), 77, np.float32)}
    stretches = stretches_of(noise(2, 8, SIZE, SIZE), context, [8, 6], **labels)
    stretches.start[:] = start
    return stretches


def test_commands_act_after_the_present_and_start_from_what_is_known_then(env_spec, monkeypatch):
    from dataclasses import replace

    monkeypatch.setattr(drives, "LearnedEnv", Listener)
    Listener.started = []
    stretches, bundle = commanded(CONTEXT, 0), SimpleNamespace(adapter=None, probe=None)
    two_cameras = replace(env_spec, size=SIZE, cameras=("front", "side"))
    shown = drive_by_commands(SimpleNamespace(), two_cameras, bundle, stretches, 5, NoBar())
    assert shown[0, :, 0, 0, 0].tolist() == [2, 3, 4, 5, 6], "command t acts between frames t and t + 1"
    assert shown[1, :3, 0, 0, 0].tolist() == [10, 11, 12]
    ((seeds, options),) = Listener.started
    assert seeds == [5, 6]
    assert options["agent_pos"][:, 0].tolist() == [102, 110]
    assert options["previous_command"][:, 0].tolist() == [1, 9]
    assert torch.equal(torch.from_numpy(options["frames"]), stretches.frames[:, :CONTEXT])


@pytest.mark.parametrize(("start", "told"), [(4, [77, 77]), (0, [-100, -108])])
def test_of_one_context_frame_the_command_before_is_the_episodes_or_to_stay(start, told):
    bundle = SimpleNamespace(adapter=SimpleNamespace(first_command=lambda joints: -joints))
    assert drives.previous_command(bundle, commanded(1, start))[:, 0].tolist() == told
