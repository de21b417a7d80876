"""RLDS: what a record holds comes back exactly, and damage costs what it touches and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from robosim_datasets.sources import opening, tfrecord
from robosim_datasets.sources.rlds import RldsSource, looks_like_rlds, open_rlds
from robosim_datasets.sources.tfrecord import (
    HEADER,
    encode_example,
    parse_example,
    read_record,
    scan_records,
    write_records,
)

from robosim.bench.layouts import RecordedEpisode, Recording, make_recording, rlds_example, write_rlds
from robosim.errors import DatasetError

BRIDGE = Path(__file__).parents[4] / "shared" / "data" / "bridge"


@pytest.fixture(scope="module")
def recording() -> Recording:
    return make_recording(4, 6, (20, 28), fps=5)


@pytest.fixture(scope="module")
def written(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that no test may change."""
    return write_rlds(tmp_path_factory.mktemp("rlds") / "made_up", recording)[0].parent


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "made_up"))


def assert_reads(source: RldsSource, episode: int, recorded: RecordedEpisode) -> None:
    read = source.read(episode)
    assert read.length == recorded.length
    np.testing.assert_array_equal(read.state, recorded.state)
    np.testing.assert_array_equal(read.action, recorded.action)
    assert read.instruction == recorded.instruction
    for camera, frames in recorded.frames.items():
        np.testing.assert_array_equal(list(source.frames(episode, camera, range(read.length))), frames)


def write_records_of(folder: Path, records: list[dict]) -> RldsSource:
    """A dataset without features.json, to have features of one's own."""
    folder.mkdir(exist_ok=True)
    write_records(folder / "own-train.tfrecord-00000-of-00001", [encode_example(r) for r in records])
    return open_rlds(folder)


@pytest.mark.parametrize("described", [True, False])
def test_a_recording_comes_back_exactly(tmp_path: Path, recording: Recording, described: bool):
    write_rlds(tmp_path / "it", recording, described=described)
    source = open_rlds(tmp_path / "it")
    for number, episode in enumerate(recording.episodes):
        assert_reads(source, number, episode)
        reward = source.read(number).reward
        assert reward is not None and reward.tolist() == [0.0] * (episode.length - 1) + [1.0]
    info = source.info
    assert (info.episodes, info.frames) == (4, recording.frames)
    assert info.cameras == {"front": (20, 28), "wrist": (20, 28)}
    assert info.action_names == tuple(f"action_{i}" for i in range(7))
    assert (info.fps, info.action_kind, info.splits) == (None, "other", {"train": 4})
    assert info.instructions == ("push the block to the left", "lift the block")
    assert not info.faults
    assert any("inferred" in note for note in info.notes) != described


def test_frames_come_in_the_order_and_number_asked_for(written: Path, recording: Recording):
    frames = list(open_rlds(written).frames(1, "wrist", [0, 2, 2, 6]))
    np.testing.assert_array_equal(frames, recording.episodes[1].frames["wrist"][[0, 2, 2, 6]])


def test_a_record_is_parsed_once_for_its_numbers_and_all_its_cameras(
    written: Path, monkeypatch: pytest.MonkeyPatch
):
    source, parsed, parse = open_rlds(written), [], parse_example
    monkeypatch.setattr(tfrecord, "parse_example", lambda data: parsed.append(1) or parse(data))
    for _ in range(2):
        for episode in range(4):
            read = source.read(episode)
            assert read.reward is not None
            read.reward[:] = 7  # a reader may change what it got
            for camera in source.info.cameras:
                list(source.frames(episode, camera, range(read.length)))
    reward = source.read(3).reward
    assert len(parsed) == 8 and reward is not None and reward.max() == 1


