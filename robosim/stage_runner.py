"""The rule by which a stage runs, goes on, or is kept.

A stage is finished if and only if its manifest names this configuration, these inputs and unchanged outputs. One
that was begun with the same request goes on where it stopped. Results of another request are set aside as
`<folder>.old` and made again, so that nothing is silently reused and nothing is lost by a mistyped key.
"""

from __future__ import annotations

import importlib
import inspect
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robosim.checkpoint import (
    MANIFEST,
    atomic_write_json,
    content_name,
    deciding,
    drop_snapshots,
    finish_stage,
    json_hash,
    prepare_folder,
    read_json,
    stage_finished,
    stage_hash,
    write_error,
)
from robosim.config import FILE_CHOICES
from robosim.errors import CheckpointError, ConfigError, OutputError
from robosim.ranks import alone, rank
from robosim.shipped import locate, weights_hash

ATTEMPTS = ".attempts"
"""Folder of a run that notes which request an unfinished stage was begun with."""

UNHASHED = ("out", "device", "resume", "workers", "launcher", "ray_address", "init")
"""Keys that change where or how a stage runs, but not what is asked of it; nor do fields marked `SAME_RESULT`.
`init` is an input, by the hash of what lies there."""


@dataclass(frozen=True)
class Stage:
    """One step of the path: whose configuration it takes, what it reads, and what it leaves.

    `command` names the YAML file, `section` the part of it that is this stage's configuration (None: all of it),
    `fixed` the overrides that pick this stage, and `shared` the demo's keys that are handed on. `schema` and
    `function` are `module:name`; the function is called with those of config, run, seed, device and resume that it
    takes, and returns figures. `folders` lie below the run folder and the first holds the manifest; `outputs` are glob
    patterns below the run folder whose hashes the manifest keeps; `inputs` are the stages that are read; `instead` is
    another command that leaves the same; `check` (`module:name`) is called with the configuration before an earlier
    result is set aside for it.
    """

    name: str
    title: str
    command: str
    schema: str
    function: str
    inputs: tuple[str, ...]
    folders: tuple[str, ...]
    outputs: tuple[str, ...]
    section: str | None = None
    fixed: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    instead: str = ""
    check: str = ""

    def manifest(self, run: Path) -> Path:
        """Where its manifest lies once it is finished."""
        return run / self.folders[0] / MANIFEST

    def command_line(self, run: Path) -> str:
        """The command that makes this stage."""
        return " ".join(["robosim", self.command, *self.fixed, f"out={shown_path(run)}"])


@dataclass(frozen=True)
class Request:
    """A stage, and everything that is asked of it."""

    stage: Stage
    run: Path
    config: Any
    seed: int
    device: str
    resume: bool

    def record(self) -> dict[str, Any]:
        """What decides the result: neither the device nor the place."""
        asked = {key: value for key, value in deciding(self.config).items() if key not in UNHASHED}
        files = {
            key: content_name(Path(asked[key]))
            for key, ending in FILE_CHOICES.items()
            if str(asked.get(key)).endswith(ending)
        }
        return asked | files | {"seed": self.seed}

    def call(self) -> dict[str, Any]:
        """Make the result; returns its figures."""
        function: Callable[..., dict[str, Any]] = load(self.stage.function)
        given = {
            "config": self.config,
            "run": self.run,
            "seed": self.seed,
            "device": self.device,
            "resume": self.resume,
        }
        taken = inspect.signature(function).parameters
        return function(**{name: value for name, value in given.items() if name in taken})


def load(reference: str) -> Any:
    """The object that `module:name` refers to."""
    module, name = reference.split(":")
    return getattr(importlib.import_module(module), name)


def run_stage(request: Request, stages: Mapping[str, Stage], heading: str) -> bool:
    """Run a stage unless its result is there already; returns whether it ran.

    Of several processes the first decides, and writes. Raises `CheckpointError` when a stage that it reads isn't
    finished, or a finished result was changed, and `OutputError` when something that no stage made is in its place.
    """
    stage, run = request.stage, request.run
    inputs = alone(lambda: input_hashes(stage, run, stages) | starting_weights(request))
    record, manifest = request.record(), stage.manifest(run)

    def kept() -> bool:
        finished = request.resume and stage_finished(manifest.parent, record, inputs)
        if finished:
            clean_up(request)  # a kill may have come before the first time
        return finished

    if alone(kept):
        say(f"{heading}: finished before, kept")
        return False
    say(f"{heading}")
    seconds_before = alone(lambda: begin(request, json_hash([record, inputs]), record))
    figures, seconds = timed(request, seconds_before)

    def conclude() -> None:
        outputs = sorted(
            {path for pattern in stage.outputs for path in run.glob(pattern) if path.is_file()} - {manifest}
        )
        names = tuple(relative(path, manifest.parent) for path in outputs)
        prepare_folder(manifest.parent)  # a stage may have put its files elsewhere in the run only
        finish_stage(manifest.parent, stage.name, record, inputs, seconds, figures, names)
        clean_up(request)

    alone(conclude)
    say(f"  done in {clock(seconds)}")
    return True


