"""Damage is named in one sentence, and a failed write loses nothing that was there."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from robosim_datasets.checks.command import check_dataset
from robosim_datasets.folders import StagedFolder
from robosim_datasets.lerobot_io import DatasetWriter, dataset_hash, open_dataset, read_episode
from robosim_datasets.video_file import VideoFileWriter

from robosim.checkpoint import atomic_write_json, file_hash
from robosim.errors import DatasetError, OutputError

VIDEO = "videos/observation.images.front/chunk-000/file-000.mp4"
DATA = "data/chunk-000/file-000.parquet"


@pytest.fixture
def copy(dataset: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dataset, tmp_path / "copy"))


def edit_json(path: Path, change) -> None:
    """Change a document and leave its own checksum out, as in a dataset of the first versions."""
    content = json.loads(path.read_text())
    content.pop("sha256", None)
    change(content)
    atomic_write_json(path, content)


def sentences(root: Path) -> list[str]:
    return [fault.sentence() for fault in check_dataset(root)]


def accept_changes(root: Path) -> None:
    """Record the files as they are now, as an editing tool would; the episodes' own checksums go."""

    def rehash(document: dict) -> None:
        document.pop("hashes", None)
        for name, record in document["files"].items():
            record["bytes"] = (root / name).stat().st_size
            record["sha256"] = file_hash(root / name)

    edit_json(root / "meta/robosim.json", rehash)


def one_line(error: BaseException) -> bool:
    return "\n" not in str(error)


def test_missing_folder(tmp_path):
    with pytest.raises(DatasetError, match=r"no dataset at .*absent.*robosim collect") as caught:
        open_dataset(tmp_path / "absent")
    assert one_line(caught.value)


def test_folder_that_is_no_dataset(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DatasetError, match=r"no robosim dataset.*meta/robosim.json"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("content", ["{ not json", "[]", '{"format": 99}', '{"format": 1, "spec": {}}', ""])
def test_damaged_robosim_json(copy, content):
    (copy / "meta/robosim.json").write_text(content)
    with pytest.raises(DatasetError, match=r"robosim\.json") as caught:
        open_dataset(copy)
    assert one_line(caught.value)


def test_spec_with_unknown_key(copy):
    edit_json(copy / "meta/robosim.json", lambda document: document["spec"].update(colour="red"))
    with pytest.raises(DatasetError, match=r"spec is damaged.*colour"):
        open_dataset(copy)


@pytest.mark.parametrize("name", [VIDEO, DATA, "meta/episodes/chunk-000/file-000.parquet", "meta/info.json"])
def test_truncated_file_is_named(copy, name):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DatasetError, match=f"{name}.*damaged" if "info" in name else f"{name} is truncated"):
        open_dataset(copy)
    assert any(name in sentence for sentence in sentences(copy))


@pytest.mark.parametrize("name", [VIDEO, DATA, "meta/episodes/chunk-000/file-000.parquet"])
def test_truncated_file_of_the_recorded_size_still_fails_to_read(copy, name):
    """As after a copy that a full disk cut short, and a tool that then rewrote the records."""
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    accept_changes(copy)
    with pytest.raises(DatasetError, match=name) as caught:
        read_episode(copy, len(open_dataset(copy).episodes) - 1)
    assert one_line(caught.value)


