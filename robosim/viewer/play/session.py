"""One person at the controls of the learned arm: starts, steps, undo, branches, recording.

A page owns one session and calls it from one thread at a time. Every call either returns what to show now, or raises
`PlayError`, whose message is the sentence for the person, and leaves everything as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from robosim.errors import RobosimError
from robosim.simulator import Simulator
from robosim.viewer.play.history import History, Origin
from robosim.viewer.play.play_recording import PlayRecording, Seen, finish_interrupted
from robosim.viewer.play.starts import RecordedStart, StartEpisode, list_episodes, recorded_start
from robosim.viewer.play.twin import Twin, TwinMoment, physics_tasks
from robosim.world_model.picture import read_picture

MOST_BRANCHES = 8

SAME_JOINTS, SAME_GREY = 0.01, 6.0
"""Physics repeats a recording if its joints (rad) and its picture (mean grey levels) are no further from it."""


class PlayError(RobosimError):
    """Something that a person asked for can't be done; the message is the sentence that the page shows."""


@dataclass(frozen=True)
class View:
    """What the page shows."""

    frame: np.ndarray
    """uint8 [S, S, 3]: the learned frame"""
    twin: np.ndarray | None
    """uint8 [S, S, 3]: MuJoCo under the same commands, where the start was a MuJoCo state"""
    joints: np.ndarray
    """float32 [S]: the joints, rad, gripper 0…1 (imported data: a state in their units); NaN without an adapter"""
    command: np.ndarray
    """float32 [J]: what the arm was told last, in the same units; NaN without an adapter"""
    step: int
    """Steps since the start of this branch."""
    can_undo: bool
    branches: tuple[str, ...]
    branch: str
    recording: bool
    recorded: int
    """Steps that the recording holds."""
    note: str
    """Where this branch began, or what happened last."""


