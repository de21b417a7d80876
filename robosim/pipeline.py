"""The eight stages in order, as the demo runs them and as single commands.

The demo is nothing but the commands in order: a stage's configuration is composed from the same YAML either way,
so that a stage made by its own command counts for the demo, and the reverse.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from robosim.checkpoint import atomic_write_json, prepare_folder, read_json, stage_figures, stage_seconds
from robosim.config import RunOptions, build, compose, compose_tree, override_text, resolve_device, unknown
from robosim.demo_start import choose_start, left_behind
from robosim.errors import ConfigError, RobosimError
from robosim.progress import progress
from robosim.ranks import alone, launched
from robosim.spec import LABELS, EnvSpec
from robosim.stage_runner import (
    Request,
    Stage,
    clock,
    flatten,
    load,
    run_stage,
    say,
    shown_path,
    starting_weights,
)
from robosim.stage_table import BY_NAME, IMPORT, MIX, NEEDED, STAGES


@dataclass
class DemoConfig(RunOptions):
    """The demo's own keys: each is handed to the stages that have it."""

    task: str = "both"
    robot: str = "panda"
    data: str = "demo"
    model: str | None = None
    """None: that of the shipped simulator, or of `demo_start.FROM_SCRATCH`."""
    from_scratch: bool = False
    """Train the simulator from random weights even where a shipped one could be taken."""


@dataclass(frozen=True)
class ReportConfig:
    """`episodes` rollouts a task go into the recording."""

    episodes: int = 2


def demo(command: str, overrides: Sequence[str]) -> None:
    """All stages in order. Every stage's configuration is checked before the first one runs."""
    own, by_stage = split_overrides(overrides)
    config = compose(command, DemoConfig, own)
    # Keys and folder first: a schema's module may take seconds to import, these mistakes are told at once.
    video = composed(STAGES[0], config, by_stage["collect"])
    start = choose_start(config.model, config.from_scratch, video)
    config = replace(config, model=start.model)
    trees = {STAGES[0]: video}
    for stage in STAGES[1:]:
        given = by_stage[stage.name]
        trees[stage] = composed(stage, config, [*start.overrides(stage.name, given), *given])
    run = run_folder(config, {"task": config.task, "model": start.model})
    prepare_folder(run)
    requests = []
    for stage, tree in trees.items():
        with named_errors(stage):
            requests.append(request_of(stage, run, tree))
            starting_weights(requests[-1])  # weights that don't fit are told before there is any video
    say(
        f"robosim demo: {len(STAGES)} stages into {shown_path(run)}; interrupt it at any time and run it again"
    )
    steps = {request.stage.name: request.config.train.steps for request in requests if request.stage.section}
    for line in (*start.lines, *left_behind(steps)):
        say(f"  {line}")
    for number, request in enumerate(requests, 1):
        run_stage(request, BY_NAME, f"[{number}/{len(STAGES)}] {request.stage.name}: {request.stage.title}")
    print_result(run)


def composed(stage: Stage, config: DemoConfig, given: Sequence[str]) -> dict[str, Any]:
    """A stage's configuration with the demo's own keys, and what is `given` for it."""
    shared = [override_text(key, getattr(config, key)) for key in stage.shared]
    common = [f"seed={config.seed}", f"device={config.device}", f"resume={str(config.resume).lower()}"]
    with named_errors(stage):
        return compose_tree(stage.command, [*stage.fixed, *shared, *common, *given])


