"""Rolls a simulator out along held-out stretches, each once, and measures everything on these rollouts.

Legend of shape suffixes: N stretches, T frames, F = T − context frames after the present.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robosim.adapter import KeypointProbe
from robosim.adapter.fit import ForwardKinematics
from robosim.evaluation.consistency import FRAMES as SEQUENCE_FRAMES
from robosim.evaluation.consistency import (
    LEAST_MOTION,
    STARTS,
    choose_sequences,
    consistency_measures,
    joint_motion_measure,
)
from robosim.evaluation.control import control_measures
from robosim.evaluation.drift import (
    Places,
    Probes,
    drift_measures,
    read_places,
    true_places,
    usable_horizon,
)
from robosim.evaluation.drives import drive_by_commands, drive_by_latents, infer, reconstruct
from robosim.evaluation.fidelity import Curve, perceptual_distance, picture_measures, shown_by
from robosim.evaluation.floors import make_library
from robosim.evaluation.instrument import fit_probes
from robosim.evaluation.masks import colours_by_task, foreground_measures, mask_measures
from robosim.evaluation.object_colours import ObjectColours
from robosim.evaluation.stretches import Stretches
from robosim.progress import progress
from robosim.simulator import Simulator
from robosim.spec import EnvSpec
from robosim.training.adapt import forward_kinematics

DRIVES = ("latent", "command")
"""What the simulator is driven by."""


@dataclass
class Measured:
    """What was measured, and the videos it was measured on."""

    videos: dict[str, Tensor]
    """`latent`, `command` and `ceiling`, uint8 [N,F,H,W,3] each; the first frame is one step after the present."""
    colours: dict[str, ObjectColours] = field(default_factory=dict)
    """Of the object, by task."""
    measures: dict[str, Any] = field(default_factory=dict)
    """A tree of `Measure`s."""
    missing: list[str] = field(default_factory=list)
    """Sentences on what couldn't be measured, and why."""


def measure(
    simulator: Simulator,
    run: Path,
    stretches: Stretches,
    spec: EnvSpec,
    horizons: Sequence[int],
    seed: int,
    device: str,
) -> Measured:
    """Everything, at all `horizons`. `spec` is the data's; `run` is where the simulator was loaded from."""
    world, missing = simulator.world, []
    latents, reconstructed = infer(world, stretches), reconstruct(world, stretches)
    probes = usable_probes(simulator, stretches, seed, device, missing)
    measured = roll_out(simulator, stretches, latents, reconstructed, probes, seed, missing)
    curves = curves_of(simulator, run, stretches, latents, reconstructed, measured.videos, device, missing)
    perceptual, why = perceptual_distance(device)
    missing += [why] if why else []
    with progress("pictures compared", len(curves) * len(horizons), "horizon") as bar:
        measured.measures |= picture_measures(curves, stretches, horizons, perceptual, bar)
    shows_object = stretches.has_object(spec)
    if probes:
        read = read_all(probes, stretches, measured.videos)
        measured.measures |= drift_measures(read, stretches, horizons, shows_object)
        where = reference(read, stretches)
        measured.measures["usable_horizon"] = {
            name: usable_horizon(read[name].tool, where, stretches, max(horizons))
            for name in DRIVES
            if name in read
        }
    compared = {name: show for name, show in curves.items() if name != "repeat_last_raw"}
    background = world.tokenizer.background.cpu()
    measured.measures |= foreground_measures(background, compared, stretches, horizons)
    measured.colours = colours_by_task(stretches, shows_object, missing)
    if measured.colours:
        measured.measures |= mask_measures(measured.colours, compared, stretches, horizons)
    elif not shows_object.any():
        missing.append("object masks are left out: no task that is evaluated has an object")
    return measured


def roll_out(
    simulator: Simulator,
    stretches: Stretches,
    latents: Tensor,
    reconstructed: Tensor,
    probes: Probes,
    seed: int,
    missing: list[str],
) -> Measured:
    """The rollouts, and what needs rollouts of its own: control and consistency."""
    world, now = simulator.world, stretches.context - 1
    commanded = can_be_commanded(simulator, stretches, missing)
    sequences = sequences_of(probes, stretches, missing) if probes else []
    count = len(stretches)
    total = count * (3 if commanded else 2) + len(sequences) * min(STARTS, count)
    with progress("rollouts", total, "rollout") as bar:
        start, ahead = stretches.frames[:, : now + 1], stretches.length - stretches.context
        seeds = seed + np.arange(count)
        videos = {"latent": drive_by_latents(world, start, latents[:, now:], seeds, bar, ahead)}
        if commanded and simulator.bundle is not None:
            bundle = simulator.bundle
            videos["command"] = drive_by_commands(world, simulator.spec, bundle, stretches, seed, bar)
        videos["ceiling"] = reconstructed[:, stretches.context :]
        measures = control_measures(world, stretches, latents, videos["latent"], seed, bar)
        if sequences:
            parts = (stretches, latents, reconstructed[:, now], sequences)
            measures["consistency"] = consistency_measures(world, probes, *parts, seed, bar)
            if kinematics := joint_kinematics(simulator.spec, stretches):
                measures["consistency"]["same_joint_motion"] = joint_motion_measure(
                    kinematics, simulator.spec.robot, stretches, sequences
                )
    return Measured(videos, measures=measures, missing=missing)


