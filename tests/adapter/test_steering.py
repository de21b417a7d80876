"""Commands in the learned simulator, end to end but for the pictures: an arm that slips is led back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robosim.adapter import ActionAdapter, ActionAdapterConfig
from robosim.world_model import LearnedEnv
from robosim.world_model.protocols import ProbeReading
from tests.adapter.conftest import BOUND
from tests.adapter.test_action_adapter import servoed
from tests.contracts.toy_learned import make_toy_world

SLIP = 0.01
"""Rad by which the pictured arm goes too far each frame."""

STEPS = 25
"""Fewer than the task's horizon."""


class SlippingArm:
    """Stands for world model and probe: five joints follow their latent actions and slip, three aren't seen."""

    def __init__(self, trust: float) -> None:
        self.joints, self.trust = torch.zeros(1, 8), torch.tensor([trust] * 5 + [0.0] * 3)

    def step(self, state, latent) -> None:
        self.joints[:, :5] += torch.atanh((latent / BOUND).clamp(-0.98, 0.98)) / 20 + SLIP

    def read(self, frames) -> ProbeReading:
        place = torch.zeros(len(frames), 3)
        seen = torch.cat([self.joints[:, :5], torch.full((1, 3), 9.0)], 1)
        return ProbeReading(seen, place, place, place, self.trust)


@pytest.mark.parametrize(("trust", "led_back"), [(1.0, True), (0.0, False)])
def test_an_arm_that_slips_is_led_back_as_far_as_it_is_seen(spec, monkeypatch, trust, led_back):
    adapter = ActionAdapter(ActionAdapterConfig(rank=8))
    adapter.fit(servoed(spec), spec.robot)
    arm, world = SlippingArm(trust), make_toy_world(spec.size)
    monkeypatch.setattr(world, "step", arm.step)
    env = LearnedEnv(world, spec, "reach", adapter.requires_grad_(False), arm, None)
    frames = np.zeros((1, 1, spec.size, spec.size, 3), np.uint8)
    stay = np.zeros((1, 8), np.float32)
    env.reset(seed=0, options={"frames": frames, "agent_pos": stay})
    for _ in range(STEPS):
        observation, *_ = env.step(stay)
    off = arm.joints[:, :5].mean().item()
    assert (off < 0.4 * SLIP * STEPS) == led_back
    assert np.abs(observation["agent_pos"][:, 5:7]).max() < 0.05, "what isn't seen isn't believed"
