"""A rerun recording of two versions of the same episodes side by side, with what differs and how the task goes: both
simulators (rollouts.rrd, play.rrd), or a recorded dataset and physics. One version alone can be shown too.

One recording holds several episodes, one after another on both timelines: it can be played through like a film.
The document beside the cameras says which episode is on.

    /physics/camera/<name>, /learned/camera/<name>, /difference/camera/<name>     frames
    /metrics/task_distance/{physics,learned}, /metrics/psnr                         scalars (metres, dB)
    /joints/{physics,learned}/<joint>                                               scalars (rad, gripper 0…1)
    /episode                                                                        what is being shown
    /about                                                                          how to read it
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from robosim_datasets.clip_store import ClipStore

from robosim.checkpoint import read_json, replace_atomically, write_error
from robosim.errors import CheckpointError
from robosim.spec import EnvSpec

APPLICATION = "robosim"

PAUSE = 5
"""Empty frames between two episodes: the curves break, the last pictures stay for a moment."""

REFERENCE_COLOUR, OTHER_COLOUR, PSNR_COLOUR = (31, 95, 174), (211, 88, 42), (47, 143, 107)

JOINT_COLOURS = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40),
    (148, 103, 189), (140, 86, 75), (227, 119, 194), (127, 127, 127),
)  # fmt: skip
"""One a joint, the same on both sides; the lines of the other side are thinner."""

PSNR_LIMIT = 40.0
"""Frames that are equal have an infinite PSNR; the curve stops here."""

SIMULATORS = """# robosim

**Physics** is MuJoCo, or for a replay the held-out recording. **Learned** is the simulator that was learned from
video. **Difference** is |learned − physics|, twice as strong.

Episodes follow one another. *Policy* episodes: the same policy acts in both simulators, starting from the same
frame; it sees its own simulator only, so the two may part. *Replay* episodes: the learned simulator gets the joint
commands of a held-out recording.

