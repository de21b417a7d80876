"""What the physics tests share: scenes are compiled and warp imported once."""

from __future__ import annotations

import numpy as np
import pytest

from robosim.physics.arms.catalogue import PANDA
from robosim.physics.kinematics import InverseKinematics
from robosim.physics.recording import Recorder
from robosim.physics.scene import Scene
from robosim.physics.tasks.base import Task


@pytest.fixture(scope="session")
def kinematics() -> InverseKinematics:
    return InverseKinematics(PANDA)


@pytest.fixture(scope="session")
def tracker() -> Recorder:
    """Records tracks without pictures."""
    return Recorder(size=None)


@pytest.fixture(scope="session")
def recorder() -> Recorder:
    return Recorder(size=32)


@pytest.fixture(scope="session")
def soft_push(tracker: Recorder) -> Task:
    return tracker.setting("soft_push", seed=0).task


@pytest.fixture(scope="session")
def scene(tracker: Recorder) -> Scene:
    """That of soft_push."""
    return tracker.setting("soft_push", seed=0).scene


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
