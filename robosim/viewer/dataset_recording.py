"""A rerun recording of episodes of any dataset, one after another on both timelines, `frame` and `time`.

/camera/<name>                        frames, as they are
/state/<name>, /action/<name>         scalars, in the source's own units
/outcome/reward, /outcome/success     scalars, where there are any
/episode                              which episode is on, its split and its instruction
/episodes                             the same as a log, a line an episode: a click goes there
/about                                what the dataset is
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from itertools import batched
from pathlib import Path

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from PIL import Image
from robosim_datasets.sources.source import Source, SourceEpisode, SourceInfo

from robosim.checkpoint import written_whole
from robosim.viewer.recording import APPLICATION, JOINT_COLOURS, PAUSE

PNG_PIXELS = 128
"""Frames that are no larger are kept without loss: JPEG bleeds the colour of a small object."""

JPEG_QUALITY = 90

ASSUMED_FPS = 10.0
"""Frames a second of a source that doesn't say."""

SENT_TOGETHER = 64
"""Frames a chunk of the recording."""

CAMERAS_A_ROW = 3


@dataclass(frozen=True)
class ShownEpisode:
    """The frames of an episode that are shown, its first ones, all of which can be decoded."""

    source: Source
    number: int
    columns: SourceEpisode
    """Cut to the frames shown."""
    length: int
    """Frames of the whole episode."""

    def pictures(self, camera: str) -> Iterator[bytes]:
        """The frames, decoded anew and encoded one by one: an episode needn't fit into memory."""
        return map(encode, self.source.frames(self.number, camera, range(self.columns.length)))


def check_episode(
    source: Source, number: int, columns: SourceEpisode, frames: int | None = None
) -> ShownEpisode:
    """Decode an episode's first `frames` frames (None: all). Raises `DatasetError` where one is damaged."""
    shown = ShownEpisode(source, number, _beginning(columns, frames), columns.length)
    for camera in source.info.cameras:
        for _ in source.frames(number, camera, range(shown.columns.length)):
            pass
    return shown