def input_hashes(stage: Stage, run: Path, stages: Mapping[str, Stage]) -> dict[str, str]:
    """Hashes of the stages that `stage` reads, each made from the present results of its own inputs.

    Raises `CheckpointError` where one is missing, or was made from something that has been made again since.
    """
    hashes: dict[str, str] = {}
    for name in stage.inputs:
        manifest = stages[name].manifest(run)
        if not manifest.exists():
            made = f"`{stages[name].command_line(run)}`"
            if stages[name].instead:
                made += f" or `{stages[name].instead} out={shown_path(run)}`"
            raise CheckpointError(
                f"{stage.name} needs {name}, which isn't finished in {shown_path(run)}; "
                f"run {made} first, or set out= to another run"
            )
        for below, digest in read_json(manifest)["inputs"].items():
            if hashes.get(below, digest) != digest:
                raise CheckpointError(
                    f"{name} in {shown_path(run)} was made from an earlier {below}; "
                    f"run `{stages[name].command_line(run)}` again before {stage.name}"
                )
        hashes[name] = stage_hash(manifest.parent)
    return hashes


def starting_weights(request: Request) -> dict[str, str]:
    """Hash of the weights that a stage starts from (`init=`), as one more input; nothing where there are none.

    Raises `ConfigError` or `CheckpointError` where they don't fit or can't be read: before an earlier result is set
    aside.
    """
    init = getattr(request.config, "init", None)
    if init is None:
        return {}
    if locate(init).resolve() == request.run.resolve():
        raise ConfigError(f"init={init} is the run that this stage writes to; set out= to another one")
    if request.stage.section:
        load("robosim.training.starting_weights:check_start")(init, request.stage.name, request.config.model)
        return {"init": weights_hash(init, request.stage.name)}
    folder = request.stage.folders[0]
    found = {"init": weights_hash(init, folder)}
    load("robosim.adapter:load_adapter")(locate(init) / folder)
    return found


def begin(request: Request, wanted: str, record: Mapping[str, Any]) -> float:
    """Make room for the result, or keep what an interrupted attempt left; returns the seconds it took.

    `wanted` is the hash of configuration and inputs.
    """
    note, manifest = attempt_file(request), request.stage.manifest(request.run)
    attempt = read_json(note) if note.exists() else None
    if request.resume and attempt and attempt["request"] == wanted:
        return float(attempt["seconds"])
    prepare_folder(request.run)
    ours = attempt is not None or manifest.exists()
    if manifest.exists() and request.stage.check:
        load(request.stage.check)(request.config)
    if manifest.exists():
        say(f"  made again: {difference(read_json(manifest)['config'], record)}")
    # The folder with the manifest goes last: until then, the others are known to be a stage's.
    for name in reversed(request.stage.folders):
        set_aside(request.run / name, ours)
    atomic_write_json(note, {"request": wanted, "seconds": 0.0})
    return 0.0


def set_aside(folder: Path, ours: bool) -> None:
    """Move a stage's earlier folder to `<folder>.old`. `ours`: a stage made it, so it may be moved.

    What an interrupted attempt left never takes the place of a finished result there: it is removed instead.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"can't make the folder {folder}: a file is in its place; move it or set out=")
    if not any(folder.iterdir()):
        return
    if not ours:
        raise OutputError(f"{folder} holds files that robosim didn't make; move them or set out= elsewhere")
    old = folder.with_name(folder.name + ".old")
    try:
        if (old / MANIFEST).exists() and not (folder / MANIFEST).exists():
            shutil.rmtree(folder)
            return
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    except OSError as error:
        raise write_error(old, error) from error
    say(f"  the earlier {folder.name}/ is now {shown_path(old)}/")


def timed(request: Request, seconds_before: float) -> tuple[dict[str, Any], float]:
    """Call the stage's function; its figures, and its seconds over all attempts, however this one ends."""
    started = time.monotonic()
    try:
        figures = request.call()
    except BaseException:
        if rank() == 0:
            note = read_json(attempt_file(request))
            seconds = seconds_before + time.monotonic() - started
            atomic_write_json(attempt_file(request), {**note, "seconds": seconds})
        raise
    return figures, seconds_before + time.monotonic() - started


def clean_up(request: Request) -> None:
    """Remove what only an unfinished stage goes on with. Not before its manifest is written: it costs the training."""
    drop_snapshots(request.stage.manifest(request.run).parent)
    attempt_file(request).unlink(missing_ok=True)


def attempt_file(request: Request) -> Path:
    return request.run / ATTEMPTS / f"{request.stage.name}.json"


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The keys whose values differ, as `key old -> new`."""
    before, after = flatten(old), flatten(new)
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    changes = [f"{key} {before.get(key)} -> {after.get(key)}" for key in keys]
    return ", ".join(changes) or "its inputs changed, or resume=false"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def relative(path: Path, folder: Path) -> str:
    """`path` as seen from `folder`, going up where it must."""
    return path.relative_to(folder, walk_up=True).as_posix()


def shown_path(path: Path) -> str:
    """A path as short as a user would type it."""
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(path)


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def say(text: str) -> None:
    """Print a line, once a run."""
    if rank() == 0:
        print(text, flush=True)
