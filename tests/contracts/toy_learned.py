"""A learned simulator of toy size whose adapter and probe are simple formulas: the contract doesn't need training."""

from __future__ import annotations

import numpy as np
import torch

from robosim.spec import EnvSpec
from robosim.world_model import LearnedEnv, WorldModel
from robosim.world_model.decoding import SamplingConfig
from robosim.world_model.dynamics import DynamicsConfig
from robosim.world_model.latent_action import LatentActionConfig, LatentActionModel
from robosim.world_model.protocols import ProbeReading
from robosim.world_model.st_transformer import STConfig
from robosim.world_model.tokenizer import Tokenizer, TokenizerConfig
from robosim.world_model.world import make_dynamics


class ToyAdapter:
    """The arm covers nine tenths of the way to its command; each latent dimension is one joint's motion."""

    def command_to_latent(self, command, previous_command, joints):
        return (5 * (command - joints))[:, :5].clamp(-1.5, 1.5)

    def latent_to_command(self, latent, previous_command, joints):
        motion = torch.zeros_like(joints)
        motion[:, :5] = latent / 5
        return joints + motion

    def predict_joints(self, command, previous_command, joints):
        return joints + 0.9 * (command - joints)

    def first_command(self, joints):
        return joints

    def idle_command(self, previous_command):
        return previous_command


class ToyProbe:
    """Joints as a constant; positions from the brightness of the picture's thirds."""

    def __init__(self, joints: int) -> None:
        self.joints = torch.linspace(-0.4, -0.1, joints)

    def read(self, frames):
        thirds = frames.float().div(255).flatten(1, 2).mean(1)
        return ProbeReading(self.joints.expand(len(frames), -1), thirds, 1 - thirds, thirds.flip(-1) / 2)


class ToyJudge:
    def distance(self, reading, task):
        return (reading.tool - reading.goal).norm(dim=-1)


def make_toy_world(size: int) -> WorldModel:
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig(channels=8), size)
    latent_action = LatentActionModel(LatentActionConfig(channels=8, blocks=1), size)
    torch.nn.init.normal_(latent_action.forward_model.head.weight, std=0.2)
    config = DynamicsConfig(STConfig(dim=16, heads=2, layers=2, window=4))
    dynamics = make_dynamics(config, tokenizer, latent_action)
    return WorldModel(tokenizer, latent_action, dynamics, SamplingConfig(steps=2, temperature=0.0))


def make_toy_env(spec: EnvSpec, num_envs: int, **options) -> LearnedEnv:
    starts = np.random.default_rng(0).integers(0, 255, (6, 1, spec.size, spec.size, 3), dtype=np.uint8)
    joints = spec.robot.num_joints
    return LearnedEnv(
        make_toy_world(spec.size),
        spec,
        "reach",
        ToyAdapter(),
        ToyProbe(joints),
        ToyJudge(),
        num_envs,
        start_frames=starts,
        start_agent_pos=np.random.default_rng(1).uniform(-0.5, 0, (6, joints)).astype(np.float32),
        **options,
    )