def test_a_long_look_through_the_files_shows_its_progress(
    written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    open_rlds(written)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(opening, "MANY_BYTES", 1000)
    open_rlds(written)
    assert "open: 1/1 files" in capsys.readouterr().err


def test_shards_and_splits_are_put_together(tmp_path: Path, recording: Recording):
    write_rlds(tmp_path / "1.0.0", recording, shards=2)
    write_rlds(tmp_path / "1.0.0", recording, split="test", described=False)
    source = open_rlds(tmp_path)
    assert source.info.splits == {"train": 4, "test": 4}
    assert [source.read(i).split for i in range(8)] == ["train"] * 4 + ["test"] * 4
    for number, episode in enumerate((0, 2, 1, 3, 0, 1, 2, 3)):
        assert_reads(source, number, recording.episodes[episode])


def test_the_newest_version_is_taken(tmp_path: Path, recording: Recording):
    for version, count in (("0.9.0", 1), ("0.10.0", 2)):
        write_rlds(tmp_path / version, Recording(recording.episodes[:count], 5))
    assert open_rlds(tmp_path).info.episodes == 2


def test_several_datasets_in_a_folder_are_an_error_that_names_them(tmp_path: Path, recording: Recording):
    write_rlds(tmp_path / "one", recording)
    write_rlds(tmp_path / "two", recording)
    with pytest.raises(DatasetError, match="one, two"):
        open_rlds(tmp_path)


def test_a_single_file_is_enough(written: Path, recording: Recording):
    file = next(written.glob("*.tfrecord*"))
    assert looks_like_rlds(file) and looks_like_rlds(written) and looks_like_rlds(written.parent)
    assert_reads(open_rlds(file), 3, recording.episodes[3])


def test_a_missing_shard_is_named(tmp_path: Path, recording: Recording):
    write_rlds(tmp_path, recording, shards=3)[1].unlink()
    source = open_rlds(tmp_path)
    assert [fault.where for fault in source.info.faults] == ["made_up-train.tfrecord-00001-of-00003"]
    assert_reads(source, 2, recording.episodes[2])


def test_parts_of_an_action_and_of_a_state_are_put_together_by_name(tmp_path: Path):
    rng, count = np.random.default_rng(0), 5
    record = {
        "steps/is_first": np.arange(count) == 0,
        "steps/action/world_vector": rng.normal(size=(count, 3)).astype(np.float32),
        "steps/action/gripper": np.arange(count, dtype=np.float32),
        "steps/action/terminate_episode": np.zeros((count, 3), np.int64),
        "steps/observation/joints": rng.normal(size=(count, 2)).astype(np.float32),
        "steps/observation/embedding": rng.normal(size=(count, 512)).astype(np.float32),
        "steps/observation/image": rlds_example(make_recording(1, count).episodes[0])[
            "steps/observation/front"
        ],
    }
    source = write_records_of(tmp_path, [record])
    episode = source.read(0)
    assert source.info.action_names == ("gripper", "world_vector_0", "world_vector_1", "world_vector_2")
    np.testing.assert_array_equal(episode.action[:, 0], record["steps/action/gripper"])
    np.testing.assert_array_equal(episode.action[:, 1:], record["steps/action/world_vector"])
    np.testing.assert_array_equal(episode.state, record["steps/observation/joints"])
    assert any("left out: action/terminate_episode, embedding" in note for note in source.info.notes)
    assert source.info.cameras == {"image": (48, 64)}


def test_cameras_that_show_nothing_are_left_out(tmp_path: Path, recording: Recording):
    episodes = [dict(episode.frames) for episode in recording.episodes]
    for number, frames in enumerate(episodes):
        frames["never"] = np.zeros_like(frames["front"])
        if number != 2:
            frames["wrist"] = np.zeros_like(frames["front"])
    changed = zip(recording.episodes, episodes, strict=True)
    write_rlds(
        tmp_path,
        Recording(tuple(RecordedEpisode(f, e.state, e.action, e.instruction) for e, f in changed), 5),
    )
    source = open_rlds(tmp_path)
    assert set(source.info.cameras) == {"front", "wrist"}
    assert any("never is black in all" in note for note in source.info.notes)
    assert any("wrist shows something in only 1 of 4" in note for note in source.info.notes)
    assert source.read(0).metadata["black_cameras"] == ["never", "wrist"]


@pytest.mark.parametrize("mark", ["is_first", "is_last"])
def test_bounds_within_a_record_are_a_fault_of_that_episode(tmp_path: Path, recording: Recording, mark: str):
    records = [rlds_example(episode) for episode in recording.episodes]
    records[1][f"steps/{mark}"] = np.arange(7) == 3
    source = write_records_of(tmp_path, records)
    with pytest.raises(DatasetError, match=rf"episode 1 .*bounds: {mark} marks step 3"):
        source.read(1)
    assert_reads(source, 2, recording.episodes[2])


def test_a_column_of_another_length_is_a_fault_of_that_episode(copy: Path, recording: Recording):
    records = [rlds_example(episode) for episode in recording.episodes]
    records[2]["steps/action"] = records[2]["steps/action"][:-1]
    write_records(next(copy.glob("*.tfrecord*")), [encode_example(record) for record in records])
    source = open_rlds(copy)
    with pytest.raises(DatasetError, match="steps/action has 49 values where 8 steps have 56"):
        list(source.frames(2, "front", [0]))
    assert_reads(source, 3, recording.episodes[3])


def test_a_column_of_another_kind_is_a_fault_of_that_episode(copy: Path, recording: Recording):
    records = [rlds_example(episode) for episode in recording.episodes]
    records[1]["steps/action"] = [b"left"] * 49
    write_records(next(copy.glob("*.tfrecord*")), [encode_example(record) for record in records])
    source = open_rlds(copy)
    with pytest.raises(DatasetError, match=r"episode 1 .*steps/action doesn't hold"):
        source.read(1)
    assert_reads(source, 2, recording.episodes[2])


def test_a_picture_that_cannot_be_decoded_is_named(tmp_path: Path, recording: Recording):
    records = [rlds_example(episode) for episode in recording.episodes]
    pictures = records[0]["steps/observation/wrist"]
    pictures[4] = pictures[4][: len(pictures[4]) // 2]
    source = write_records_of(tmp_path, records)
    with pytest.raises(DatasetError, match=r"episode 0 .*wrist, frame 4"):
        list(source.frames(0, "wrist", range(6)))
    assert len(list(source.frames(0, "wrist", range(4)))) == 4


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
def test_a_half_written_description_is_named_and_done_without(copy: Path, recording: Recording, name: str):
    text = (copy / name).read_text()
    (copy / name).write_text(text[: len(text) // 2])
    source = open_rlds(copy)
    assert [fault.where for fault in source.info.faults] == [name]
    for number, episode in enumerate(recording.episodes):
        assert_reads(source, number, episode)


def test_twenty_cuts_cost_what_lies_behind_them(copy: Path, recording: Recording):
    file = next(copy.glob("*.tfrecord*"))
    whole = file.read_bytes()
    ends = [record.start + record.size + 4 for record in scan_records(file).records]
    for cut in [*np.linspace(0, len(whole) - 1, 18).astype(int), ends[0], ends[0] + HEADER.size]:
        file.write_bytes(whole[:cut])
        left = sum(end <= cut for end in ends)
        if not left:
            with pytest.raises(DatasetError, match=r"tfrecord|no records"):
                open_rlds(copy)
            continue
        source = open_rlds(copy)
        assert source.info.episodes == left
        assert source.info.faults and all(fault.where == file.name for fault in source.info.faults)
        assert cut in ends or f"at byte {ends[left - 1]}" in source.info.faults[0].what
        for number in range(left):
            assert_reads(source, number, recording.episodes[number])


def test_twenty_flipped_bytes_cost_what_they_touch(copy: Path, recording: Recording):
    file = next(copy.glob("*.tfrecord*"))
    whole = file.read_bytes()
    records = scan_records(file).records
    second = records[1]
    places = [second.start - 12, second.start - 7, second.start - 3, second.start, second.start + second.size]
    for place in [*np.linspace(0, len(whole) - 1, 15).astype(int), *places]:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        hit = max(i for i, record in enumerate(records) if record.start - HEADER.size <= place)
        in_length = place < records[hit].start - 4
        in_length_checksum = not in_length and place < records[hit].start
        if in_length and hit == 0:
            with pytest.raises(DatasetError, match="damaged length"):
                open_rlds(copy)
            continue
        source = open_rlds(copy)
        lost = range(hit, 4) if in_length else [] if in_length_checksum else [hit]
        for number in set(range(4)) - set(lost):
            assert_reads(source, number, recording.episodes[number])
        if in_length or in_length_checksum:
            assert file.name == source.info.faults[0].where
        else:
            with pytest.raises(DatasetError, match=f"{file.name}: episode {hit} .*checksum"):
                source.read(hit)


def test_examples_and_records_survive_a_round_trip(tmp_path: Path):
    features = {
        "floats": np.array([1.5, -2, 3e-20], np.float32),
        "integers": np.array([-1, 2**40]),
        "texts": [b"", b"\x00\xff", "böck".encode()],
    }
    write_records(tmp_path / "x.tfrecord", [encode_example(features), b"not an example"])
    good, bad = scan_records(tmp_path / "x.tfrecord").records
    back = parse_example(read_record(tmp_path / "x.tfrecord", good))
    assert back["texts"] == features["texts"]
    for name in ("floats", "integers"):
        np.testing.assert_array_equal(back[name], features[name])
    with pytest.raises(DatasetError, match=r"isn't a tf\.train\.Example"):
        parse_example(read_record(tmp_path / "x.tfrecord", bad))


@pytest.mark.skipif(not BRIDGE.is_dir(), reason="needs the Bridge sample in shared/data")
def test_the_bridge_sample():
    source = open_rlds(BRIDGE)
    info = source.info
    assert (info.name, info.robot, info.fps, info.action_kind) == ("bridge_dataset", "widowx", 5, "ee_delta")
    assert (info.episodes, info.frames, len(info.instructions)) == (15, 150, 4)
    assert info.cameras == {f"image_{i}": (64, 64) for i in range(3)}
    assert info.action_names == ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
    assert not info.faults
    episodes = [source.read(i) for i in range(15)]
    assert episodes[3].instruction == "turn lever vertical to front"
    # Row t's action is the motion from frame t to t + 1 (the arm lags a little): no neighbour explains it better.
    moved = np.concatenate([np.diff(e.state[:, :3], axis=0)[1:-1] for e in episodes])
    shifts = [np.concatenate([e.action[s : len(e.action) - 3 + s, :3] for e in episodes]) for s in range(3)]
    errors = [np.abs(moved - shifted).mean() for shifted in shifts]
    assert errors[1] == min(errors) < 0.6 * errors[2]
    for camera in info.cameras:
        frames = np.stack(list(source.frames(0, camera, range(10)))).astype(float)
        # Pictures of one scene in their order: neighbours are more alike than the ends.
        assert np.abs(np.diff(frames, axis=0)).mean() < np.abs(frames[-1] - frames[0]).mean()
    assert json.dumps(info.metadata) and json.dumps(episodes[0].metadata)
