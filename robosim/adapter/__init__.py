"""Joint command ↔ latent action, and reading a frame: fitted on a few hundred labelled transitions."""

from robosim.adapter.action_adapter import ActionAdapter, ActionAdapterConfig
from robosim.adapter.bundle import AdapterBundle, load_adapter, save_adapter
from robosim.adapter.fit import FitConfig, evaluate_adapter, fit_adapter
from robosim.adapter.judge import Judge
from robosim.adapter.keypoint_probe import KeypointProbe, KeypointProbeConfig
from robosim.adapter.labels import LabelledEpisodes, Transitions

__all__ = [
    "ActionAdapter",
    "ActionAdapterConfig",
    "AdapterBundle",
    "FitConfig",
    "Judge",
    "KeypointProbe",
    "KeypointProbeConfig",
    "LabelledEpisodes",
    "Transitions",
    "evaluate_adapter",
    "fit_adapter",
    "load_adapter",
    "save_adapter",
]