@contextmanager
def named_errors(stage: Stage) -> Iterator[None]:
    """Say which stage a configuration error is about."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{stage.name}: {error}") from error


def stage_command(command: str, overrides: Sequence[str]) -> None:
    """One stage by its own command; a training stage by all processes of a `torchrun` together."""
    if launched()[1] == 1:
        run_command(command, overrides)
        return
    from robosim.training.distributed import processes

    with processes():
        run_command(command, overrides)


def run_command(command: str, overrides: Sequence[str]) -> None:
    """A stage, its figures, and what to run next."""
    tree = compose_tree(command, overrides)
    names = [stage.name for stage in (*STAGES, IMPORT) if stage.command == command]
    name = tree.get("stage", command)
    if name not in names:
        raise ConfigError(unknown("stage", str(name), names))
    stage = BY_NAME[name]
    if tree.get("weights") is not None and tree.get("data") is None:
        raise ConfigError("weights= needs data=, the datasets that it weighs: data=[RUN,RUN] weights=[1,2]")
    options = build(RunOptions, {key: tree[key] for key in run_keys()}, "")
    chosen = dict(text.split("=", 1) for text in overrides)
    if stage is IMPORT and not options.out:
        options.out = f"runs/{source_name(tree['source'])}"
    run = run_folder(options, chosen)
    if stage is IMPORT:
        refuse_own_source(tree["source"], run)
    if stage in STAGES[STAGES.index(BY_NAME["pretrain"]) :] and NEEDED["pretrain"] not in labels_of(run):
        from robosim_datasets.clip_store import ClipStore
        from robosim_datasets.splits import check_positions

        check_positions(ClipStore(run / "clips"), stage.name)
    if stage.command == MIX.command and tree["data"] is not None:
        config = build(load(MIX.schema), {key: tree[key] for key in ("data", "weights")}, "")
        # Mixing draws nothing: the training's seed= mustn't set the mixture and its columns aside.
        request = Request(MIX, run, config, 0, "cpu", options.resume)
        run_stage(request, BY_NAME, f"{MIX.name}: {MIX.title}")
        labels = ", ".join(labels_of(run))
        say(
            f"  labels: {labels or 'none, as no part has commands, or their arms or the meaning of theirs differ'}"
        )
    run_stage(request_of(stage, run, tree), BY_NAME, f"{stage.name}: {stage.title}")
    for label, value in figure_lines(flatten(stage_figures(stage.manifest(run).parent))):
        say(f"  {label}: {value}")
    files = [name for name in stage.outputs if "*" not in name and "/" not in name]
    made = files or [f"{folder}/" for folder in stage.folders]
    say(f"made {', '.join(f'{shown_path(run)}/{name}' for name in made)}")
    say(f"next: {next_line(stage, run, chosen)}")


def refuse_own_source(source: str, run: Path) -> None:
    """Raise `ConfigError` where an import would set its own source aside."""
    place = Path(source).expanduser().resolve()
    for made in (run / "dataset", run / "clips"):
        if place.exists() and (made.is_relative_to(place) or place.is_relative_to(made)):
            raise ConfigError(f"out={shown_path(run)} is where the source lies; set out= to another run")


def source_name(source: str) -> str:
    """What an imported dataset is called: its folder or file, and not the version of one (`bridge/1.0.0`)."""
    path = Path(source).expanduser().resolve()
    if re.fullmatch(r"v?[\d.]+", path.name):
        path = path.parent
    return path.stem if path.is_file() else path.name


def next_line(stage: Stage, run: Path, chosen: Mapping[str, str]) -> str:
    """What to run after `stage`, with those of the `chosen` keys that the next stage has too."""
    later = STAGES[1:] if stage is IMPORT else STAGES[STAGES.index(stage) + 1 :]
    if not later:
        return open_line(run)
    if NEEDED.get(later[0].name) not in (None, *labels_of(run)):
        return f"robosim play run={shown_path(run)}"
    kept = [f"{key}={value}" for key, value in chosen.items() if key in ("seed", "device", *later[0].shared)]
    return " ".join([later[0].command_line(run), *kept])


def labels_of(run: Path) -> tuple[str, ...]:
    """The labels beside the run's video; all that there can be where its clips can't be read."""
    from robosim_datasets.clip_files import INDEX

    try:
        return EnvSpec.from_json(read_json(run / "clips" / INDEX)["spec"]).labels
    except (RobosimError, OSError, KeyError):
        return LABELS


def request_of(stage: Stage, run: Path, tree: Mapping[str, Any]) -> Request:
    """A stage's part of a composed tree, typed. The seed goes in; out, device and resume stay beside."""
    options = build(RunOptions, {key: tree[key] for key in run_keys()}, "")
    own = {key: value for key, value in tree.items() if key not in run_keys()}
    own = dict(own[stage.section]) if stage.section else own
    schema = load(stage.schema)
    names = {field.name for field in fields(schema)}
    device = resolve_device(options.device)
    own |= {key: value for key, value in (("seed", options.seed), ("device", device)) if key in names}
    config = build(schema, own, stage.section or "")
    return Request(stage, run, config, options.seed, device, options.resume)


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The demo's own overrides, and each stage's: `collect.episodes=20` is `episodes=20` for collect.

    The train command has one section a stage in its own file, so there the stage's name stays.
    """
    own: list[str] = []
    by_stage: dict[str, list[str]] = {stage.name: [] for stage in STAGES}
    for text in overrides:
        name, dot, rest = text.partition(".")
        if dot and rest.startswith("out="):
            raise ConfigError(f"{text!r}: the stages of a demo share one folder; write out=...")
        if dot and name in by_stage:
            by_stage[name].append(text if BY_NAME[name].section else rest)
        elif dot and "=" not in name:
            raise ConfigError(unknown("stage", name, by_stage) + f" (in {text!r})")
        else:
            own.append(text)
    return own, by_stage


def run_keys() -> list[str]:
    return [field.name for field in fields(RunOptions)]


def run_folder(options: RunOptions, chosen: Mapping[str, str]) -> Path:
    """`out`, or runs/<task>-<model>-s<seed> below the current folder."""
    name = f"{chosen.get('task', 'both')}-{chosen.get('model', 'nano')}-s{options.seed}"
    return Path(options.out or Path("runs") / name).expanduser().resolve()


def collect_clips(config: Any, run: Path, resume: bool = True) -> dict[str, Any]:
    """Collect a dataset, then decode it once into the clip store. `resume=False` records every episode again."""
    from robosim_datasets.clip_store import build_clip_store

    from robosim.physics.collection.collect import collect

    # Written after the dataset is complete: an attempt that was interrupted while decoding doesn't collect again.
    kept = run / "dataset" / "collect.json"
    if kept.exists():
        figures = read_json(kept)
    else:
        figures = collect(config, run / "dataset", resume)
        atomic_write_json(kept, figures)
    build_clip_store(run / "dataset", run / "clips")
    return figures


def mixed_clips(config: Any, run: Path) -> dict[str, Any]:
    """Several datasets as one clip store; of all processes the first writes it."""
    from robosim_datasets.mixture import mix_clips

    return alone(lambda: mix_clips(config, run))


def make_report(config: ReportConfig, run: Path) -> dict[str, Any]:
    """The recording, the page, and the summary, which also says how long the three took."""
    from robosim.evaluation.report import write_report
    from robosim.evaluation.summary import missing_fields, write_summary
    from robosim.viewer.recording import write_recording

    started = time.monotonic()
    with progress("report", total=3, unit="file") as bar:
        write_recording(run, config.episodes)
        bar.advance()
        write_report(run, report_seconds=time.monotonic() - started)
        bar.advance()
        summary = write_summary(run, report_seconds=time.monotonic() - started)
        bar.advance()
    return {"missing_fields": missing_fields(summary)}


def print_result(run: Path) -> None:
    """The figures of the summary, the seconds of every stage, and how to look at the result."""
    from rich.console import Console
    from rich.table import Table

    summary = read_json(run / "summary.json")
    seconds = Table("stage", "seconds", title="time")
    for stage in STAGES:
        seconds.add_row(stage.name, f"{stage_seconds(stage.manifest(run).parent):.0f}")
    figures = Table("figure", "value", title="on held-out episodes")
    for name, value in headline(summary):
        figures.add_row(name, value)
    console = Console()
    console.print(figures)
    console.print(seconds)
    say(f"all stages together: {clock(sum(stage_seconds(s.manifest(run).parent) for s in STAGES))}")
    for name in ("report.html", "rollouts.rrd", "summary.json"):
        say(f"  {shown_path(run / name)}")
    say(f"next: {open_line(run)}")


def headline(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The summary's promised fields as text."""
    from robosim.evaluation.summary import FIELDS, TASK_FIELDS

    names = [name for name in FIELDS if not name.startswith("wall_seconds")]
    names += [f"policy.{task}.{name}" for task in summary["policy"] for name in TASK_FIELDS]
    flat = flatten(summary)
    return figure_lines({name: flat.get(name) for name in names})


def figure_lines(flat: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Figures by dotted name as lines of text; values by horizon share a line, in order."""
    lines: dict[str, dict[int, str]] = {}
    for name, value in flat.items():
        stem, _, last = name.rpartition(".")
        key, horizon = (stem, int(last)) if last.isdigit() else (name, 0)
        lines.setdefault(key, {})[horizon] = f"{value:.4g}" if isinstance(value, float) else str(value)
    result = []
    for key, values in lines.items():
        horizons = sorted(values)
        label = key if horizons == [0] else f"{key} at {', '.join(map(str, horizons))} frames"
        result.append((label, "  ".join(values[h] for h in horizons)))
    return result


def open_line(run: Path) -> str:
    return f"uv run rerun {shown_path(run / 'rollouts.rrd')}"
