"""The learned simulator as a thing of its own: open it, start from a picture, drive it. Made of the world model, which
knows frames and latent actions, and of the adapter, which knows joints.
"""

from robosim.simulator.run_folder import load
from robosim.simulator.simulator import Moment, Observation, Simulator, Snapshot

__all__ = ["Moment", "Observation", "Simulator", "Snapshot", "load"]
