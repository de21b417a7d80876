"""What `robosim data show` prints and records, of any source."""

from __future__ import annotations

import io
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rerun.chunk import RrdReader
from robosim_datasets.clip_store import build_clip_store
from robosim_datasets.dataset_writer import DatasetWriter
from robosim_datasets.episode import Episode
from robosim_datasets.faults import Fault
from robosim_datasets.sources.source import SourceEpisode, SourceInfo

from robosim.errors import ConfigError, DatasetError, OutputError, UnsupportedError
from robosim.spec import EnvSpec, RobotSpec, TaskSpec
from robosim.viewer import dataset_view
from robosim.viewer.dataset_recording import PAUSE, SENT_TOGETHER, record_episodes
from robosim.viewer.dataset_view import ShowConfig, choose_episodes, show_command, show_source

LENGTH = 6
INFO = SourceInfo(
    layout="made up",
    name="made/up",
    cameras={"hand": (16, 24), "room": (130, 200)},
    fps=5.0,
    state_names=("x", "y"),
    action_names=("lift", "grip"),
    action_kind="ee_delta",
    robot="stick",
    episodes=5,
    frames=5 * LENGTH,
    instructions=("pick it up", "put it down"),
    splits={"train": 3, "test": 2},
    notes=("a camera was left out",),
    faults=(Fault("damaged", "part.bin", "ends after byte 7"),),
)


class MadeUp:
    """Episodes of noise; `damaged` ones can't be read, of `torn` ones the video can't."""

    def __init__(
        self, info: SourceInfo = INFO, damaged: tuple[int, ...] = (), torn: tuple[int, ...] = ()
    ) -> None:
        self.root, self.info, self._damaged, self._torn = Path("made/up"), info, damaged, torn

    def read(self, episode: int) -> SourceEpisode:
        if episode in self._damaged:
            raise DatasetError(f"numbers.bin: episode {episode} is damaged")
        values = np.random.default_rng(episode).uniform(-1, 1, (2, LENGTH, 2)).astype(np.float32)
        return SourceEpisode(
            length=LENGTH,
            state=values[0, :, : len(self.info.state_names)],
            action=values[1, :, : len(self.info.action_names)],
            instruction=INFO.instructions[episode % 2] if self.info.instructions else "",
            reward=np.full(LENGTH, episode, np.float32) if self.info.action_names else None,
            split="train" if episode < 3 else "test",
        )

    def frames(self, episode: int, camera: str, chosen):
        size = self.info.cameras[camera]
        for number in chosen:
            if episode in self._torn and number == 4:
                raise DatasetError(f"video.bin ends before frame 4 of episode {episode}")
            yield picture(episode, int(number), size)


def picture(episode: int, number: int, size: tuple[int, int]) -> np.ndarray:
    """A smooth picture: JPEG keeps it nearly as it is."""
    ramp = np.linspace(0, 200, size[1]) + 5 * episode + number
    return np.broadcast_to(ramp[None, :, None], (*size, 3)).astype(np.uint8)


def rows(recording: Path) -> dict[str, list[tuple[dict, dict]]]:
    """entity -> list of (times, components), in the order of the frames; static ones first."""
    found: dict[str, list] = {}
    for chunk in RrdReader(recording).stream().to_chunks():
        for row in chunk.to_record_batch().to_pylist():
            times = {name: row[name] for name in ("frame", "time") if row.get(name) is not None}
            values = {name.split(":")[-1]: value for name, value in row.items() if ":" in name and value}
            found.setdefault(chunk.entity_path, []).append((times, values))
    return {entity: sorted(of, key=lambda pair: pair[0].get("frame", -1)) for entity, of in found.items()}


def series(found, entity: str, component: str) -> tuple[list[int], list]:
    picked = [
        (times["frame"], values[component][0]) for times, values in found[entity] if values.get(component)
    ]
    return [frame for frame, _ in picked], [value for _, value in picked]


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("show") / "made.rrd"
    return show_source(MadeUp(), ShowConfig(path="x", chosen=(0, 4), out=str(out)))


def test_small_frames_come_back_exactly_and_large_ones_nearly(recording):
    found = rows(recording)
    both = list(range(LENGTH)) + list(range(LENGTH + PAUSE, 2 * LENGTH + PAUSE))
    for camera, size in INFO.cameras.items():
        frames, blobs = series(found, f"/camera/{camera}", "blob")
        assert frames == both
        shown = [np.asarray(Image.open(io.BytesIO(bytes(blob)))) for blob in blobs]
        wanted = [picture(episode, number, size) for episode in (0, 4) for number in range(LENGTH)]
        largest = np.abs(np.stack(shown).astype(int) - np.stack(wanted)).max()
        assert largest == 0 if camera == "hand" else largest < 8


