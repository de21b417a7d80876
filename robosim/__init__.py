"""robosim: a learned simulator of robot arms.

import robosim

sim = robosim.load("tiny")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from robosim.simulator import Simulator
    from robosim.world_model.world import Precision


def load(
    path: str | Path,
    device: str = "auto",
    steps: int | None = None,
    temperature: float | None = None,
    precision: Precision = "float32",
) -> Simulator:
    """Open the learned simulator of a run folder, or a shipped one by its name; see `robosim.simulator.load`."""
    from robosim import simulator  # torch is imported only when a simulator is opened

    return simulator.load(path, device, steps, temperature, precision)