*task distance* is what decides success; in the learned simulator the judge reads it off the picture. *PSNR*
compares the two pictures of a moment, in dB.
"""


@dataclass(frozen=True)
class Shown:
    """One episode as a recording shows it, in two versions padded to the same T frames: the reference (physics, or
    what was recorded) and the one that is held against it. An episode without a reference has None for all three."""

    title: str
    note: str
    reference: np.ndarray | None  # uint8 [T,H,W,3]
    other: np.ndarray  # uint8 [T,H,W,3]
    distance_reference: np.ndarray | None  # float [T], metres
    distance_other: np.ndarray  # float [T], metres
    joints_reference: np.ndarray | None  # float [T,J]
    joints_other: np.ndarray  # float [T,J]

    def __len__(self) -> int:
        return len(self.other)


@dataclass(frozen=True)
class Sides:
    """What the two versions are called, and how to read the recording (Markdown). Without a reference, the other
    version is shown alone."""

    reference: str | None
    other: str
    about: str

    @property
    def named(self) -> tuple[str, ...]:
        """The versions that there are."""
        return (self.other,) if self.reference is None else (self.reference, self.other)

    @property
    def pictures(self) -> tuple[str, ...]:
        """What has a picture: the versions, and what differs between two."""
        return self.named if self.reference is None else (*self.named, "difference")


LEARNED_AGAINST_PHYSICS = Sides("physics", "learned", SIMULATORS)


def write_recording(run: Path, episodes: int = 2) -> Path:
    """Write `run`/rollouts.rrd with up to `episodes` policy episodes and one replay a task; return its path.

    Raises `CheckpointError` when the comparison's rollouts are missing or damaged.
    """
    spec = ClipStore(run / "clips").spec
    tasks = list(read_json(run / "compare" / "compare.json")["tasks"])
    shown = [episode for task in tasks for episode in _episodes(run / "compare", task, episodes)]
    return record(run / "rollouts.rrd", run.name, spec, shown)


def record(
    path: Path, name: str, spec: EnvSpec, episodes: Iterable[Shown], sides: Sides = LEARNED_AGAINST_PHYSICS
) -> Path:
    """Write `episodes` as one rerun recording with a blueprint, atomically."""
    temporary = path.with_name(path.name + ".partial")
    try:
        stream = rr.RecordingStream(APPLICATION, recording_id=name)
        stream.save(temporary, default_blueprint=blueprint(spec, sides))
        stream.send_recording_name(name)
        _describe(stream, spec, sides)
        start = 0
        for episode in episodes:
            _send(stream, spec, sides, episode, start)
            start += len(episode) + PAUSE
        stream.flush()
        stream.disconnect()
        replace_atomically(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise write_error(path, error) from error
    return path


def blueprint(spec: EnvSpec, sides: Sides = LEARNED_AGAINST_PHYSICS) -> rrb.Blueprint:
    """Cameras and difference side by side, the curves below them."""
    camera = spec.cameras[0]
    pictures = [
        rrb.Spatial2DView(
            origin=f"/{name}/camera/{camera}", name="difference × 2" if name == "difference" else name
        )
        for name in sides.pictures
    ]
    words = rrb.Tabs(
        rrb.TextDocumentView(origin="/episode", name="now"),
        rrb.TextDocumentView(origin="/about", name="how to read this"),
    )
    curves = [
        rrb.TimeSeriesView(origin="/metrics/task_distance", name="task distance, m"),
        *([] if sides.reference is None else [rrb.TimeSeriesView(origin="/metrics/psnr", name="PSNR, dB")]),
        rrb.TimeSeriesView(
            origin="/joints",
            name="joints, rad" if sides.reference is None else f"joints, rad (thin: {sides.other})",
            plot_legend=rrb.PlotLegend(visible=False),
        ),
    ]
    return rrb.Blueprint(
        rrb.Vertical(
            rrb.Horizontal(*pictures, words, column_shares=[3] * len(pictures) + [2]),
            rrb.Horizontal(*curves),
            row_shares=[3, 2],
        ),
        rrb.BlueprintPanel(state="collapsed"),
        rrb.SelectionPanel(state="collapsed"),
        rrb.TimePanel(
            state="collapsed", timeline="frame", fps=spec.fps, loop_mode="all", play_state="playing"
        ),
        auto_layout=False,
        auto_views=False,
    )


def psnr_by_frame(other: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """PSNR in dB of each frame of uint8 [T,H,W,3] over all its pixels, at most `PSNR_LIMIT`; float [T]."""
    error = (other.astype(np.float64) - reference.astype(np.float64)) / 255
    squared = np.square(error).mean(axis=(1, 2, 3))
    return np.minimum(-10 * np.log10(np.maximum(squared, 1e-12)), PSNR_LIMIT)


def _episodes(folder: Path, task: str, count: int) -> Iterator[Shown]:
    """Policy episodes of `task`, then one replay."""
    physics, learned = (_arrays(folder / f"{task}_{name}.npz") for name in ("physics", "learned"))
    for row in range(min(count, len(physics["frames"]), len(learned["frames"]))):
        length = int(max(physics["length"][row], learned["length"][row])) + 1
        ends = [
            f"- {name}: {'**success**' if rollouts['success'][row] else 'no success'} after "
            f"{rollouts['length'][row]} steps, {100 * rollouts['distance'][row, -1]:.1f} cm left"
            for name, rollouts in (("physics", physics), ("learned", learned))
        ]
        yield Shown(
            f"{task}: policy, episode {row + 1}",
            "The same policy acts in both simulators, from the same frame.\n\n" + "\n".join(ends),
            physics["frames"][row, :length],
            learned["frames"][row, :length],
            physics["distance"][row, :length],
            learned["distance"][row, :length],
            physics["agent_pos"][row, :length],
            learned["agent_pos"][row, :length],
        )
    if (folder / f"{task}_replay.npz").is_file():
        clips = _arrays(folder / f"{task}_replay.npz")
        yield Shown(
            f"{task}: replay",
            "The learned simulator gets the joint commands of a held-out recording, and its first frame.",
            clips["true"][0],
            clips["predicted"][0],
            clips["distance_true"][0],
            clips["distance_predicted"][0],
            clips["state"][0],
            clips["agent_pos"][0],
        )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; run robosim compare first")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib and NumPy each raise their own classes on a damaged file
        raise CheckpointError(f"{path} is damaged ({error}); run robosim compare again") from error


def _describe(stream: rr.RecordingStream, spec: EnvSpec, sides: Sides) -> None:
    """What doesn't change over time: the texts, the pictures' format, the curves' colours and names."""
    stream.log("about", rr.TextDocument(sides.about, media_type="text/markdown"), static=True)
    picture = rr.components.ImageFormat(
        width=spec.size, height=spec.size, color_model="RGB", channel_datatype="U8"
    )
    for side in sides.pictures:
        entity = f"{side}/camera/{spec.cameras[0]}"
        stream.log(entity, rr.Image.from_fields(format=picture), static=True)
    for side in sides.named:
        colour = OTHER_COLOUR if side == sides.other else REFERENCE_COLOUR
        line = rr.SeriesLines(colors=[colour], names=[side], widths=[2.0])
        stream.log(f"metrics/task_distance/{side}", line, static=True)
        for index, joint in enumerate(spec.robot.joint_names):
            colour = JOINT_COLOURS[index % len(JOINT_COLOURS)]
            width = 2.0 if side == sides.named[0] else 1.0
            line = rr.SeriesLines(colors=[colour], names=[f"{joint} {side}"], widths=[width])
            stream.log(f"joints/{side}/{joint}", line, static=True)
    line = rr.SeriesLines(colors=[PSNR_COLOUR], names=["PSNR"], widths=[2.0])
    stream.log("metrics/psnr", line, static=True)


