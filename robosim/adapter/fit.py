"""Fit adapter, probe and judge on labelled episodes, and measure them on others.

Legend of shape suffixes: N frames, M transitions, J joints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robosim.adapter.action_adapter import ActionAdapter, ActionAdapterConfig
from robosim.adapter.bundle import AdapterBundle
from robosim.adapter.judge import Judge, LabelledReadings, judge_figures
from robosim.adapter.keypoint_probe import KeypointProbe, KeypointProbeConfig
from robosim.adapter.labels import STATE_COLUMNS, LabelledEpisodes, Transitions
from robosim.adapter.motion_figures import motion_figures, state_figures
from robosim.adapter.ridge import BilinearRidge
from robosim.spec import EnvSpec, RobotSpec, TaskSpec
from robosim.world_model.protocols import ProbeReading

ForwardKinematics = Callable[[np.ndarray], np.ndarray]
"""Joints [N,J] (rad) → tool position [N,3] (metres, world)."""

READ_AT_ONCE = 256

RANKS = (3, 4, 5, 6, 8, 10)
"""Principal coordinates that are tried: three for a tool led through inverse kinematics, then its turn, the gripper,
and what else the labels show."""

FEW = 5
"""Coordinates where nothing tells how many."""

CLOSE = 0.03
"""Share of the latent actions' variance by which fewer coordinates may be worse: each one more is one more to learn."""


@dataclass(frozen=True)
class FitConfig:
    rank: int | None = None
    """Principal coordinates of motion and posture; None: the fewest that tell left-out latent actions about best."""
    colours: int = 32
    """Of the codebook in which the probe finds things."""

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise ValueError(
                f"rank must be at least 1, or null to choose it by left-out labels, got {self.rank}"
            )


def fit_adapter(
    labels: LabelledEpisodes,
    decoded: Sequence[np.ndarray],
    video: Tensor,
    spec: EnvSpec,
    latent_bound: float,
    config: FitConfig | None = None,
    seed: int = 0,
    known: ActionAdapter | None = None,
) -> tuple[AdapterBundle, dict[str, Any]]:
    """Fit everything, all but a `MotionNetwork` in closed form (seconds on a CPU).

    `decoded`: the labelled frames as the tokenizer gives them back, one array an episode, or empty. `video`:
    unlabelled frames uint8 [V,H,W,3], some of them decoded, a few hundred. `latent_bound`: latent actions lie in
    [−bound, bound]. `known`: another adapter, see `known_or_fitted`. Returns the bundle and errors on left-out episodes
    of the labels. Labels without positions give a bundle without a judge, and errors of the adapter alone.
    """
    config = config or FitConfig()
    adapter, errors = fit_commands(labels, spec, latent_bound, config.rank)
    if known is not None:
        adapter, errors = known_or_fitted(known, adapter, errors, labels, spec.robot)
    figures: dict[str, Any] = {"adapter": errors}

    state = labels.joints[0].shape[1]
    probe = KeypointProbe(KeypointProbeConfig(state, config.colours, labels.has_points))
    views = [labels.frames, *([list(decoded)] if len(decoded) else [])]
    frames = torch.from_numpy(np.concatenate([frame for view in views for frame in view]))
    repeat = len(views)
    held_out = probe.fit(
        frames,
        _stack(labels.joints).repeat(repeat, 1),
        _stack(labels.points).repeat(repeat, 1),
        labels.frame_episodes().repeat(repeat),
        video,
        seed,
        labels.shows_object().repeat(repeat),
    )
    if not labels.has_points:
        return AdapterBundle(adapter, probe, None), figures
    count = len(frames) // repeat  # the recorded frames come first
    held_out = ProbeReading(
        held_out.joints[:count], held_out.tool[:count], held_out.object[:count], held_out.goal[:count]
    )
    figures["probe"] = probe_figures(held_out, labels)
    judged = judged_tasks(spec)
    judge = Judge([task.name for task in judged])
    figures["judge"] = judge.calibrate(judged, readings_by_task(held_out, labels, judged))
    return AdapterBundle(adapter, probe, judge), figures