def test_curves_have_their_names_and_times(recording):
    found = rows(recording)
    source = MadeUp()
    for kind, names in (("state", INFO.state_names), ("action", INFO.action_names)):
        for index, name in enumerate(names):
            _, values = series(found, f"/{kind}/{name}", "scalars")
            wanted = [getattr(source.read(episode), kind)[:, index] for episode in (0, 4)]
            np.testing.assert_allclose(values, np.concatenate(wanted))
    _, values = series(found, "/outcome/reward", "scalars")
    assert values == [0.0] * LENGTH + [4.0] * LENGTH
    assert "scalars" not in {name for _, row in found.get("/outcome/success", []) for name in row}
    times = [times["time"].total_seconds() for times, row in found["/action/lift"] if row.get("scalars")]
    assert times[:3] == pytest.approx([0, 0.2, 0.4]) and times[LENGTH] == pytest.approx((LENGTH + PAUSE) / 5)


def test_the_sources_own_times_are_kept(tmp_path):
    class Uneven(MadeUp):
        def read(self, episode: int) -> SourceEpisode:
            times = 7 + np.array([0, 0.1, 0.5, 0.6, 0.7, 0.8])
            return replace(super().read(episode), timestamps=times)

    source = Uneven(replace(INFO, fps=None))
    found = rows(show_source(source, ShowConfig(path="x", chosen=(1,), out=str(tmp_path))))
    times = [times["time"].total_seconds() for times, row in found["/state/x"] if row.get("scalars")]
    assert times == pytest.approx([0, 0.1, 0.5, 0.6, 0.7, 0.8], abs=1e-5)


def test_language_and_split_are_in_the_recording(recording):
    found = rows(recording)
    frames, texts = series(found, "/episode", "text")
    assert frames == [0, LENGTH + PAUSE]
    assert "episode 4" in texts[1] and "pick it up" in texts[1] and "split test" in texts[1]
    assert series(found, "/episodes", "text")[0] == frames
    assert "ends after byte 7" in found["/about"][0][1]["text"][0]


def test_the_text_says_the_same(capsys, tmp_path):
    show_source(MadeUp(), ShowConfig(path="x", chosen=(0, 3), out=str(tmp_path)))
    said = capsys.readouterr().out
    for words in (
        "made-up: made up",
        "5 (train 3, test 2)",
        "30 (5 frames/s, 6 s)",
        "hand 24×16, room 200×130",
        "2 numbers, ee_delta",
        "“put it down”",
        "note: a camera was left out",
        "ends after byte 7",
    ):
        assert words in said
    lift = np.concatenate([MadeUp().read(episode).action[:, 0] for episode in (0, 3)])
    (row,) = [line for line in said.splitlines() if "lift" in line]
    assert f"{lift.min():.4g}" in row and f"{lift.max():.4g}" in row
    assert any("test" in line and "put it down" in line and " 3 " in line for line in said.splitlines())


def test_video_without_anything_else_is_shown(capsys, tmp_path):
    info = replace(
        INFO, state_names=(), action_names=(), action_kind="none", instructions=(), splits={}, fps=None
    )
    found = rows(show_source(MadeUp(info), ShowConfig(path="x", episodes=2, out=str(tmp_path))))
    assert len(series(found, "/camera/hand", "blob")[0]) == 2 * LENGTH
    assert not any(entity.startswith(("/state", "/action")) for entity in found)
    said = capsys.readouterr().out
    assert "action    none" in said and "rate not given" in said and "values in" not in said


def test_an_episode_without_commands_among_others_has_no_curves(capsys, tmp_path):
    class Bare(MadeUp):
        def read(self, episode: int) -> SourceEpisode:
            read, nothing = super().read(episode), np.zeros((LENGTH, 0), np.float32)
            return replace(read, state=nothing, action=nothing) if episode == 1 else read

    found = rows(show_source(Bare(), ShowConfig(path="x", chosen=(0, 1), out=str(tmp_path))))
    frames, values = series(found, "/action/lift", "scalars")
    assert frames == list(range(LENGTH)) and values == pytest.approx(MadeUp().read(0).action[:, 0].tolist())
    assert len(series(found, "/camera/hand", "blob")[0]) == 2 * LENGTH
    assert any("lift" in line for line in capsys.readouterr().out.splitlines())