def curves_of(
    simulator: Simulator,
    run: Path,
    stretches: Stretches,
    latents: Tensor,
    reconstructed: Tensor,
    videos: Mapping[str, Tensor],
    device: str,
    missing: list[str],
) -> dict[str, Curve]:
    """What is compared with the true frames: the simulator, its ceiling, and the floors."""
    present = reconstructed[:, stretches.context - 1]
    curves: dict[str, Curve] = {name: shown_by(video) for name, video in videos.items()}
    curves["repeat_last_raw"] = lambda horizon: stretches.present
    curves["repeat_last"] = lambda horizon: present
    if simulator.clips is None:
        missing.append("nearest-neighbour replay is left out: a saved simulator has no training clips")
    else:
        library = make_library(simulator.clips, simulator.world, run, device)
        curves["nearest"] = cache(lambda horizon: library.nearest(stretches, latents, horizon))
    return curves


def can_be_commanded(simulator: Simulator, stretches: Stretches, missing: list[str]) -> bool:
    """Whether there is an adapter and the data have the commands and states that it needs."""
    if simulator.bundle is None:
        missing.append(
            "command-driven rollouts are left out: the run has no adapter/ (robosim adapt fits one)"
        )
        return False
    if not stretches.command.shape[-1]:
        missing.append("command-driven rollouts are left out: the data have no commands")
        return False
    if not all(np.isfinite(values).all() for values in (stretches.command, stretches.state)):
        missing.append("command-driven rollouts are left out: not all episodes have commands and states")
        return False
    return True


def usable_probes(
    simulator: Simulator, stretches: Stretches, seed: int, device: str, missing: list[str]
) -> dict[str, KeypointProbe]:
    """A probe for every task, or none at all: those of `instrument.py`, the adapter's for tasks without one."""
    found: dict[str, KeypointProbe] = {}
    if (store := simulator.clips) is not None:
        with progress("probes fitted", len(stretches.tasks), "task") as bar:
            found = fit_probes(store, simulator.world.tokenizer, stretches.tasks, seed, device, bar)
    rest = [task for task in stretches.tasks if task not in found]
    if not rest:
        return found
    names = ", ".join(rest)
    why = (
        "there are no training clips" if store is None else f"{names} has too few labelled training episodes"
    )
    if simulator.bundle is None:
        missing.append(
            f"drift and consistency are left out: {why} to fit a probe on, and no adapter/ with one of its own"
        )
        return {}
    if not simulator.bundle.probe.config.points:
        missing.append("drift and consistency are left out: the adapter's labels have no positions to read")
        return {}
    missing.append(
        f"drift and consistency of {names} are read by the adapter's own probe, which is less exact: {why} to fit "
        "another on"
    )
    return found | dict.fromkeys(rest, simulator.bundle.probe)


def sequences_of(probes: Probes, stretches: Stretches, missing: list[str]) -> list[tuple[int, int]]:
    """Sequences for `consistency_measures`, chosen by true positions, or by the probe where those aren't known."""
    tool = true_places(stretches, "tool")
    if not np.isfinite(tool).all():
        tool = read_places(probes, stretches.frames[:, stretches.context - 1 :], stretches.task).tool
    sequences = choose_sequences(tool, stretches)
    if not sequences:
        missing.append(
            f"consistency is left out: in no stretch the tool goes {100 * LEAST_MOTION:g} cm within "
            f"{SEQUENCE_FRAMES} frames after the context"
        )
    return sequences


def joint_kinematics(spec: EnvSpec, stretches: Stretches) -> ForwardKinematics | None:
    """Joints → tool, where the data's states are the joints of an arm that this installation has a model of."""
    joints = spec.action_kind == "joint_position" and spec.state_columns == spec.action_columns
    if not joints or not stretches.state.size or not np.isfinite(stretches.state).all():
        return None
    return forward_kinematics(spec)


def reference(read: Mapping[str, Places], stretches: Stretches) -> np.ndarray:
    """Where the tool was: its true positions, or what the probe reads off the true frames where those aren't known."""
    known = true_places(stretches, "tool")
    return known if np.isfinite(known).all() else read["true"].tool


@torch.no_grad()
def read_all(probes: Probes, stretches: Stretches, videos: Mapping[str, Tensor]) -> dict[str, Places]:
    """What the probe reads off every video from the present on, the still picture and the true frames."""
    true = stretches.frames[:, stretches.context - 1 :]
    shown = {name: torch.cat([true[:, :1], video], 1) for name, video in videos.items()} | {"true": true}
    read = {name: read_places(probes, video, stretches.task) for name, video in shown.items()}
    still = (np.repeat(place[:, :1], true.shape[1], 1) for place in (read["true"].tool, read["true"].object))
    return read | {"repeat_last_raw": Places(*still)}
