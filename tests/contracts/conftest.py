"""The environments that the contract is checked on. Each factory makes a vector environment of the task `reach`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from robosim.spec import EnvSpec

EnvFactory = Callable[..., Any]
"""(num_envs=1, horizon=None, success_distance=None) -> VectorEnv; None keeps the task's own value."""


def with_task(spec: EnvSpec, horizon: int | None, success_distance: float | None) -> EnvSpec:
    """`spec` with another horizon or success distance in every task."""
    changes = {"horizon": horizon, "success_distance": success_distance}
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(spec, tasks=tuple(replace(task, **given) for task in spec.tasks))


def make_physics(num_envs: int = 1, horizon: int | None = None, success_distance: float | None = None) -> Any:
    from robosim.physics.env import PhysicsEnv, make_spec

    return PhysicsEnv(
        with_task(make_spec(size=32), horizon, success_distance), task="reach", num_envs=num_envs
    )


def make_learned(num_envs: int = 1, horizon: int | None = None, success_distance: float | None = None) -> Any:
    from robosim.physics.env import make_spec
    from tests.contracts.toy_learned import make_toy_env

    return make_toy_env(with_task(make_spec(size=32), horizon, success_distance), num_envs)


FACTORIES: dict[str, EnvFactory] = {"physics": make_physics, "learned": make_learned}


@pytest.fixture(params=list(FACTORIES))
def make_env(request: pytest.FixtureRequest) -> EnvFactory:
    return FACTORIES[request.param]
