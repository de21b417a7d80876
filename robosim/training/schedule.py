"""How the learning rate runs over the steps. Every schedule begins with a linear warm-up."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["sqrt", "wsd", "cosine"]

FLOOR = 0.005
"""Share of the highest rate that `sqrt` ends on."""


def rate_factor(schedule: Schedule, step: int, steps: int, warmup: int, decay: float) -> float:
    """The rate of `step` over the highest.

    sqrt: ∝ √(what is left), so that most of the run has a high rate and its end is near zero. wsd: constant, then
    linear to zero over the last `decay` of the run (warm-up–stable–decay, Hu et al., arXiv 2404.06395). cosine: half a
    cosine to zero (Loshchilov & Hutter, arXiv 1608.03983).
    """
    warm = min(1.0, (step + 1) / max(1, warmup))
    progress = step / steps
    if schedule == "sqrt":
        return warm * math.sqrt(1 - progress) + FLOOR
    if schedule == "wsd":
        return warm * min(1.0, (steps - step) / (decay * steps))
    return warm * (1 + math.cos(math.pi * progress)) / 2