def fit_commands(
    labels: LabelledEpisodes, spec: EnvSpec, latent_bound: float, rank: int | None = None
) -> tuple[ActionAdapter, dict[str, float]]:
    """The adapter, and its errors on left-out episodes.

    How many principal coordinates it takes depends on how the arm is led, and on how many labels there are. Without a
    `rank`, `RANKS` and as many as there are joints are tried, and the fewest are kept that tell the latent actions of
    left-out episodes about as well as any. Where commands are targets of joints, a network then has to do better still;
    the coordinates are then those of the other maps. A single episode can't be left out, and decides nothing.
    """
    rows = labels.transitions()
    joints, state = rows.command_MJ.shape[1], rows.joints_MJ.shape[1]
    sizes = (joints, rows.latent_MA.shape[1], latent_bound)
    kind = "targets" if spec.action_kind == "joint_position" else "motions"
    states = None if labels.states_are_joints else state
    every, tried = max(joints, state), []
    alone = len(rows.episode_M.unique()) == 1
    if rank is None and alone:
        rank = min(FEW, every)
    for coordinates in sorted({*(r for r in RANKS if r < every), every}) if rank is None else [rank]:
        adapter = ActionAdapter(ActionAdapterConfig(*sizes, coordinates, kind, states))
        tried.append((adapter, adapter.fit(rows, spec.robot)))
    best = max(errors["latent_r2"] for _, errors in tried)
    kept, errors = next(pair for pair in tried if pair[1]["latent_r2"] >= best - CLOSE)
    if alone or not kept.drives_joints:
        return kept, errors
    network = ActionAdapter(replace(kept.config, latent_map="network"))
    told = network.fit(rows, spec.robot)
    return (network, told) if told["latent_r2"] > errors["latent_r2"] else (kept, errors)


def known_or_fitted(
    known: ActionAdapter,
    fitted: ActionAdapter,
    errors: dict[str, float],
    labels: LabelledEpisodes,
    robot: RobotSpec,
) -> tuple[ActionAdapter, dict[str, float]]:
    """The `known` adapter as it is, all its maps, where it is of the same arm and tells the latent actions of these
    labels better than the `fitted` one tells left-out ones, by its `errors`; else that. With the errors of what is
    taken, `known_latent_r2` says what the known one tells. One episode leaves none out: fitted maps count as 0 then.
    """
    if not _same_arm(known, fitted):
        return fitted, errors
    rows = labels.transitions()
    told = known.errors(rows, robot)
    own = errors["latent_r2"] if len(rows.episode_M.unique()) > 1 else 0.0
    taken = (known, told) if told["latent_r2"] > own else (fitted, errors)
    return taken[0], taken[1] | {"known_latent_r2": told["latent_r2"]}


def _same_arm(one: ActionAdapter, other: ActionAdapter) -> bool:
    """Whether two adapters take commands and states of the same sizes and limits, and give as many latent numbers."""
    sizes = [replace(adapter.config, rank=1, latent_map="ridge") for adapter in (one, other)]
    if sizes[0] != sizes[1]:
        return False
    return torch.equal(one.lower, other.lower) and torch.equal(one.upper, other.upper)


