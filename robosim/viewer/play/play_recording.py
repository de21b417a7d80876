"""What a person plays, as a LeRobotDataset and as a rerun recording.

    <out>/play-000/dataset/     learned frames, the arm's joints and commands, an episode a stretch
    <out>/play-000/play.rrd     the same episodes beside MuJoCo, where it had the same start

A stretch that has ended is written to `<out>/play-000/episodes/` at once, without loss, and dataset and recording are
made from those files at the end; then `episodes/` goes as a whole, by being renamed. So a crash costs the stretch under
way, and no other: the next session makes the rest.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from robosim_datasets.episode import Episode
from robosim_datasets.folders import write_errors
from robosim_datasets.lerobot_io import DatasetWriter

from robosim.checkpoint import atomic_write_json, prepare_folder, read_json, replace_atomically
from robosim.errors import CheckpointError, RobosimError
from robosim.simulator import Observation
from robosim.spec import EnvSpec, SuccessRule
from robosim.viewer.play.history import Origin
from robosim.viewer.play.twin import TwinMoment

DATASET, FILM = "dataset", "play.rrd"

EPISODES, WRITTEN, ABOUT, LOCK = "episodes", ".episodes-written", "about.json", ".recording"
"""What lies beside them until they are made: the stretches (under the second name once they may go), what arm they are
of, and the lock of who makes them."""

LONGEST = 2000
"""Steps after which a stretch is cut in two: memory stays flat and a crash costs little."""

PLAYED = """# robosim play

**Learned** is the simulator that was learned from video, driven by a person. **Physics** is MuJoCo from the same start
under the same commands, and **difference** is |learned − physics|, twice as strong; both are missing where play began
from a picture.

Episodes follow one another: every stretch between two starts or branches. *task distance* is what decides the task;
in the learned simulator the judge reads it off the picture.
"""


@dataclass(frozen=True)
class Seen:
    """One state of play."""

    observation: Observation
    distance: float
    """Task distance in the learned simulator, metres; NaN where nothing is judged."""
    twin: TwinMoment | None


class PlayRecording:
    """A recording that is being made, in a new folder of its own."""

    def __init__(self, out: Path, spec: EnvSpec, simulator: str) -> None:
        """Raises `OutputError` where `out` can't be written."""
        # The learned simulator shows one camera, and judges only what had positions.
        labels = spec.labels if "environment_state" in spec.labels else ("state", "action")
        spec = replace(spec, cameras=spec.cameras[:1], labels=labels)
        self.folder = _new_folder(out)
        self._lock = _lock(self.folder)
        self._origin: Origin | None = None
        self._rows: list[Seen] = []
        self._written = 0
        self._episodes = 0
        atomic_write_json(self.folder / ABOUT, {"spec": spec.to_json(), "simulator": simulator})
        # While a person plays, not while they wait for `finish`.
        threading.Thread(target=_import_ahead, name="play imports").start()

    @property
    def steps(self) -> int:
        return self._written + max(0, len(self._rows) - 1)

    def new_episode(self, origin: Origin, start: Seen) -> None:
        """End the stretch under way, if it has a step, and begin another at `start`."""
        self._write(origin, [start])

    def add(self, seen: Seen) -> None:
        """Take a step; `seen` is where it arrived."""
        self._rows.append(seen)
        if len(self._rows) > LONGEST and self._origin is not None:
            self._write(self._origin, [seen])

    def undo(self, present: Seen) -> None:
        """Forget the last step. Before the stretch's first one there is nothing to forget: it begins here then."""
        self._rows.pop()
        if not self._rows:
            self._rows = [present]

    def finish(self) -> list[Path]:
        """Write dataset and .rrd; returns their paths, or nothing (and no folder) if no step was taken.

        Raises `OutputError` where that fails; the stretches stay, for `finish_interrupted`.
        """
        try:
            self._write(None, [])
            return _assemble(self.folder)
        finally:
            self._lock.close()

    def _write(self, next_origin: Origin | None, next_rows: list[Seen]) -> None:
        """Put the stretch under way on disk, if it has a step, and go on with the next.

        The next one begins even if that fails: a stretch must not run on across a start.
        """
        origin, rows = self._origin, self._rows
        self._origin, self._rows = next_origin, next_rows
        if origin is None or len(rows) < 2:
            return
        path = self.folder / EPISODES / f"{self._episodes:04d}.npz"
        prepare_folder(path.parent)
        temporary = path.with_name(path.name + ".partial")
        with write_errors(path):
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **_columns(rows, origin))
            replace_atomically(temporary, path)
        self._written += len(rows) - 1
        self._episodes += 1


def finish_interrupted(out: Path) -> tuple[list[Path], list[str]]:
    """Make datasets of the recordings below `out` that a crash interrupted.

    Returns what was made, and a sentence for each that can't be; those stay as they are. A recording that another page
    is making holds its lock and is left alone.
    """
    made, failed = [], []
    for folder in sorted(out.glob("play-*")) if out.is_dir() else []:
        if not (folder / LOCK).is_file():
            continue
        try:
            with _lock(folder):
                made += _assemble(folder)[:1]
        except (BlockingIOError, FileNotFoundError):
            continue  # another page is making it, or just has
        except Exception as error:  # whatever ails an old recording, it mustn't keep a person from playing
            reason = error if isinstance(error, RobosimError) else repr(error)
            failed.append(f"{folder} was interrupted and can't be finished: {reason}")
    return made, failed


