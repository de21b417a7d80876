"""`robosim replay`: a dataset's recorded commands once more, in MuJoCo, on the arm that recorded them or on another.

How far the arm's recorded joints and MuJoCo's part is how far a model of the arm can be trusted. Episodes that
`robosim collect` made start exactly where they did, things and all, and must come out the same; of any other
recording only the arm is known, and it moves over an empty table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from robosim_datasets.episode import Episode
from robosim_datasets.lerobot_io import VideoDataset, load_episode, open_dataset

from robosim.checkpoint import atomic_write_json, prepare_folder
from robosim.config import RunOptions, compose
from robosim.errors import ConfigError, UnsupportedError
from robosim.physics.arms.catalogue import get_robot, robot_of, same_arm
from robosim.physics.kinematics import InverseKinematics
from robosim.physics.recording import draw_start
from robosim.physics.rendering.renderer import Renderer, RendererKind, recorded_kind
from robosim.physics.scene import Layout, Props, build_scene
from robosim.physics.setting import Settings
from robosim.physics.simulation import Simulation
from robosim.physics.tasks import TASKS, load_task_file
from robosim.physics.tasks.base import Task
from robosim.physics.variation import Factors
from robosim.progress import progress
from robosim.spec import CONTROL_HZ, EnvSpec, SuccessRule
from robosim.viewer.recording import Shown, Sides, record

SIDES = Sides(
    "recorded",
    "physics",
    """# robosim replay

**Recorded** is the dataset. **Physics** is MuJoCo under the recorded commands. **Difference** is
|physics − recorded|, twice as strong.
""",
)


@dataclass
class ReplayConfig(RunOptions):
    """What to replay."""

    dataset: str = ""
    robot: str | None = None
    """An arm by name or MJCF file; None: the dataset's own."""
    task_file: str | None = None
    """A Python file that registers tasks of one's own."""
    episodes: int = 4

    def __post_init__(self) -> None:
        if not self.dataset:
            raise ConfigError("dataset is empty; name one: dataset=runs/NAME/dataset")
        if self.episodes < 1:
            raise ConfigError("episodes must be at least 1")
        if self.task_file:
            load_task_file(self.task_file)


@dataclass(frozen=True)
class EpisodeReplay:
    """How one episode came out. Errors are means over the frames after the first, of joints that turn (rad) and of
    the tool's tip (metres); `same_start`: whether tool, thing and goal stood where they did."""

    episode: int
    task: str
    frames: int
    same_start: bool
    joint_mae_rad: float
    joint_max_rad: float
    tool_mae_m: float
    tool_final_m: float
    success_recorded: bool
    success_replayed: bool | None


def replay_command(command: str, overrides: Sequence[str]) -> None:
    """Replay some episodes; write replay.json and replay.rrd; say how far recording and physics part."""
    config = compose(command, ReplayConfig, overrides)
    dataset = open_dataset(dataset_folder(Path(config.dataset).expanduser()))
    out = prepare_folder(Path(config.out or f"runs/replay-{dataset.root.resolve().parent.name}").expanduser())
    results, shown = replay_dataset(dataset, config.robot, config.episodes, config.seed)
    atomic_write_json(
        out / "replay.json", {"dataset": str(dataset.root), "episodes": [asdict(r) for r in results]}
    )
    record(out / "replay.rrd", out.name, dataset.spec, shown, SIDES)
    _print_table(results)
    for note in notes(dataset.spec, config.robot, results):
        print(note)
    print(f"made {out}/replay.json, {out}/replay.rrd")
    print(f"next: uv run rerun {out}/replay.rrd")


def dataset_folder(path: Path) -> Path:
    """`path`, or the dataset in it where it is a run folder."""
    return path / "dataset" if (path / "dataset" / "meta").is_dir() else path


def notes(spec: EnvSpec, robot: str | None, results: Sequence[EpisodeReplay]) -> list[str]:
    """Why things weren't in their places."""
    said = []
    if robot and not same_arm(get_robot(robot).spec, spec.robot):
        said.append(
            f"{robot} isn't the recorded arm (its joints, limits or files differ): it moved over an empty table"
        )
    strangers = sorted({result.task for result in results} - set(TASKS))
    if strangers:
        said.append(f"{', '.join(strangers)} isn't known here: task_file=… would put its things in place")
    return said


def replay_dataset(
    dataset: VideoDataset, robot: str | None = None, count: int = 4, seed: int = 0
) -> tuple[list[EpisodeReplay], list[Shown]]:
    """Replay `count` episodes that the seed chooses.

    Raises `UnsupportedError` for commands that aren't joint positions at 10 Hz, `ConfigError` for an arm that isn't
    known or has another number of joints.
    """
    spec = _check(dataset.spec)
    chosen = np.random.default_rng(seed).permutation(len(dataset.episodes))[:count]
    player = _Player(spec, robot, recorded_kind(dataset.provenance))
    results, shown = [], []
    with progress("replay", total=len(chosen), unit="episode") as bar:
        for index in sorted(int(i) for i in chosen):
            result, episode = player.replay(index, load_episode(dataset, index))
            results.append(result)
            shown.append(episode)
            bar.advance()
    return results, shown