@pytest.mark.parametrize("name", [VIDEO, DATA])
def test_flipped_bit_is_named(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    assert any(name in fault and "changed since" in fault for fault in sentences(copy))


def test_missing_file_is_named(copy):
    (copy / VIDEO).unlink()
    with pytest.raises(DatasetError, match=f"{VIDEO} is missing"):
        open_dataset(copy)


def test_wrong_rate_and_size(dataset, copy):
    with pytest.raises(DatasetError, match="32 pixels, but 64 are needed"):
        open_dataset(dataset, size=64)
    with pytest.raises(DatasetError, match="10 frames/s, but 30 are needed"):
        open_dataset(dataset, fps=30)
    edit_json(copy / "meta/info.json", lambda info: info.update(fps=30))
    accept_changes(copy)
    with pytest.raises(DatasetError, match=r"10 frames/s in its spec and 30 in info\.json"):
        open_dataset(copy)


@pytest.mark.parametrize(("size", "fps", "complaint"), [(16, 10, "16×16 pixels"), (32, 30, "30 frames/s")])
def test_video_of_another_size_or_rate(copy, size, fps, complaint):
    video = VideoFileWriter(copy / VIDEO, size, fps)
    video.add(np.zeros((165, size, size, 3), np.uint8))
    video.close()
    accept_changes(copy)
    with pytest.raises(DatasetError, match=complaint):
        read_episode(copy, 0)
    assert any(complaint in fault for fault in sentences(copy))


def test_non_finite_and_miscounted_rows_are_reported(copy):
    table = pq.read_table(copy / DATA)
    rewards = table["next.reward"].to_numpy().copy()
    rewards[12] = np.nan
    table = table.set_column(table.column_names.index("next.reward"), "next.reward", [rewards])
    table = table.set_column(table.column_names.index("index"), "index", [np.arange(len(table))[::-1]])
    rows = open_dataset(copy).episodes
    with pq.ParquetWriter(copy / DATA, table.schema) as writer:
        first = 0
        for row in rows:
            writer.write_table(table.slice(first, row["length"]))
            first += row["length"]
    accept_changes(copy)
    faults = sentences(copy)
    assert "not finite: episode 1, reward: at frame 2" in faults
    assert any("index is 164 in row 0" in fault or "index is 163 in row 1" in fault for fault in faults)


def test_episode_out_of_range(dataset):
    with pytest.raises(DatasetError, match=r"no episode 11; it has 0 … 10"):
        read_episode(dataset, 11)


# Writing


def test_existing_dataset_is_refused_unless_replaced(write, episodes, copy):
    before = dataset_hash(copy)
    with pytest.raises(OutputError, match=r"already holds a finished result; delete it or set out="):
        write(copy, episodes[:2])
    assert dataset_hash(copy) == before
    write(copy, episodes[:2], replace=True)
    assert len(open_dataset(copy).episodes) == 2
    assert sorted(path.name for path in copy.parent.iterdir()) == ["copy"]


def test_foreign_folder_is_never_replaced(write, episodes, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").write_text("years of work")
    with pytest.raises(OutputError, match="holds other files"):
        write(tmp_path / "thesis", episodes, replace=True)
    assert (tmp_path / "thesis/chapter.tex").read_text() == "years of work"


def test_empty_folder_is_used(write, episodes, tmp_path):
    (tmp_path / "empty").mkdir()
    assert open_dataset(write(tmp_path / "empty", episodes[:1]))


def test_file_in_the_folders_place(write, episodes, tmp_path):
    (tmp_path / "file").write_text("precious")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="a file is in its place"):
            write(root, episodes)
    assert (tmp_path / "file").read_text() == "precious"


def test_error_while_adding_keeps_the_old_dataset(spec, episodes, copy):
    before = dataset_hash(copy)
    with pytest.raises(KeyboardInterrupt), DatasetWriter(copy, spec, {}, replace=True) as writer:
        writer.add(episodes[0])
        raise KeyboardInterrupt
    assert dataset_hash(copy) == before
    assert not copy.with_name("copy.partial").exists()


def test_rename_that_fails_keeps_the_old_dataset(write, episodes, copy, monkeypatch):
    before, replace = dataset_hash(copy), os.replace

    def fail(source, target):
        if Path(target) == copy:
            raise OSError(errno.EACCES, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match="Permission denied"):
        write(copy, episodes[:1], replace=True)
    monkeypatch.undo()
    assert dataset_hash(copy) == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


@pytest.mark.parametrize(
    "victim",
    [
        (pq.ParquetWriter, "write_table"),
        (VideoFileWriter, "add"),
        (VideoFileWriter, "close"),
        (pq, "write_table"),
        (os, "fsync"),
    ],
    ids=lambda victim: f"{victim[0].__name__}.{victim[1]}",
)
def test_full_disk_keeps_the_old_dataset(write, episodes, copy, monkeypatch, victim):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = dataset_hash(copy)
    monkeypatch.setattr(*victim, full)
    with pytest.raises(OutputError, match="the disk is full") as caught:
        write(copy, episodes[:2], replace=True)
    monkeypatch.undo()
    assert one_line(caught.value)
    assert dataset_hash(copy) == before
    assert check_dataset(copy) == []
    assert not copy.with_name("copy.partial").exists()


def test_leftover_of_a_crash_is_removed_and_logged(write, episodes, tmp_path, caplog):
    leftover = tmp_path / "dataset.partial"
    leftover.mkdir()
    (leftover / "half").write_text("...")
    with caplog.at_level(logging.WARNING):
        write(tmp_path / "dataset", episodes[:1])
    assert "dataset.partial" in caplog.text
    assert not leftover.exists()


def test_crash_between_the_two_renames_loses_nothing(write, episodes, copy, monkeypatch):
    """The old dataset has been moved aside, the new one isn't there yet: the next writer puts the old one back."""
    before = dataset_hash(copy)
    replace = os.replace

    def die(source, target):
        if Path(target) == copy:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", die)
    monkeypatch.setattr(StagedFolder, "abort", lambda self: None)  # SIGKILL cleans nothing up
    with pytest.raises(KeyboardInterrupt):
        write(copy, episodes[:1], replace=True)
    monkeypatch.undo()
    assert not copy.exists()
    with pytest.raises(OutputError, match="already holds"):
        write(copy, episodes[:1])
    assert dataset_hash(copy) == before


def test_no_episodes(spec, tmp_path):
    with pytest.raises(OutputError, match="no episodes were added"), DatasetWriter(tmp_path / "d", spec, {}):
        pass
    assert list(tmp_path.iterdir()) == []
