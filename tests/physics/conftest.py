"""What the physics tests share: the scene is compiled and warp imported once."""

from __future__ import annotations

import numpy as np
import pytest

from robosim.physics.kinematics import InverseKinematics
from robosim.physics.recording import Recorder
from robosim.physics.robots import PANDA
from robosim.physics.scene import Scene, build_scene


@pytest.fixture(scope="session")
def scene() -> Scene:
    return build_scene(PANDA)


@pytest.fixture(scope="session")
def kinematics(scene: Scene) -> InverseKinematics:
    return InverseKinematics(scene)


@pytest.fixture(scope="session")
def tracker() -> Recorder:
    """Records tracks without pictures."""
    return Recorder(size=None)


@pytest.fixture(scope="session")
def recorder() -> Recorder:
    return Recorder(size=32)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