class _Player:
    """An arm in MuJoCo, ready to repeat episodes."""

    def __init__(self, spec: EnvSpec, robot: str | None, renderer: RendererKind) -> None:
        self._spec = spec
        self._robot = get_robot(robot) if robot else robot_of(spec.robot)
        if self._robot.spec.num_joints != spec.robot.num_joints:
            raise ConfigError(
                f"the dataset's commands have {spec.robot.num_joints} joints "
                f"({', '.join(spec.robot.joint_names)}), {self._robot.spec.name} takes "
                f"{self._robot.spec.num_joints}; choose another robot="
            )
        self._kinematics = InverseKinematics(self._robot)
        self._renderer: RendererKind = renderer
        self._settings = Settings(self._robot, spec.size, spec.cameras, renderer)
        # Another arm stands elsewhere and has another size: the things' places mean nothing to it.
        self._own_arm = same_arm(self._robot.spec, spec.robot)

    def replay(self, index: int, episode: Episode) -> tuple[EpisodeReplay, Shown]:
        task, simulation, renderer = self._start(episode)
        readings, visible = [simulation.read()], [simulation.visible]
        for command in episode.action[:-1]:
            simulation.step(command)
            readings.append(simulation.read())
            visible.append(simulation.visible)
        arm = self._robot.num_arm_joints
        joints = np.stack([reading.agent_pos for reading in readings])
        off = np.abs(joints - episode.state)[1:, :arm]
        recorded_tool = np.stack([self._kinematics.tool(row[:arm]) for row in episode.state])
        tool = np.stack([reading.tool for reading in readings])
        apart = np.linalg.norm(tool - recorded_tool, axis=1)
        distance = (
            np.full(episode.length, np.nan)
            if task is None
            else np.array([task.distance(r) for r in readings])
        )
        result = EpisodeReplay(
            episode=index,
            task=episode.task,
            frames=episode.length,
            same_start=task is not None,
            joint_mae_rad=float(off.mean()),
            joint_max_rad=float(off.max()),
            tool_mae_m=float(apart[1:].mean()),
            tool_final_m=float(apart[-1]),
            success_recorded=bool(episode.success.any()),
            success_replayed=None if task is None else self._succeeds(distance, episode.task),
        )
        spec, places = self._spec.task(episode.task), np.split(episode.environment_state, 3, axis=1)
        camera = self._spec.cameras[0]
        shown = Shown(
            f"{episode.task}: episode {index}",
            f"Joints part by {result.joint_mae_rad:.4f} rad on average, the tool by "
            f"{1000 * result.tool_mae_m:.1f} mm.",
            episode.frames[camera],
            renderer.render(np.stack(visible))[camera],
            spec.distance(*places),
            distance,
            episode.state,
            joints,
        )
        return result, shown

    def _start(self, episode: Episode) -> tuple[Task | None, Simulation, Renderer]:
        """(task or None, simulation at the episode's start, renderer)."""
        spec = self._spec
        if self._own_arm and episode.task in TASKS:
            setting = self._settings.get(episode.task, Factors.from_json(episode.factors))
            simulation = setting.simulation()
            simulation.reset(draw_start(setting.task, setting.scene, self._kinematics, episode.seed))
            reading = simulation.read()
            places = np.concatenate([reading.tool, setting.task.object(reading), setting.task.goal(reading)])
            if np.allclose(reading.agent_pos, episode.state[0], atol=1e-3) and np.allclose(
                places, episode.environment_state[0], atol=1e-3
            ):
                assert setting.renderer is not None
                return setting.task, simulation, setting.renderer
        scene = build_scene(self._robot, Props(worldbody=""))
        arm = self._robot.num_arm_joints
        opening = float(episode.state[0, -1]) if self._robot.gripper else 0.0
        simulation = Simulation(scene)
        simulation.reset(Layout(scene, episode.state[0, :arm], opening))
        return None, simulation, Renderer(scene, spec.size, spec.cameras, kind=self._renderer)

    def _succeeds(self, distance: np.ndarray, task: str) -> bool:
        rule = SuccessRule(self._spec.task(task).success_distance, 1)
        return any(bool(rule.update(value[None])[0]) for value in distance[1:])


def _check(spec: EnvSpec) -> EnvSpec:
    if spec.action_kind != "joint_position" or spec.fps != CONTROL_HZ:
        raise UnsupportedError(
            f"replay needs joint positions at {CONTROL_HZ} Hz, the dataset has {spec.action_kind} at {spec.fps} Hz"
        )
    return spec


def _print_table(results: Sequence[EpisodeReplay]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="physics against the recording")
    # Short enough for 80 columns.
    for name in ("episode", "task", "frames", "joints rad", "at most", "tool mm", "success", "replayed"):
        table.add_column(name, no_wrap=True)
    for result in results:
        table.add_row(
            str(result.episode),
            result.task,
            str(result.frames),
            f"{result.joint_mae_rad:.4f}",
            f"{result.joint_max_rad:.4f}",
            f"{1000 * result.tool_mae_m:.1f}",
            "yes" if result.success_recorded else "no",
            {None: "unknown", True: "yes", False: "no"}[result.success_replayed],
        )
    Console().print(table)
