import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rerun.chunk import RrdReader

from robosim.errors import OutputError
from robosim.spec import EnvSpec, RobotSpec, TaskSpec
from robosim.viewer.recording import PAUSE, PSNR_LIMIT, Shown, psnr_by_frame, record

SIZE = 8
SPEC = EnvSpec(
    RobotSpec("dot", ("x", "gripper"), ("rad", "fraction"), (-1, 0), (1, 1)),
    (TaskSpec("reach", "go", 9, 0.1, "tool"),),
    size=SIZE,
)


def episode(title: str, length: int, seed: int) -> Shown:
    generator = np.random.default_rng(seed)
    frames = generator.integers(0, 256, (2, length, SIZE, SIZE, 3)).astype(np.uint8)
    distances, joints = generator.uniform(size=(2, length)), generator.uniform(size=(2, length, 2))
    return Shown(title, "a note", *frames, *distances, *joints)


EPISODES = [episode("reach: policy, episode 1", 7, 1), episode("reach: replay", 4, 2)]


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("viewer") / "rollouts.rrd"
    return record(path, "reach-nano-s0", SPEC, EPISODES)


@pytest.fixture(scope="module")
def rows(recording):
    """entity → list of (frame or None for static, column name → value)."""
    found: dict[str, list] = {}
    for chunk in RrdReader(recording).stream().to_chunks():
        batch = chunk.to_record_batch()
        names = batch.schema.names
        for row in batch.to_pylist():
            frame = row["frame"] if "frame" in names else None
            values = {name: row[name] for name in names if ":" in name}
            found.setdefault(chunk.entity_path, []).append((frame, values))
    return found


def series(rows, entity, component):
    """Frames and values of a component, in the order of time."""
    picked = [
        (frame, value)
        for frame, values in rows[entity]
        for name, value in values.items()
        if name.endswith(component) and frame is not None and value is not None
    ]
    picked.sort(key=lambda pair: pair[0])
    return [frame for frame, _ in picked], [value[0] for _, value in picked]


def frames_of(index):
    start = sum(len(shown) + PAUSE for shown in EPISODES[:index])
    return list(range(start, start + len(EPISODES[index])))


def test_the_pictures_come_back_exactly(rows):
    for name, side in (("physics", "reference"), ("learned", "other")):
        frames, buffers = series(rows, f"/{name}/camera/front", "Image:buffer")
        assert frames == frames_of(0) + frames_of(1)
        wanted = np.concatenate([getattr(shown, side) for shown in EPISODES])
        stored = np.stack([np.frombuffer(bytes(b), np.uint8).reshape(SIZE, SIZE, 3) for b in buffers])
        np.testing.assert_array_equal(stored, wanted)
    _, buffers = series(rows, "/difference/camera/front", "Image:buffer")
    first = np.frombuffer(bytes(buffers[0]), np.uint8).reshape(SIZE, SIZE, 3).astype(int)
    apart = np.abs(EPISODES[0].reference[0].astype(int) - EPISODES[0].other[0].astype(int))
    np.testing.assert_array_equal(first, np.minimum(2 * apart, 255))


def test_the_curves_come_back(rows):
    frames, values = series(rows, "/metrics/task_distance/learned", "Scalars:scalars")
    assert frames == frames_of(0) + frames_of(1)
    np.testing.assert_allclose(values, np.concatenate([shown.distance_other for shown in EPISODES]))
    _, values = series(rows, "/metrics/psnr", "Scalars:scalars")
    np.testing.assert_allclose(values[:7], psnr_by_frame(EPISODES[0].other, EPISODES[0].reference))
    for name, joints in (("physics", "joints_reference"), ("learned", "joints_other")):
        _, values = series(rows, f"/joints/{name}/gripper", "Scalars:scalars")
        np.testing.assert_allclose(values[7:], getattr(EPISODES[1], joints)[:, 1])


def test_every_episode_is_announced_where_it_begins(rows):
    frames, texts = series(rows, "/episode", "TextDocument:text")
    assert frames == [frames_of(0)[0], frames_of(1)[0]]
    assert all(shown.title in text for shown, text in zip(EPISODES, texts, strict=True))
    assert "/about" in rows


def test_both_timelines_and_a_blueprint_are_there(recording):
    reader = RrdReader(recording)
    assert len(reader.recordings()) == 1 and len(reader.blueprints()) == 1
    times = set()
    for chunk in reader.stream().to_chunks():
        times |= set(chunk.to_record_batch().schema.names)
    assert {"frame", "sim_time"} <= times


def test_rerun_finds_no_fault(recording):
    tool = Path(sys.executable).with_name("rerun")
    done = subprocess.run([tool, "rrd", "verify", recording], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_psnr_of_frames():
    black = np.zeros((2, 4, 4, 3), np.uint8)
    shifted = black.copy()
    shifted[1] = 51
    assert psnr_by_frame(shifted, black) == pytest.approx([PSNR_LIMIT, -20 * np.log10(0.2)])


def test_a_recording_that_cant_be_written_leaves_nothing(tmp_path):
    (tmp_path / "rollouts.rrd").mkdir()
    with pytest.raises(OutputError, match=r"rollouts\.rrd"):
        record(tmp_path / "rollouts.rrd", "x", SPEC, EPISODES)
    assert [p.name for p in tmp_path.iterdir()] == ["rollouts.rrd"]