@torch.no_grad()
def evaluate_adapter(
    bundle: AdapterBundle,
    held_out: LabelledEpisodes,
    spec: EnvSpec,
    forward_kinematics: ForwardKinematics | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures on episodes that nothing was fitted on; errors are means over transitions or frames.

    `command_mae_rad`: decoded from the inferred latent action against the recorded command, over the joints that
    turn; `tool_mae_m`: the same, carried to the tool by `forward_kinematics` (default: a regression of tool on
    joints, fitted here); `hold_…`: the previous command in place of the decoded one; `shuffled_…`: latent actions
    permuted among transitions. `probe_…`: see `probe_figures`. `judge`: see `judge_figures`, by task. Without
    positions, see `motion_figures`.
    """
    if bundle.judge is None:
        return motion_figures(bundle.adapter, held_out.transitions(), spec, seed) | state_figures(
            read_all(bundle.probe, np.concatenate(held_out.frames)), held_out
        )
    rows = held_out.transitions()
    tool_of = forward_kinematics or tool_regression(held_out, spec.robot)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    decode = bundle.adapter.latent_to_command
    commands = {
        "": decode(rows.latent_MA, rows.previous_command_MJ, rows.joints_MJ),
        "hold_": rows.previous_command_MJ,
        "shuffled_": decode(rows.latent_MA[order], rows.previous_command_MJ, rows.joints_MJ),
    }
    turning = [i for i, unit in enumerate(spec.robot.joint_units) if unit == "rad"]
    tool = tool_of(rows.command_MJ.numpy())
    figures: dict[str, Any] = {}
    for name, command_MJ in commands.items():
        off_MJ = (command_MJ - rows.command_MJ)[:, turning]
        figures[f"{name}command_mae_rad"] = off_MJ.abs().mean().item()
        off_M = np.linalg.norm(tool_of(command_MJ.numpy()) - tool, axis=1)
        figures[f"{name}tool_mae_m"] = float(off_M.mean())
    figures |= _map_figures(bundle.adapter, rows)

    reading = read_all(bundle.probe, np.concatenate(held_out.frames))
    figures |= probe_figures(reading, held_out)
    figures["judge"] = {}
    for name, row in readings_by_task(reading, held_out, judged_tasks(spec)).items():
        task = spec.task(name)
        true = task.distance(row.true.tool.numpy(), row.true.object.numpy(), row.true.goal.numpy())
        figures["judge"][name] = judge_figures(
            bundle.judge.distance(row.read, task), torch.from_numpy(true), task
        )
    return figures


def probe_figures(reading: ProbeReading, labels: LabelledEpisodes) -> dict[str, float]:
    """Mean errors of a reading of all frames of `labels`.

    `probe_error_m` is the mean of tool, object and goal; the goal's is over first frames, where it is read at play, the
    object's over episodes that have one. Without positions, see `state_figures`.
    """
    if not labels.has_points:
        return state_figures(reading, labels)
    points, first, objects = _stack(labels.points), _first_rows(labels), labels.shows_object()
    counted = {"object": objects} if objects.any() else {}
    errors = {}
    for name, columns in STATE_COLUMNS.items():
        error_N = (getattr(reading, name) - points[:, columns]).norm(dim=1)
        rows = first if name == "goal" else counted.get(name, slice(None))
        errors[name] = error_N[rows].mean().item()
    return {
        "probe_error_m": sum(errors.values()) / len(errors),
        **{f"probe_{name}_error_m": error for name, error in errors.items()},
        "probe_joints_mae_rad": (reading.joints - _stack(labels.joints)).abs().mean().item(),
    }


def readings_by_task(
    reading: ProbeReading, labels: LabelledEpisodes, tasks: Sequence[TaskSpec]
) -> Mapping[str, LabelledReadings]:
    """Readings and truths of each task's own episodes; of all episodes for a task that has none.

    The goals are those of each episode's first frame.
    """
    points, episode_N, first = _stack(labels.points), labels.frame_episodes(), _first_rows(labels)
    parts = {name: points[:, columns] for name, columns in STATE_COLUMNS.items()}
    true = ProbeReading(_stack(labels.joints), **parts)
    read, true = (replace(row, goal=row.goal[first][episode_N]) for row in (reading, true))
    result = {}
    for task in tasks:
        own = [i for i, name in enumerate(labels.tasks) if name == task.name] or list(
            range(len(labels.tasks))
        )
        rows = torch.isin(episode_N, torch.tensor(own))
        result[task.name] = LabelledReadings(_rows(read, rows), _rows(true, rows))
    return result


def judged_tasks(spec: EnvSpec) -> list[TaskSpec]:
    """The tasks that positions decide; a mixture's video may bring others."""
    return [task for task in spec.tasks if task.subject != "none"]


def read_all(probe: KeypointProbe, frames: np.ndarray) -> ProbeReading:
    """Read uint8 [N,H,W,3] in portions."""
    portions = [probe.read(part) for part in torch.from_numpy(frames).split(READ_AT_ONCE)]
    names = ("joints", "tool", "object", "goal")
    return ProbeReading(*(torch.cat([getattr(part, name) for part in portions]).cpu() for name in names))


def tool_regression(episodes: LabelledEpisodes, robot: RobotSpec) -> ForwardKinematics:
    """The tool as a quadratic function of the joints, fitted on `episodes`; for robots without a model."""
    joints_NJ, tool_N3 = _stack(episodes.joints), _stack(episodes.points)[:, STATE_COLUMNS["tool"]]
    mean_J, spread = joints_NJ.mean(0), joints_NJ.std().clamp_min(1e-3)
    fit = BilinearRidge(robot.num_joints, robot.num_joints, 3)
    scaled_NJ = (joints_NJ - mean_J) / spread
    fit.fit(scaled_NJ, scaled_NJ, tool_N3, episodes.frame_episodes())

    @torch.no_grad()
    def tool(joints: np.ndarray) -> np.ndarray:
        scaled = (torch.from_numpy(np.asarray(joints, np.float32)) - mean_J) / spread
        return fit(scaled, scaled).numpy()

    return tool


def _map_figures(adapter: ActionAdapter, rows: Transitions) -> dict[str, float]:
    """Of command → latent action, and of the one-step prediction of joints."""
    inputs = (rows.command_MJ, rows.previous_command_MJ, rows.joints_MJ)
    latent_MA, next_MJ = adapter.command_to_latent(*inputs), adapter.predict_joints(*inputs)
    spread = (rows.latent_MA - rows.latent_MA.mean(0)).square().sum().clamp_min(1e-9)
    return {
        "latent_r2": (1 - (latent_MA - rows.latent_MA).square().sum() / spread).item(),
        "joints_mae_rad": (next_MJ - rows.next_joints_MJ).abs().mean().item(),
    }


def _rows(reading: ProbeReading, rows: Tensor) -> ProbeReading:
    return ProbeReading(reading.joints[rows], reading.tool[rows], reading.object[rows], reading.goal[rows])


def _first_rows(labels: LabelledEpisodes) -> Tensor:
    """int64 [E]: the row of each episode's first frame."""
    lengths = [len(frames) for frames in labels.frames]
    return torch.tensor([0, *np.cumsum(lengths)[:-1]])


def _stack(rows: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(rows).astype(np.float32))
