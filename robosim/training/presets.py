"""The sizes of the learned simulator: `configs/model/*.yaml`, typed, for whoever needs one without a run folder."""

from __future__ import annotations

from dataclasses import dataclass

from robosim.config import build, choices, compose_tree, unknown
from robosim.errors import ConfigError
from robosim.training.stages import DynamicsTraining, LatentActionTraining, TokenizerTraining
from robosim.world_model.dynamics import Dynamics
from robosim.world_model.latent_action import LatentActionModel
from robosim.world_model.tokenizer import Tokenizer
from robosim.world_model.world import make_dynamics

FRAME_SIZE = {"nano": 64, "tiny": 64, "small": 64, "base": 128, "genie_2b5": 128}
"""Pixels a side that a preset is meant for; one of your own counts as 64. Training takes the size of its video."""


@dataclass(frozen=True)
class Preset:
    """One size of the three models, and how each is trained."""

    name: str
    size: int
    tokenizer: TokenizerTraining
    latent_action: LatentActionTraining
    dynamics: DynamicsTraining

    def build(self) -> tuple[Tokenizer, LatentActionModel, Dynamics]:
        """The three models with random weights, on torch's default device (`meta` makes them without memory)."""
        tokenizer = Tokenizer(self.tokenizer.model, self.size)
        latent_action = LatentActionModel(self.latent_action.model, self.size)
        return tokenizer, latent_action, make_dynamics(self.dynamics.model, tokenizer, latent_action)


def load_preset(name: str, overrides: tuple[str, ...] = ()) -> Preset:
    """The preset `configs/model/<name>.yaml`, with overrides such as `dynamics.model.draft=false`.

    Raises `ConfigError` naming the presets there are.
    """
    if name not in choices("model"):
        raise ConfigError(unknown("model", name, choices("model")))
    tree = compose_tree("train", [f"model={name}", *overrides])
    return Preset(
        name,
        FRAME_SIZE.get(name, 64),
        build(TokenizerTraining, tree["tokenizer"], "tokenizer"),
        build(LatentActionTraining, tree["latent_action"], "latent_action"),
        build(DynamicsTraining, tree["dynamics"], "dynamics"),
    )
