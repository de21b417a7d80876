"""A toy run, and a person at its controls."""

from __future__ import annotations

from pathlib import Path

import pytest

import robosim
from robosim.simulator import Simulator
from robosim.viewer.play.session import PlaySession
from tests.toy_run import toy_run


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    return toy_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def simulator(run) -> Simulator:
    return robosim.load(run, device="cpu")


@pytest.fixture
def play(simulator, tmp_path) -> PlaySession:
    return PlaySession(simulator, tmp_path / "out")
