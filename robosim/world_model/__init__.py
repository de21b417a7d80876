"""The Genie-style world model: tokenizer, latent action model, dynamics, and the simulator made of them."""

from robosim.world_model.learned_env import LearnedEnv
from robosim.world_model.world import RolloutState, WorldModel

__all__ = ["LearnedEnv", "RolloutState", "WorldModel"]