def _assemble(folder: Path) -> list[Path]:
    """Dataset and .rrd from the stretches in `folder`, which then go. A death at any point costs nothing: there are all
    stretches, or dataset and .rrd are whole."""
    stretches = sorted((folder / EPISODES).glob("*.npz"))
    if stretches:
        _make(folder, stretches)
    made = [path for path in (folder / DATASET, folder / FILM) if path.exists()]
    with write_errors(folder):
        if (folder / EPISODES).is_dir():
            (folder / EPISODES).rename(folder / WRITTEN)
        shutil.rmtree(folder / WRITTEN, ignore_errors=True)
        (folder / ABOUT).unlink(missing_ok=True)
        (folder / LOCK).unlink(missing_ok=True)  # last: the next session tidies up what a death leaves here
    if not made:
        with contextlib.suppress(OSError):  # something of somebody else's lies there
            folder.rmdir()
    return made


def _make(folder: Path, stretches: list[Path]) -> None:
    about = read_json(folder / ABOUT)
    spec = EnvSpec.from_json(about["spec"])
    provenance = {"source": "robosim play", "simulator": about["simulator"]}
    with DatasetWriter(folder / DATASET, spec, provenance, replace=True) as writer:
        for path in stretches:
            writer.add(_episode(_read(path), spec))
    _record(folder / FILM, folder.name, spec, stretches)


def _import_ahead() -> None:
    """What `finish` needs and takes seconds to import."""
    for name in ("pandas", "robosim.viewer.recording"):
        importlib.import_module(name)


def _columns(rows: list[Seen], origin: Origin) -> dict[str, np.ndarray]:
    """A stretch of T states as arrays. The command that led to state t + 1 is `action[t]`; the last acts on nothing."""
    seen = [row.observation for row in rows]
    commands = [observation.command for observation in seen]
    columns = {
        "frames": np.stack([observation.frame for observation in seen]),
        "state": np.stack([observation.joints for observation in seen]),
        "action": np.stack([*commands[1:], commands[-1]]),
        "places": np.stack([np.concatenate([o.tool, o.object, o.goal]) for o in seen]),
        "distance": np.array([row.distance for row in rows], np.float32),
        "origin": np.array([origin.title, origin.task, str(origin.seed)]),
    }
    twins = [row.twin for row in rows if row.twin is not None]
    if len(twins) == len(rows):
        columns["twin_frames"] = np.stack([twin.frame for twin in twins])
        columns["twin_state"] = np.stack([twin.joints for twin in twins])
        columns["twin_distance"] = np.array([twin.distance for twin in twins], np.float32)
    return columns


def _episode(stretch: dict[str, np.ndarray], spec: EnvSpec) -> Episode:
    """A stretch as an episode of the dataset; reward and success are the judge's, where there is one."""
    _, task, seed = stretch["origin"].tolist()
    about = spec.task(task)
    has_places = "environment_state" in spec.labels
    judged = has_places and about.subject != "none"
    distance = stretch["distance"]
    rule = SuccessRule(about.success_distance, 1)
    # Row t is the outcome of arriving at frame t, so the start can't be a success; one that was reached stays.
    held = [False, *(bool(rule.update(value[None])[0]) for value in distance[1:])]
    success = np.logical_or.accumulate(held)
    arrived = np.diff(success.astype(np.float32), prepend=0.0)
    reward = -np.diff(distance, prepend=distance[0]) + arrived if judged else np.zeros(len(distance))
    return Episode(
        frames={spec.cameras[0]: stretch["frames"]},
        state=stretch["state"],
        action=stretch["action"],
        environment_state=stretch["places"] if has_places else stretch["places"][:, :0],
        reward=reward.astype(np.float32),
        success=success,
        task=task,
        instruction=about.instruction,
        behaviour="play",
        split="train",
        seed=int(seed),
    )


def _record(path: Path, name: str, spec: EnvSpec, stretches: list[Path]) -> None:
    from robosim.viewer.recording import Shown, Sides, record

    def shown() -> Iterator[Shown]:
        for number, file in enumerate(stretches):
            stretch = _read(file)
            title, task, _ = stretch["origin"].tolist()
            yield Shown(
                f"{task}: episode {number}",
                f"A person at the controls, from {title}.",
                stretch.get("twin_frames"),
                stretch["frames"],
                stretch.get("twin_distance"),
                stretch["distance"],
                stretch.get("twin_state"),
                stretch["state"],
            )

    beside = any("twin_frames" in _names(file) for file in stretches)
    record(path, name, spec, shown(), Sides("physics" if beside else None, "learned", PLAYED))


def _names(path: Path) -> list[str]:
    with np.load(path, allow_pickle=False) as archive:
        return list(archive.files)


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib and NumPy each raise their own classes on a damaged file
        raise CheckpointError(f"{path} is damaged ({error}); delete it to make the rest") from error


def _new_folder(out: Path) -> Path:
    """`out`/play-NNN, the first number that is free; two pages never get the same."""
    prepare_folder(out)
    taken = [int(path.name[5:]) for path in out.glob("play-*") if path.name[5:].isdigit()]
    number = max(taken, default=-1) + 1
    while True:
        folder = out / f"play-{number:03d}"
        with write_errors(folder), contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
        number += 1


def _lock(folder: Path) -> IO[Any]:
    """Hold the folder's lock for as long as the file stays open. Raises `BlockingIOError` if another holds it."""
    file = (folder / LOCK).open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        file.close()
        raise
    return file
