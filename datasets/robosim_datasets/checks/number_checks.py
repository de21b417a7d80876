"""What can be wrong with the numbers of one episode: shapes, types, values, time and limits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from robosim.spec import EnvSpec
from robosim_datasets.episode import ENVIRONMENT_STATE
from robosim_datasets.faults import Fault
from robosim_datasets.sources.source import SourceEpisode, SourceInfo

TIME_TOLERANCE = 0.1
"""How much a step of the time stamps may differ from the period, as a share of it."""

LIMIT_TOLERANCE = {"rad": 0.02, "fraction": 0.02}
"""How far beyond its limits a joint may be, by its unit: a simulator's limits give a little under load."""

SHOWN = 5
"""Frames that a fault names before it counts the rest."""


def number_faults(info: SourceInfo, index: int, episode: SourceEpisode) -> Iterator[Fault]:
    """The faults of episode `index`, each with the frames at which it is."""
    arrays = _arrays(info, episode)
    for name, (values, dtype, shape, _) in arrays.items():
        if values.shape != shape:
            yield Fault("shape", name, f"is {values.shape} and not {shape}", index)
        elif values.dtype != dtype:
            yield Fault("dtype", name, f"is {values.dtype} and not {np.dtype(dtype)}", index)
        elif values.dtype.kind == "f" and not np.isfinite(values).all():
            yield from _not_finite(name, values, arrays[name][3], index)
    if episode.length < 2:
        yield Fault("length", "episode", f"has {episode.length} frames, at least 2 make a motion", index)
    yield from _time_faults(info, index, episode)
    if info.spec is not None:
        yield from _limit_faults(info.spec, index, episode)


type _Array = tuple[np.ndarray, type, tuple[int, ...], tuple[str, ...]]


def _arrays(info: SourceInfo, episode: SourceEpisode) -> dict[str, _Array]:
    """name -> (values, the type and the shape that they should have, the names of their columns)."""
    length = episode.length
    vectors = {
        "state": (episode.state, info.state_names),
        "action": (episode.action, info.action_names),
        "environment_state": (episode.environment_state, ENVIRONMENT_STATE),
    }
    scalars = {
        "reward": (episode.reward, np.float32),
        "success": (episode.success, np.bool_),
        "timestamps": (episode.timestamps, np.float64),
    }
    if episode.metadata.get("labelled") is False and not episode.state.size + episode.action.size:
        vectors = {}  # bare video in a mixture
    found: dict[str, _Array] = {}
    for name, (values, names) in vectors.items():
        if values is not None:
            found[name] = (values, np.float32, (length, len(names)), tuple(names))
    for name, (values, dtype) in scalars.items():
        if values is not None:
            found[name] = (values, dtype, (length,), ())
    return found


def _not_finite(name: str, values: np.ndarray, names: tuple[str, ...], index: int) -> Iterator[Fault]:
    if values.ndim == 1:
        bad = np.flatnonzero(~np.isfinite(values))
        yield Fault("not finite", name, f"at {frame_list(bad)}", index)
        return
    for column in np.flatnonzero(~np.isfinite(values).all(axis=0)):
        bad = np.flatnonzero(~np.isfinite(values[:, column]))
        yield Fault("not finite", name, f"{names[column]} at {frame_list(bad)}", index)


def _time_faults(info: SourceInfo, index: int, episode: SourceEpisode) -> Iterator[Fault]:
    times = episode.timestamps
    if times is None or times.shape != (episode.length,) or len(times) < 2 or not np.isfinite(times).all():
        return
    steps = np.diff(times)
    fps = episode.metadata.get("fps", info.fps)
    period = 1 / fps if isinstance(fps, int | float) and fps > 0 else float(np.median(steps))
    bad = np.flatnonzero((steps <= 0) | (np.abs(steps - period) > TIME_TOLERANCE * period))
    if len(bad):
        first = steps[bad[0]]
        what = f"a step of {first:.4g} s instead of {period:.4g} s before {frame_list(bad + 1)}"
        yield Fault("time", "timestamps", what, index)


def _limit_faults(spec: EnvSpec, index: int, episode: SourceEpisode) -> Iterator[Fault]:
    """Commands beyond the limits, and joints too where a state is the robot's joints and the limits are a machine's."""
    robot = spec.robot
    checked = {"action": episode.action}
    if spec.state_names is None and "unknown" not in robot.joint_units:
        checked["state"] = episode.state
    for name, values in checked.items():
        if values.shape != (episode.length, robot.num_joints):
            continue
        for joint, joint_name in enumerate(robot.joint_names):
            slack = LIMIT_TOLERANCE.get(robot.joint_units[joint], 1e-6)
            low, high, column = robot.lower[joint], robot.upper[joint], values[:, joint]
            bad = np.flatnonzero((column < low - slack) | (column > high + slack))
            if len(bad):
                limits = f"its limits are {low:.4g} … {high:.4g}"
                what = f"{joint_name} is {column[bad[0]]:.4g} at {frame_list(bad)}; {limits}"
                yield Fault("limits", name, what, index)


def frame_list(frames: np.ndarray) -> str:
    """Frame numbers as text, the first few and how many more."""
    shown = ", ".join(str(int(frame)) for frame in frames[:SHOWN])
    rest = len(frames) - SHOWN
    return f"frame{'s' if len(frames) > 1 else ''} {shown}" + (f" and {rest} more" if rest > 0 else "")