def test_of_a_long_episode_the_beginning_is_shown_and_the_text_says_so(capsys, tmp_path):
    class Timed(MadeUp):
        def read(self, episode: int) -> SourceEpisode:
            return replace(super().read(episode), timestamps=np.arange(LENGTH) / 5)

    source = Timed(torn=(0,))  # damaged beyond what is shown
    found = rows(show_source(source, ShowConfig(path="x", chosen=(0, 1), frames=4, out=str(tmp_path))))
    both = [0, 1, 2, 3, *range(4 + PAUSE, 8 + PAUSE)]
    for entity, component in (
        ("/camera/room", "blob"),
        ("/state/x", "scalars"),
        ("/outcome/reward", "scalars"),
    ):
        assert series(found, entity, component)[0] == both
    assert "the first 4 of 6 frames" in series(found, "/episode", "text")[1][0]
    assert (
        "episode 1: the recording has the first 4 of 6 frames; frames=null takes all"
        in capsys.readouterr().out
    )
    found = rows(show_source(source, ShowConfig(path="x", chosen=(1,), frames=None, out=str(tmp_path))))
    assert series(found, "/camera/room", "blob")[0] == list(range(LENGTH))
    assert "the recording has the first" not in capsys.readouterr().out


def test_frames_are_recorded_as_they_are_decoded(tmp_path):
    """Encoded pictures of a whole episode would fill the memory."""
    length, sent = 16 * SENT_TOGETHER, []
    info = replace(INFO, cameras={"hand": (64, 64)}, state_names=(), action_names=(), splits={})

    class Long(MadeUp):
        def read(self, episode: int) -> SourceEpisode:
            nothing = np.zeros((length, 0), np.float32)
            return SourceEpisode(length=length, state=nothing, action=nothing)

        def frames(self, episode: int, camera: str, chosen):
            noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
            for _ in chosen:
                sent.append(tracemalloc.get_traced_memory()[0])
                yield noise

    tracemalloc.start()
    try:
        show_source(Long(info), ShowConfig(path="x", chosen=(0,), frames=None, out=str(tmp_path)))
    finally:
        tracemalloc.stop()
    a_picture = 64 * 64 * 3
    assert len(sent) == 2 * length
    assert max(sent) - sent[0] < 6 * SENT_TOGETHER * a_picture


def test_damaged_episodes_are_named_and_left_out(capsys, tmp_path):
    source = MadeUp(damaged=(0,), torn=(2,))
    found = rows(show_source(source, ShowConfig(path="x", chosen=(0, 2, 4), out=str(tmp_path))))
    assert len(series(found, "/camera/hand", "blob")[0]) == LENGTH
    assert len(series(found, "/episode", "text")[1]) == 1
    said = capsys.readouterr().out
    assert "left out, damaged: episode 0: numbers.bin" in said
    assert "left out, damaged: episode 2: video.bin ends before frame 4" in said
    before = (tmp_path / "show.rrd").read_bytes()
    with pytest.raises(DatasetError, match="none of the episodes 0, 2"):
        show_source(source, ShowConfig(path="x", chosen=(0, 2), out=str(tmp_path)))
    assert (tmp_path / "show.rrd").read_bytes() == before


def test_equal_names_are_two_curves(tmp_path):
    info = replace(INFO, state_names=("joint", "joint"), action_names=("a/b", "a b"))
    found = rows(show_source(MadeUp(info), ShowConfig(path="x", chosen=(0,), out=str(tmp_path))))
    curves = [entity for entity in found if entity.startswith(("/state", "/action"))]
    assert len(curves) == 4 and all(series(found, entity, "scalars")[0] for entity in curves)


@pytest.mark.parametrize(
    "splits",
    [
        {"train": 90, "val": 10},
        {},
        {"train": 3},
        {"train": 50, "val": 50},
        {"a": 34, "b": 33, "c": 33},
        {"a": 1, "b": 99},
        {"a": 98, "b": 1, "c": 1},
    ],
)
@pytest.mark.parametrize("count", [1, 2, 4, 5, 7, 99, 200])
def test_episodes_are_spread_over_the_splits(splits, count):
    info = replace(INFO, episodes=100, splits=splits)
    numbers = choose_episodes(info, ShowConfig(path="x", episodes=count))
    assert len(numbers) == min(count, 100) and numbers == sorted(set(numbers)) and numbers[0] >= 0
    assert numbers[-1] < 100
    if sum(splits.values()) == 100 and count >= len(splits):
        ends = np.cumsum(list(splits.values()))
        assert set(np.searchsorted(ends, numbers, side="right")) == set(range(len(splits)))


