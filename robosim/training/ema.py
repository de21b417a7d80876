"""Averaged weights: an exponential moving average of the parameters, which is what a run with `ema` ends with."""

from __future__ import annotations

import torch
from torch import nn

from robosim.training.distributed import local


class WeightAverage:
    """The moving average of this process's part of every trained parameter, in the parameter's precision.

    The decay starts low and rises to `decay` (min(decay, (1 + step) / (10 + step)), as in Karras et al., arXiv
    2312.02696 and others before), so that the first steps are forgotten soon. Buffers aren't averaged: they are
    statistics already.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.values = {name: local(p).detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after the optimiser's `step` (from 0)."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, parameter in self._parameters.items():
            self.values[name].lerp_(local(parameter), share)

    @torch.no_grad()
    def copy_to_module(self) -> None:
        """Put the averages in the parameters' place."""
        for name, parameter in self._parameters.items():
            local(parameter).copy_(self.values[name])
