"""Simulators of toy size, as files."""

from __future__ import annotations

from pathlib import Path

import pytest

import robosim
from robosim.simulator import Simulator
from tests.toy_run import toy_run


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    """A run folder with an adapter and without manifests."""
    return toy_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def loaded(run) -> Simulator:
    return robosim.load(run, device="cpu")
