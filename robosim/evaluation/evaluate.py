"""`robosim evaluate`: how far a learned simulator can be trusted, on held-out episodes.

<out>/evaluation.json      all figures, pooled and by task, with intervals
<out>/evaluation.html      one table and one figure a metric
<out>/strips/<task>.png    true, predicted and error frames
<out>/masks/<task>.png     true frames, and what counts as the object in them
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from robosim_datasets.clip_store import ClipStore, has_commands

from robosim.checkpoint import atomic_write_bytes, atomic_write_json, prepare_folder
from robosim.config import RunOptions, compose, resolve_device, unknown
from robosim.errors import CheckpointError, ConfigError, DatasetError
from robosim.evaluation.evaluation_page import write_page
from robosim.evaluation.evaluation_pictures import mask_picture, strips_picture
from robosim.evaluation.evaluation_table import print_table
from robosim.evaluation.machine import machine
from robosim.evaluation.measures import CONFIDENCE, SAMPLES, summarise
from robosim.evaluation.measuring import Measured, measure
from robosim.evaluation.report import command_line
from robosim.evaluation.stretches import Stretches, choose_places, read_stretches
from robosim.shipped import is_shipped, locate
from robosim.simulator import Simulator, load
from robosim.spec import EnvSpec

FILE = "evaluation.json"


@dataclass
class EvaluateConfig(RunOptions):
    """What is evaluated, and on how much."""

    run: str = ""  # the folder; takes the place of RunOptions.run, since `out` is the figures' folder here
    data: str | None = None
    tasks: tuple[str, ...] | None = None
    clips: int = 12
    """Stretches a task, at most, each of another episode."""
    context: int = 4
    horizons: tuple[int, ...] = (1, 4, 8, 16, 32)
    long: int = 100
    """One more horizon, of the stretches that are so long; 0: none."""
    steps: int | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        if not self.run:
            raise ConfigError("run is empty; name the run folder whose simulator is evaluated: run=runs/NAME")
        if self.clips < 1 or self.context < 1 or self.long < 0:
            raise ConfigError(
                "clips and context must be 1 or more and long 0 or more, not "
                f"{self.clips}, {self.context} and {self.long}"
            )
        if not self.horizons or min(self.horizons) < 1:
            raise ConfigError(f"horizons must be frames from 1 on, as in [1,4,8], not {list(self.horizons)}")
        self.horizons = tuple(sorted(set(self.horizons)))
        if self.tasks is not None and not self.tasks:
            raise ConfigError("tasks is empty; name some, as in tasks=[reach], or leave null for all")
        self.tasks = None if self.tasks is None else tuple(dict.fromkeys(self.tasks))

    @property
    def measured(self) -> tuple[int, ...]:
        """All horizons, the long one included."""
        return tuple(sorted({*self.horizons, self.long} - {0}))


def evaluate_command(command: str, overrides: Sequence[str]) -> None:
    """Evaluate a run, print one table, and say what was made."""
    config = compose(command, EvaluateConfig, overrides)
    folder = locate(config.run)
    if config.out is None and is_shipped(folder):
        raise ConfigError(f"{folder} belongs to the package; name a folder for the figures: out=FOLDER")
    out = (Path(config.out) if config.out else folder / "evaluation").expanduser()
    figures = evaluate(config, folder, out)
    print_table(figures)
    for line in figures["missing"]:
        print(f"  {line}")
    look = " and ".join(f"{name}/" for name in ("strips", "masks") if any((out / name).glob("*.png")))
    print(f"made {out}: {FILE}, evaluation.html, {look} to look at")
    print(f"next: open {out / 'evaluation.html'} in a browser; robosim play run={config.run}")


def evaluate(config: EvaluateConfig, folder: Path, out: Path) -> dict[str, Any]:
    """Measure the simulator in `folder`, write everything to `out`, return what evaluation.json holds.

    Raises `CheckpointError` where the run isn't whole, `DatasetError` where no episode can be evaluated or `data`
    doesn't fit, `ConfigError` for tasks that the data don't have.
    """
    device = resolve_device(config.device)
    simulator = load(folder, device, config.steps, config.temperature)
    store, split = held_out_store(config, simulator, folder)
    prepare_folder(out)
    stretches = held_out_stretches(config, simulator, store, split)
    measured = measure(simulator, folder, stretches, store.spec, config.measured, config.seed, device)
    figures = describe(config, simulator, folder, store, stretches, measured)
    for task in stretches.tasks:
        write_pictures(out, task, stretches, measured)
    atomic_write_json(out / FILE, figures)
    write_page(out, figures)
    return figures


def held_out_store(
    config: EvaluateConfig, simulator: Simulator, folder: Path
) -> tuple[ClipStore, str | None]:
    """The clips that are evaluated and the split that counts as held out; None: all of it.

    A saved simulator doesn't know its training video, so that of other data only the held-out split is safe.
    """
    own = simulator.clips
    if config.data is None:
        if own is None:
            raise CheckpointError(
                f"{folder} is a saved simulator without clips; name a run folder to evaluate it on: data=runs/NAME"
            )
        return own, "val"
    store = ClipStore(Path(config.data).expanduser() / "clips")
    check_fit(simulator.spec, store.spec, config.data)
    sources = {store.source, *(part.source for part in store.parts)}
    if own is not None and sources & {own.source, *(part.source for part in own.parts)}:
        raise DatasetError(
            f"data={config.data} holds video that {folder} was trained on, so that not all of it is held out; leave "
            "data= away to evaluate on the run's own held-out episodes"
        )
    return store, "val" if own is None else None


def check_fit(spec: EnvSpec, other: EnvSpec, name: str) -> None:
    """Raise `DatasetError` where other data have another size, camera or arm than the simulator."""
    arm, other_arm = (
        (s.robot.name, s.robot.joint_names, s.robot.joint_units, s.robot.content, s.action_kind)
        for s in (spec, other)
    )
    for what, mine, theirs in (
        ("frame size", spec.size, other.size),
        ("camera", spec.cameras[0], other.cameras[0]),
        ("frames a second", spec.fps, other.fps),
        ("arm", arm, other_arm),
    ):
        if mine != theirs:
            raise DatasetError(
                f"data={name} doesn't fit the simulator: its {what} is {theirs}, the simulator's {mine}; name data of "
                "the same arm, camera and size"
            )


def held_out_stretches(
    config: EvaluateConfig, simulator: Simulator, store: ClipStore, split: str | None
) -> Stretches:
    """Stretches of all tasks that are asked for and have held-out episodes; with an adapter, of those with commands."""
    names = [task.name for task in store.spec.tasks]
    for task in config.tasks or ():
        if task not in names:
            raise ConfigError(unknown("task", task, names))
    labelled = True if simulator.bundle is not None and has_commands(store.spec) else None
    places = []
    for task in config.tasks or names:
        episodes = store.select(split, task, labelled=labelled)
        amount = (config.clips, config.context, max(config.horizons), config.long)
        places += choose_places(store, episodes, *amount, config.seed)
    return read_stretches(store, places, config.context)


def describe(
    config: EvaluateConfig,
    simulator: Simulator,
    folder: Path,
    store: ClipStore,
    stretches: Stretches,
    measured: Measured,
) -> dict[str, Any]:
    """What evaluation.json holds."""
    by_task = {task: np.flatnonzero(stretches.task == task) for task in stretches.tasks}
    reached = {
        task: {
            "stretches": len(rows),
            "longest": int(stretches.length[rows].max()) - stretches.context,
            "reach": {str(h): int(stretches.reaches(h)[rows].sum()) for h in config.measured},
        }
        for task, rows in by_task.items()
    }
    return {
        "command": command_line(),
        "run": str(folder.resolve()),
        "data": str(store.path.parent.resolve()),
        "source": store.source,
        "seed": config.seed,
        "sampling": asdict(simulator.world.sampling),
        "context": config.context,
        "horizons": list(config.horizons),
        "long": config.long,
        "interval": f"{CONFIDENCE:.0%} percentile bootstrap over episodes, {SAMPLES} resamples",
        "machine": machine() | {"device": str(simulator.world.device)},
        "stretches": reached,
        "missing": [
            *missing_tasks(config, store, stretches),
            *missing_horizons(config, stretches, by_task),
            *measured.missing,
        ],
        "pooled": summarise(measured.measures, np.arange(len(stretches)), config.seed),
        "tasks": {task: summarise(measured.measures, rows, config.seed) for task, rows in by_task.items()},
    }


def missing_tasks(config: EvaluateConfig, store: ClipStore, stretches: Stretches) -> list[str]:
    """A sentence for every task that no episode could be evaluated of."""
    wanted = config.tasks or [task.name for task in store.spec.tasks]
    why = f"has no held-out episode of more than context={config.context} frames, with commands if others have them"
    return [f"{task} is left out: it {why}" for task in wanted if task not in stretches.tasks]


def missing_horizons(
    config: EvaluateConfig, stretches: Stretches, by_task: dict[str, np.ndarray]
) -> list[str]:
    """A sentence for every task with horizons that none of its stretches reaches."""
    lines = []
    for task, rows in by_task.items():
        longest = int(stretches.length[rows].max()) - stretches.context
        if unreached := [str(h) for h in config.measured if h > longest]:
            lines.append(
                f"{task}: no figures {', '.join(unreached)} frames ahead: the longest held-out stretch has {longest} "
                f"frames after its context of {config.context}"
            )
    return lines


def write_pictures(out: Path, task: str, stretches: Stretches, measured: Measured) -> None:
    """strips/<task>.png, and masks/<task>.png where the task has an object that can be found."""
    rows = np.flatnonzero(stretches.task == task)
    prepare_folder(out / "strips")
    atomic_write_bytes(out / "strips" / f"{task}.png", strips_picture(stretches, measured.videos, rows))
    masks = out / "masks" / f"{task}.png"
    if task in measured.colours:
        prepare_folder(masks.parent)
        atomic_write_bytes(masks, mask_picture(measured.colours[task], stretches, measured.videos, rows))
    else:
        masks.unlink(missing_ok=True)  # of an earlier evaluation in this folder