def _send(stream: rr.RecordingStream, spec: EnvSpec, sides: Sides, episode: Shown, start: int) -> None:
    """One episode from frame `start` on."""
    frames = np.arange(start, start + len(episode))
    times = [rr.TimeColumn("frame", sequence=frames), rr.TimeColumn("sim_time", duration=frames / spec.fps)]
    videos = {sides.other: episode.other}
    curves = {f"metrics/task_distance/{sides.other}": episode.distance_other}
    curves |= _joint_curves(spec, sides.other, episode.joints_other)
    if sides.reference is not None and episode.reference is not None:
        assert episode.distance_reference is not None and episode.joints_reference is not None
        videos |= {sides.reference: episode.reference, "difference": _difference(episode)}
        curves |= {
            f"metrics/task_distance/{sides.reference}": episode.distance_reference,
            "metrics/psnr": psnr_by_frame(episode.other, episode.reference),
            **_joint_curves(spec, sides.reference, episode.joints_reference),
        }
    for side, video in videos.items():
        entity = f"{side}/camera/{spec.cameras[0]}"
        stream.send_columns(entity, times, rr.Image.columns(buffer=video.reshape(len(video), -1)))
    for entity, values in curves.items():
        stream.send_columns(entity, times, rr.Scalars.columns(scalars=values.astype(np.float64)))
    _go_to(stream, spec, start)
    for side in set(sides.pictures) - set(videos):
        stream.log(f"{side}/camera/{spec.cameras[0]}", rr.Clear(recursive=False))
    text = f"# {episode.title}\n\n{episode.note}\n"
    stream.log("episode", rr.TextDocument(text, media_type="text/markdown"))
    _go_to(stream, spec, start + len(episode))
    for entity in curves:
        stream.log(entity, rr.Clear(recursive=False))
    stream.reset_time()


def _difference(episode: Shown) -> np.ndarray:
    """|other − reference|, twice as strong: uint8 [T,H,W,3]."""
    assert episode.reference is not None
    apart = np.abs(episode.other.astype(np.int16) - episode.reference.astype(np.int16))
    return np.minimum(2 * apart, 255).astype(np.uint8)


def _joint_curves(spec: EnvSpec, side: str, joints: np.ndarray) -> dict[str, np.ndarray]:
    return {f"joints/{side}/{joint}": joints[:, index] for index, joint in enumerate(spec.robot.joint_names)}


def _go_to(stream: rr.RecordingStream, spec: EnvSpec, frame: int) -> None:
    stream.set_time("frame", sequence=frame)
    stream.set_time("sim_time", duration=frame / spec.fps)
