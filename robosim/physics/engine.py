"""MuJoCo, once it is known to be there and new enough.

Flex bodies with trilinear elements and the discrete integrator need MuJoCo 4.0. The package itself installs beside
older ones, for environments that pin them; only physics doesn't.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from importlib.metadata import version
from typing import Any

from robosim.errors import UnsupportedError

OLDEST_MAJOR = 4


def require_mujoco() -> None:
    """Raise `UnsupportedError` where MuJoCo 4 or its warp renderer is missing."""
    for name in ("mujoco", "mujoco_warp"):
        if importlib.util.find_spec(name) is None:
            raise UnsupportedError(f"the physics simulator needs the package {name}; run: uv sync")
    found = version("mujoco")
    if int(found.split(".")[0]) < OLDEST_MAJOR:
        raise UnsupportedError(
            f"the physics simulator needs MuJoCo {OLDEST_MAJOR}.0 or newer, this environment has {found}; "
            f"run: uv pip install 'mujoco>={OLDEST_MAJOR}' 'mujoco-warp>={OLDEST_MAJOR}'"
        )


def _load() -> Any:
    """Import MuJoCo, which looks for OpenGL while it loads, as the environment variable MUJOCO_GL tells it."""
    try:
        return importlib.import_module("mujoco")
    except Exception as error:
        if not (wanted := os.environ.get("MUJOCO_GL")):
            raise
        raise UnsupportedError(
            f"MuJoCo doesn't load with MUJOCO_GL={wanted!r} ({error}); unset that environment variable: "
            "the default renderer needs no OpenGL"
        ) from error


require_mujoco()

mujoco: Any = _load()
"""The module. Its names come from C++ without type stubs, so type checkers can't know them."""
