"""LeRobot plug-in: the policy `robosim_latent`, and robosim's two simulators as environment types.

LeRobot imports this package at start-up because its distribution's name begins with `lerobot_policy_`; importing
the two modules below is what registers them. Neither imports MuJoCo or builds a network.
"""

from lerobot_policy_robosim.configuration_robosim_latent import RobosimLatentConfig
from lerobot_policy_robosim.environments import RobosimLearnedEnv, RobosimPhysicsEnv

__all__ = ["RobosimLatentConfig", "RobosimLearnedEnv", "RobosimPhysicsEnv"]