class PlaySession:
    """One simulator of its own, with the models shared."""

    def __init__(self, simulator: Simulator, out: Path, seed: int = 0) -> None:
        """Start from a held-out first frame that the seed chooses. Recordings go below `out`.

        Raises `PlayError` where there is no frame to start from.
        """
        self._simulator, self._out, self._seed = simulator.copy(), out, seed
        spec = simulator.spec
        self.joint_names: list[str] = list(spec.robot.joint_names)
        self.low, self.high = simulator.limits
        self.units: list[str] = list(spec.robot.joint_units)
        self.num_codes: int = len(simulator.playable)
        self.has_commands: bool = simulator.has_targets
        """Whether `command` works: a slider aims at a joint's target. Else only `press` does."""
        self.no_commands: str = "" if self.has_commands else why_no_commands(simulator)
        """Why it doesn't, as part of a sentence."""
        self.tasks: list[str] = physics_tasks(spec) if simulator.has_tasks else []
        """Tasks that `start_from_physics` takes; empty where MuJoCo is missing."""
        self.episodes: list[StartEpisode] = list_episodes(simulator)
        self._twins: dict[str, Twin] = {}
        self._recording: PlayRecording | None = None
        self._branches: dict[str, History] = {}
        self._branch = "main"
        with sentences():
            self._simulator.reset(seed=seed)
        self._begin(Origin("a held-out first frame", spec.tasks[0].name, seed), None)
        recovered, notes = finish_interrupted(out)
        if recovered:
            notes.insert(0, f"finished a recording that was interrupted: {', '.join(map(str, recovered))}")
        self._note = "; ".join(notes) or self._note

    def view(self) -> View:
        """What is to be seen now."""
        seen, history = self._simulator.observation, self._history
        twin = history.present.twin
        return View(
            frame=seen.frame,
            twin=None if twin is None else twin.frame,
            joints=seen.joints,
            command=seen.command,
            step=history.present.step,
            can_undo=history.can_undo,
            branches=tuple(self._branches),
            branch=self._branch,
            recording=self._recording is not None,
            recorded=0 if self._recording is None else self._recording.steps,
            note=self._note,
        )

    def start_from_dataset(self, episode: int, frame: int) -> View:
        """Start from a frame of the run's video, with the frames before it as context.

        Physics stands beside it where it can repeat the episode up to there, as it can for what robosim collected.
        """
        with sentences():
            start = recorded_start(self._simulator, episode, frame)
            twin = self._follow(start)
            self._simulator.start(start.frames, start.joints, start.previous_command, self._seed)
        self._begin(Origin(f"episode {episode} ({start.task}), frame {frame}", start.task, start.seed), twin)
        return self.view()

    def start_from_physics(self, task: str, seed: int) -> View:
        """Start where MuJoCo starts the task with this seed; it then takes the same commands beside."""
        if seed < 0:
            raise PlayError(f"a seed is 0 or more, not {seed}")
        with sentences():
            twin = self._twin(task).start(seed)
            self._simulator.start(twin.frame[None], twin.joints, seed=self._seed)
        self._begin(Origin(f"MuJoCo, {task}, seed {seed}", task, seed), twin)
        return self.view()

    def start_from_picture(self, data: bytes, name: str) -> View:
        """Start from a picture file's bytes: a photo, a drawing. The probe guesses the joints."""
        with sentences():
            frame = read_picture(data, self._simulator.size, name)
            self._simulator.start(frame[None], seed=self._seed)
        self._begin(Origin(f"the picture {name}", self._history.origin.task, self._seed), None)
        return self.view()

    def press(self, code: int) -> View:
        """One step under the playable latent action `code`, 0-based."""
        if not 0 <= code < self.num_codes:
            raise PlayError(f"there is no latent action {code + 1}; choose one from 1 to {self.num_codes}")
        return self._step(lambda: self._simulator.press(code))

    def command(self, values: np.ndarray) -> View:
        """One step towards the joint command `values` [J] (rad, gripper 0…1).

        A command further away than the adapter knows is approached in steps: `View.command` is what the arm was
        told, and the page may send `values` again until they are equal.
        """
        if not self.has_commands:
            raise PlayError(f"only latent actions move this arm: {self.no_commands}")
        reach = self._simulator.largest_step
        values = np.asarray(values, np.float32)
        if values.shape != self.low.shape or not np.isfinite(values).all():
            raise PlayError(f"a command is {len(self.low)} numbers, one a joint, not {values.tolist()}")
        now = self._simulator.observation.command
        wanted = np.clip(values, self.low, self.high)
        return self._step(lambda: self._simulator.step(now + np.clip(wanted - now, -reach, reach)))

    def undo(self) -> View:
        """Go back by one step, exactly; a recording forgets it too."""
        if not self._history.can_undo:
            raise PlayError("there is nothing left to undo: this is as far back as this branch remembers")
        self._history.undo()
        self._history.rebuild(self._simulator)
        if self._recording is not None:
            self._recording.undo(self._seen())
        self._note = f"went back to step {self._history.present.step}"
        return self.view()

    def new_branch(self) -> View:
        """Leave the present branch as it is and go on in a copy of it."""
        if len(self._branches) >= MOST_BRANCHES:
            raise PlayError(f"{MOST_BRANCHES} branches are the most; go on in one of them")
        name = f"branch {len(self._branches)}"
        self._branches[name] = self._history.fork()
        self._note = f"{name} leaves {self._branch} at step {self._history.present.step}"
        self._branch = name
        self._new_episode()
        return self.view()

    def switch_branch(self, name: str) -> View:
        """Go on where another branch stands."""
        if name not in self._branches:
            raise PlayError(f"there is no branch {name!r}; choose from {', '.join(self._branches)}")
        self._branch = name
        self._history.rebuild(self._simulator)
        self._note = f"{name}, which began from {self._history.origin.title}"
        self._new_episode()
        return self.view()

    def start_recording(self) -> View:
        """Record from here on: every stretch between starts and branches becomes an episode."""
        if self._recording is not None:
            raise PlayError("a recording is running already; stop it first")
        if not self.has_commands:
            raise PlayError(f"a recording needs joint commands, and {self.no_commands}")
        with sentences():
            self._recording = PlayRecording(self._out, self._simulator.spec, self._simulator.name)
        self._new_episode()
        self._note = f"recording to {self._recording.folder}"
        return self.view()

    @property
    def recording_folder(self) -> Path | None:
        """Where the recording that is running keeps its steps."""
        return None if self._recording is None else self._recording.folder

    def stop_recording(self) -> tuple[View, list[Path]]:
        """Write the recording; returns the LeRobotDataset's folder and the .rrd file, nothing if no step was taken."""
        if self._recording is None:
            raise PlayError("nothing is being recorded")
        recording, self._recording = self._recording, None
        with sentences():
            paths = recording.finish()
        self._note = (
            f"recorded {recording.steps} steps to {recording.folder}" if paths else "nothing was recorded"
        )
        return self.view(), paths

    def close(self) -> None:
        """Finish the recording, if one is running: a page that goes away loses nothing."""
        if self._recording is not None:
            self.stop_recording()

    @property
    def _history(self) -> History:
        return self._branches[self._branch]

    def _begin(self, origin: Origin, twin: TwinMoment | None) -> None:
        """Start the present branch anew, where the simulator stands."""
        self._branches[self._branch] = History(origin, self._simulator, twin)
        self._note = f"from {origin.title}"
        self._new_episode()

    def _step(self, take: Callable[[], object]) -> View:
        before = self._history.present.twin
        with sentences():
            try:
                take()
                command = self._simulator.observation.command
                twin = None if before is None else self._twin(before.task).step(before, command)
                self._history.add(self._simulator, twin)
            except BaseException:
                # The learned arm mustn't be a step ahead of physics and of what can be undone.
                self._history.rebuild(self._simulator)
                raise
            if self._recording is not None:
                self._recording.add(self._seen())
        return self.view()

    def _twin(self, task: str) -> Twin:
        if task not in self.tasks:
            known = f"choose from {', '.join(self.tasks)}" if self.tasks else "MuJoCo can't start any here"
            raise PlayError(f"MuJoCo can't start {task!r}; {known}")
        if task not in self._twins:
            self._twins[task] = Twin(self._simulator.spec, task, self._simulator.renderer)
        return self._twins[task]

    def _follow(self, start: RecordedStart) -> TwinMoment | None:
        """Physics at a recorded frame, where it repeats the recording."""
        if start.task not in self.tasks or start.commands is None or start.joints is None:
            return None
        twin = self._twin(start.task)
        moment = twin.start(start.seed)
        for command in start.commands:
            moment = twin.step(moment, command)
        apart = np.abs(moment.frame.astype(float) - start.frames[-1]).mean()
        same = np.abs(moment.joints - start.joints).max() < SAME_JOINTS and apart < SAME_GREY
        return moment if same else None

    def _seen(self) -> Seen:
        """The present as a recording keeps it."""
        entry, origin = self._history.present, self._history.origin
        observation = self._simulator.observation
        if entry.step == 0 and entry.twin is not None:
            # The start is MuJoCo's: its places are known, and `robosim replay` finds the things by them.
            observation = replace(observation, **entry.twin.places)
        judged = self._simulator.judges(origin.task)
        distance = self._simulator.task_distance(origin.task) if judged else float("nan")
        return Seen(observation, distance, entry.twin)

    def _new_episode(self) -> None:
        if self._recording is not None:
            with sentences():
                self._recording.new_episode(self._history.origin, self._seen())


def why_no_commands(simulator: Simulator) -> str:
    """Why there is no joint to aim at."""
    if simulator.bundle is None:
        return "this simulator was learned from video alone; run robosim adapt"
    kind = simulator.spec.action_kind
    return f"the commands of this run ({kind}) are no targets of joints that its states show"


@contextmanager
def sentences() -> Iterator[None]:
    """Any error that a person is expected to meet, as a `PlayError` with the same words."""
    try:
        yield
    except PlayError:
        raise
    except RobosimError as error:
        raise PlayError(str(error)) from error