def encode(frame: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as PNG, or above `PNG_PIXELS` as JPEG of `JPEG_QUALITY`."""
    file = io.BytesIO()
    if max(frame.shape[:2]) <= PNG_PIXELS:
        Image.fromarray(frame).save(file, "PNG")
    else:
        Image.fromarray(frame).save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return file.getvalue()


def record_episodes(
    path: Path, name: str, info: SourceInfo, episodes: Iterable[ShownEpisode], outcome: bool = True
) -> None:
    """Write `episodes` as one rerun recording with a blueprint, atomically; `outcome`: any has rewards or successes.

    Raises `OutputError` where it can't be written.
    """
    with written_whole(path) as temporary:
        stream = rr.RecordingStream(APPLICATION, recording_id=f"show-{name}")
        try:
            stream.save(temporary, default_blueprint=blueprint(info, outcome))
            stream.send_recording_name(name)
            film = _Film(stream, info)
            for episode in episodes:
                film.add(episode)
            stream.flush()
        finally:
            stream.disconnect()


def blueprint(info: SourceInfo, outcome: bool = True) -> rrb.Blueprint:
    """Cameras side by side with the words, the curves below them."""
    cameras = [
        rrb.Spatial2DView(origin=rr.new_entity_path(["camera", name]), name=name) for name in info.cameras
    ]
    pictures = cameras if len(cameras) <= CAMERAS_A_ROW else [rrb.Grid(*cameras, grid_columns=CAMERAS_A_ROW)]
    words = rrb.Tabs(
        rrb.TextDocumentView(origin="/episode", name="now"),
        rrb.TextLogView(origin="/episodes", name="episodes"),
        rrb.TextDocumentView(origin="/about", name="dataset"),
    )
    shares = [3] * len(cameras) if pictures is cameras else [3 * CAMERAS_A_ROW]
    rows: list[rrb.Container | rrb.View] = [rrb.Horizontal(*pictures, words, column_shares=[*shares, 2])]
    there = {"state": info.state_names, "action": info.action_names, "outcome": outcome}
    curves = [rrb.TimeSeriesView(origin=f"/{kind}", name=kind) for kind, any_ in there.items() if any_]
    if curves:
        rows.append(rrb.Horizontal(*curves))
    return rrb.Blueprint(
        rrb.Vertical(*rows, row_shares=[3, 2][: len(rows)]),
        rrb.BlueprintPanel(state="collapsed"),
        rrb.SelectionPanel(state="collapsed"),
        rrb.TimePanel(
            state="collapsed",
            timeline="frame",
            fps=info.fps or ASSUMED_FPS,
            loop_mode="all",
            play_state="playing",
        ),
        auto_layout=False,
        auto_views=False,
    )


def about(info: SourceInfo) -> str:
    """What the dataset is, as Markdown."""
    rate = f"{info.fps:g} frames/s" if info.fps else f"no rate given, shown at {ASSUMED_FPS:g} frames/s"
    lines = [
        f"# {info.name}",
        f"{info.layout}, robot {info.robot or 'unknown'}",
        f"{info.episodes} episodes, {info.frames} frames, {rate}",
        f"commands: {info.action_kind}",
        *(f"- {note}" for note in info.notes),
        *(f"- {fault.sentence()}" for fault in info.faults),
    ]
    return "\n\n".join(lines) + "\n"


def distinct(names: tuple[str, ...]) -> list[str]:
    """The names, numbered where two are the same: each is a curve of its own."""
    return list(names) if len(set(names)) == len(names) else [f"{i} {name}" for i, name in enumerate(names)]


class _Film:
    """Episodes after one another in a recording."""

    def __init__(self, stream: rr.RecordingStream, info: SourceInfo) -> None:
        self._stream, self._info = stream, info
        self._fps = info.fps or ASSUMED_FPS
        self._frame, self._time = 0, 0.0
        stream.log("about", rr.TextDocument(about(info), media_type="text/markdown"), static=True)
        for entity, name, index in self._lines():
            colour = JOINT_COLOURS[index % len(JOINT_COLOURS)]
            stream.log(entity, rr.SeriesLines(colors=[colour], names=[name], widths=[1.5]), static=True)

    def add(self, episode: ShownEpisode) -> None:
        """Append an episode."""
        columns, length = episode.columns, episode.columns.length
        frames, seconds = self._frame + np.arange(length), self._time + self._seconds(columns)
        for camera in self._info.cameras:
            self._send_pictures(camera, episode.pictures(camera), frames, seconds)
        curves = self._curves(columns)
        for entity, values in curves.items():
            scalars = rr.Scalars.columns(scalars=values.astype(np.float64))
            self._stream.send_columns(entity, _times(frames, seconds), scalars)
        self._go_to(self._frame, self._time)
        self._describe(episode)
        self._frame, self._time = self._frame + length, float(seconds[-1]) + 1 / self._fps
        self._go_to(self._frame, self._time)
        for entity in curves:
            self._stream.log(entity, rr.Clear(recursive=False))
        self._stream.reset_time()
        # The curves break, and the last pictures stay for a moment.
        self._frame, self._time = self._frame + PAUSE, self._time + PAUSE / self._fps

    def _lines(self) -> Iterator[tuple[str, str, int]]:
        """(entity, name, number) of every curve that there may be."""
        kinds = {"state": self._info.state_names, "action": self._info.action_names}
        for kind, names in {**kinds, "outcome": ("reward", "success")}.items():
            for index, name in enumerate(distinct(names)):
                yield rr.new_entity_path([kind, name]), name, index

    def _curves(self, columns: SourceEpisode) -> dict[str, np.ndarray]:
        """Entity -> [T]."""
        kinds = ((columns.state, self._info.state_names), (columns.action, self._info.action_names))
        # An episode without commands, in a mixture with others, has none of the curves.
        values = [curve for part, names in kinds for curve in (part.T if part.size else [None] * len(names))]
        lines = zip(self._lines(), [*values, columns.reward, columns.success], strict=True)
        return {entity: curve for (entity, _, _), curve in lines if curve is not None}

    def _seconds(self, columns: SourceEpisode) -> np.ndarray:
        """float64 [T] from 0: the source's own times where it has any."""
        if columns.timestamps is not None and np.isfinite(columns.timestamps).all():
            return columns.timestamps - columns.timestamps[0]
        return np.arange(columns.length) / self._fps

    def _send_pictures(
        self, camera: str, pictures: Iterator[bytes], frames: np.ndarray, seconds: np.ndarray
    ) -> None:
        entity = rr.new_entity_path(["camera", camera])
        for place, blobs in enumerate(batched(pictures, SENT_TOGETHER)):
            part = slice(place * SENT_TOGETHER, place * SENT_TOGETHER + len(blobs))
            kinds = ["image/png" if blob.startswith(b"\x89PNG") else "image/jpeg" for blob in blobs]
            images = rr.EncodedImage.columns(blob=list(blobs), media_type=kinds)
            self._stream.send_columns(entity, _times(frames[part], seconds[part]), images)

    def _describe(self, episode: ShownEpisode) -> None:
        columns = episode.columns
        frames = f"{episode.length} frames"
        if columns.length < episode.length:
            frames = f"the first {columns.length} of {frames}"
        facts = [frames, *([f"split {columns.split}"] if columns.split else [])]
        text = [f"# episode {episode.number}", ", ".join(facts)]
        if columns.instruction:
            text.append(f"> {columns.instruction}")
        text.append(f"Its first frame is frame {self._frame} of this recording.")
        self._stream.log("episode", rr.TextDocument("\n\n".join(text), media_type="text/markdown"))
        line = f"episode {episode.number}: {', '.join(facts)}"
        self._stream.log("episodes", rr.TextLog(f"{line}. {columns.instruction}".strip(), level="INFO"))

    def _go_to(self, frame: int, seconds: float) -> None:
        self._stream.set_time("frame", sequence=frame)
        self._stream.set_time("time", duration=seconds)


def _beginning(columns: SourceEpisode, frames: int | None) -> SourceEpisode:
    """The first `frames` rows."""
    if frames is None or frames >= columns.length:
        return columns
    values = {field.name: getattr(columns, field.name) for field in fields(columns)}
    rows = {name: value[:frames] for name, value in values.items() if isinstance(value, np.ndarray)}
    return replace(columns, length=frames, **rows)


def _times(frames: np.ndarray, seconds: np.ndarray) -> list[rr.TimeColumn]:
    return [rr.TimeColumn("frame", sequence=frames), rr.TimeColumn("time", duration=seconds)]