def test_wrong_keys_are_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_view, "has_display", lambda: False)
    with pytest.raises(ConfigError, match="path is empty"):
        show_command("data show", [])
    with pytest.raises(ConfigError, match="no episode 5; made/up has 0 … 4"):
        show_source(MadeUp(), ShowConfig(path="x", chosen=(5,)))
    with pytest.raises(ConfigError, match="at least 1"):
        show_command("data show", ["path=x", "episodes=0"])
    with pytest.raises(ConfigError, match="at least 1"):
        show_command("data show", ["path=x", "frames=0"])
    with pytest.raises(ConfigError, match="layout"):
        show_command("data show", [f"path={tmp_path}", "layout=lerobott"])
    with pytest.raises(UnsupportedError, match="no display"):
        show_command("data show", ["path=x", "open=true"])
    with pytest.raises(DatasetError, match="nowhere"):
        show_command("data show", [f"path={tmp_path}/nowhere"])


@pytest.fixture
def run(tmp_path) -> tuple[Path, Episode]:
    """A run folder with a dataset, and the dataset's one episode."""
    robot = RobotSpec("dot", ("joint", "gripper"), ("rad", "fraction"), (-1, 0), (1, 1))
    spec = EnvSpec(robot, (TaskSpec("reach", "go there", 9, 0.1, "tool"),), size=16)
    noise = np.random.default_rng(0)
    episode = Episode(
        frames={"front": noise.integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)},
        state=noise.uniform(size=(4, 2)).astype(np.float32),
        action=noise.uniform(size=(4, 2)).astype(np.float32),
        environment_state=np.zeros((4, 9), np.float32),
        reward=np.zeros(4, np.float32),
        success=np.zeros(4, bool),
        task="reach",
        instruction="go there",
        behaviour="expert",
        split="val",
        seed=3,
    )
    with DatasetWriter(tmp_path / "run" / "dataset", spec, {}) as writer:
        writer.add(episode)
    return tmp_path / "run", episode


@pytest.mark.parametrize("display", [True, False])
def test_the_command_shows_a_run_and_opens_it_where_there_is_a_display(
    run, tmp_path, monkeypatch, capsys, display
):
    _, episode = run
    opened = []
    monkeypatch.setattr(dataset_view, "has_display", lambda: display)
    monkeypatch.setattr(dataset_view, "open_viewer", opened.append)
    monkeypatch.chdir(tmp_path)
    show_command("data show", ["path=run"])
    recording = Path("runs/show-run/show.rrd")
    assert opened == ([recording] if display else [])
    found = rows(recording)
    np.testing.assert_allclose(series(found, "/action/gripper", "scalars")[1], episode.action[:, 1])
    said = capsys.readouterr().out
    assert "go there" in said and f"next: uv run rerun {recording}" in said


@pytest.mark.parametrize("path", ["run", "run/clips"])
def test_the_command_shows_clips_where_there_is_no_dataset(run, tmp_path, monkeypatch, capsys, path):
    folder, episode = run
    build_clip_store(folder / "dataset", folder / "clips", progress=False)
    shutil.rmtree(folder / "dataset")
    monkeypatch.setattr(dataset_view, "has_display", lambda: False)
    monkeypatch.chdir(tmp_path)
    show_command("data show", [f"path={path}"])
    found = rows(Path("runs/show-run/show.rrd"))
    np.testing.assert_allclose(series(found, "/action/gripper", "scalars")[1], episode.action[:, 1])
    assert len(series(found, "/camera/front", "blob")[0]) == episode.length
    assert "val" in capsys.readouterr().out


def test_the_command_takes_a_layout(run, tmp_path, monkeypatch):
    with pytest.raises(DatasetError, match="no TFRecord files"):
        show_command("data show", [f"path={run[0]}", "layout=rlds", "open=false"])


@pytest.mark.parametrize(
    ("failure", "raised", "words"),
    [(OSError(28, "no space"), OutputError, "disk is full"), (KeyboardInterrupt(), KeyboardInterrupt, None)],
    ids=["full disk", "Ctrl-C"],
)
def test_a_recording_that_fails_leaves_the_old_one(tmp_path, failure, raised, words):
    path = tmp_path / "show.rrd"
    path.write_bytes(b"old")

    def broken():
        yield from ()
        raise failure

    with pytest.raises(raised, match=words):
        record_episodes(path, "x", INFO, broken())
    assert [file.name for file in tmp_path.iterdir()] == ["show.rrd"] and path.read_bytes() == b"old"
