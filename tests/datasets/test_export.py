"""What `robosim export` writes is what was there, for robosim and for stock LeRobot."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from robosim_datasets import exporting, lerobot_format
from robosim_datasets.dataset_writer import DatasetWriter
from robosim_datasets.exporting import ExportConfig, export_command, find_dataset, train_command
from robosim_datasets.lerobot_io import VideoDataset, load_episode, open_dataset, read_provenance
from robosim_datasets.sources.lerobot import open_lerobot

from robosim.errors import ConfigError, DatasetError, OutputError

ARRAYS = ("state", "action", "reward", "success")
POSITIONS = "observation.environment_state"


@pytest.fixture(scope="module")
def exported(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything but the positions, checked by stock LeRobot."""
    out = tmp_path_factory.mktemp("export") / "all"
    export_command("export", [f"source={dataset}", f"out={out}"])
    return out


@pytest.fixture
def unchecked(monkeypatch) -> None:
    """Leave out the check, whose imports take seconds."""
    monkeypatch.setattr(exporting, "check_with_lerobot", lambda *_: None)


def export(source: Path, out: Path, *overrides: str) -> VideoDataset:
    export_command("export", [f"source={source}", f"out={out}", *overrides])
    return open_dataset(out)


def features(root: Path) -> set[str]:
    return set(json.loads((root / lerobot_format.INFO_JSON).read_text())["features"])


def assert_same(copy: VideoDataset, copied: int, source: VideoDataset, index: int) -> None:
    """Numbers, texts and every pixel."""
    ours, theirs = load_episode(copy, copied), load_episode(source, index)
    for name in ARRAYS:
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    for camera in copy.spec.cameras:
        assert np.array_equal(ours.frames[camera], theirs.frames[camera]), camera
    for name in ("task", "instruction", "behaviour", "split", "seed", "factors", "measures"):
        assert getattr(ours, name) == getattr(theirs, name), name


def test_every_episode_is_as_it_was(exported, dataset):
    copy, source = open_dataset(exported), open_dataset(dataset)
    assert len(copy.episodes) == len(source.episodes)
    for index in range(len(source.episodes)):
        assert_same(copy, index, source, index)


def test_stock_lerobot_reads_the_same(exported, dataset, episodes):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    stock = LeRobotDataset("robosim/test", root=exported, video_backend="pyav", return_uint8=True)
    assert (stock.num_episodes, len(stock)) == (len(episodes), sum(episode.length for episode in episodes))
    source, first = open_dataset(dataset), 0
    for index, original in enumerate(episodes):
        for frame in (0, original.length - 1):
            item, decoded = stock[first + frame], load_episode(source, index)
            for camera, frames in decoded.frames.items():
                pixels = item[f"observation.images.{camera}"].permute(1, 2, 0).numpy()
                assert np.array_equal(pixels, frames[frame])
            assert np.array_equal(item["action"].numpy(), original.action[frame])
            assert np.array_equal(item["observation.state"].numpy(), original.state[frame])
            assert (item["task"], item["episode_index"].item()) == (original.instruction, index)
        first += original.length
    actions = np.concatenate([episode.action for episode in episodes])
    assert np.allclose(stock.meta.stats["action"]["mean"], actions.mean(0), atol=1e-6)
    assert stock.meta.stats["index"]["max"] == [len(stock) - 1]


def test_it_comes_in_again_as_it_was(exported, episodes):
    source = open_lerobot(exported)
    for index, original in enumerate(episodes):
        back = source.read(index)
        assert np.array_equal(back.action, original.action) and np.array_equal(back.state, original.state)
        assert (back.instruction, back.split) == (original.instruction, original.split)


def test_positions_are_left_out_unless_they_are_wanted(exported, dataset, tmp_path, unchecked):
    assert (
        POSITIONS not in features(exported) and "environment_state" not in open_dataset(exported).spec.labels
    )
    assert not any(POSITIONS in file.read_text() for file in exported.glob("meta/*.json"))
    copy = export(dataset, tmp_path / "positions", "positions=true")
    assert POSITIONS in features(copy.root)
    source = open_dataset(dataset)
    assert np.array_equal(load_episode(copy, 4).environment_state, load_episode(source, 4).environment_state)


def test_split_tasks_and_cameras_can_be_chosen(dataset, tmp_path, unchecked):
    copy = export(dataset, tmp_path / "few", "split=train", "tasks=[soft_push]", "cameras=[side]")
    source = open_dataset(dataset)
    wanted = [
        i for i, row in enumerate(source.episodes) if (row["split"], row["task"]) == ("train", "soft_push")
    ]
    assert len(wanted) == len(copy.episodes) == 4
    for copied, index in enumerate(wanted):
        assert_same(copy, copied, source, index)
    assert [task.name for task in copy.spec.tasks] == ["soft_push"] and copy.spec.cameras == ("side",)
    info = json.loads((copy.root / lerobot_format.INFO_JSON).read_text())
    assert (info["splits"], info["total_tasks"]) == ({"train": "0:4"}, 1)
    assert not (copy.root / "videos/observation.images.front").exists()
    assert "observation.images.front" not in (copy.root / lerobot_format.STATS_JSON).read_text()


def test_episodes_of_many_files_keep_their_places(spec, episodes, tmp_path, monkeypatch):
    """Gaps within files, and files without any chosen episode; stock LeRobot checks the result."""
    monkeypatch.setattr(lerobot_format, "VIDEO_FILE_MB", 0.006)
    monkeypatch.setattr(lerobot_format, "DATA_FILE_MB", 0.004)
    with DatasetWriter(tmp_path / "many", spec, {}) as writer:
        for episode in episodes:
            writer.add(episode)
    assert len(list((tmp_path / "many").glob("videos/*front/*/*"))) > 3
    copy = export(tmp_path / "many", tmp_path / "few", "tasks=[reach]")
    source = open_dataset(tmp_path / "many")
    for copied, index in enumerate(range(0, 11, 2)):
        assert_same(copy, copied, source, index)


def test_statistics_are_the_sources_wherever_they_lie(write, episodes, tmp_path, unchecked, monkeypatch):
    """The source's table has several row groups, and some of them no chosen episode."""
    monkeypatch.setattr("robosim_datasets.dataset_writer.EPISODES_HELD", 3)
    source = write(tmp_path / "source", [*episodes[8:], *episodes[:8]])
    copy = export(source, tmp_path / "copy", "tasks=[soft_push]", "split=train").root
    theirs, ours = (
        pq.read_table(root / lerobot_format.EPISODES_PARQUET).to_pylist() for root in (source, copy)
    )
    chosen = [i for i, row in enumerate(open_dataset(source).episodes) if row["seed"] in (1, 3, 5, 7)]
    names = [name for name in ours[0] if name.startswith(("stats/action/", "stats/observation.images."))]
    assert len(ours) == len(chosen) == 4 and names
    for row, index in zip(ours, chosen, strict=True):
        assert all(row[name] == theirs[index][name] for name in names)


def test_runs_and_plays_are_exported_by_their_folder(dataset, tmp_path, unchecked, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(dataset, tmp_path / "play" / "play-000" / "dataset")
    export_command("export", ["source=play/play-000"])
    out = Path("runs/export-play-000")
    assert len(open_dataset(out).episodes) == 11
    said = capsys.readouterr().out
    assert f"made {out}" in said and f"--dataset.root={out}" in said and "environment_state" in said
    provenance = read_provenance(out)
    assert provenance["renderer"] == "squares" and provenance["export"]["split"] is None
    with pytest.raises(DatasetError, match=r"several recordings; name one: play/play-000"):
        find_dataset(Path("play"))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("tasks=[reech]", r"unknown task 'reech'; did you mean 'reach'"),
        ("cameras=[top]", r"unknown camera 'top'; valid: front, side"),
        ("split=test", r"split.*valid: train, val"),
        ("colour=red", r"unknown key 'colour'"),
    ],
)
def test_wrong_choices_are_refused_in_a_sentence(dataset, tmp_path, override, sentence):
    with pytest.raises(ConfigError, match=sentence):
        export(dataset, tmp_path / "out", override)
    assert not list(tmp_path.iterdir())


def test_what_cant_be_exported_is_said(dataset, write, make_episode, tmp_path, unchecked):
    with pytest.raises(ConfigError, match="source is empty"):
        ExportConfig()
    with pytest.raises(DatasetError, match="there is no folder"):
        export(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "foreign").mkdir()
    with pytest.raises(DatasetError, match=r"is no robosim dataset.*robosim import"):
        export(tmp_path / "foreign", tmp_path / "out")
    (tmp_path / "mixed" / "dataset").mkdir(parents=True)
    (tmp_path / "mixed" / "dataset" / "mixture.json").write_text("{}")
    with pytest.raises(DatasetError, match="is a mixture, whose video lies in the runs that it mixes"):
        export(tmp_path / "mixed", tmp_path / "out")
    train_only = write(tmp_path / "train", [make_episode(0)])
    with pytest.raises(ConfigError, match="no val episode"):
        export(train_only, tmp_path / "out", "split=val")
    export(train_only, tmp_path / "out")
    with pytest.raises(OutputError, match="already holds"):
        export(dataset, tmp_path / "out")


@pytest.mark.parametrize("pattern", ["videos/*side/*/*.mp4", "data/*/*.parquet"])
def test_a_changed_byte_is_named_and_nothing_is_left(dataset, tmp_path, unchecked, pattern):
    shutil.copytree(dataset, tmp_path / "bad")
    (file,) = (tmp_path / "bad").glob(pattern)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)
    with pytest.raises(DatasetError, match=file.name):
        export(tmp_path / "bad", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad"]


def test_damage_elsewhere_in_a_file_keeps_nothing_from_being_exported(dataset, tmp_path, unchecked):
    """The train episodes lie before the val episodes in the same video file."""
    shutil.copytree(dataset, tmp_path / "bad")
    (file,) = (tmp_path / "bad").glob("videos/*side/*/*.mp4")
    data = bytearray(file.read_bytes())
    data[len(data) // 4] ^= 4
    file.write_bytes(data)
    with pytest.raises(DatasetError, match=f"{file.name}.*episode"):
        export(tmp_path / "bad", tmp_path / "train", "split=train")
    copy, source = export(tmp_path / "bad", tmp_path / "val", "split=val"), open_dataset(dataset)
    for copied, index in enumerate((8, 9, 10)):
        assert_same(copy, copied, source, index)


def test_a_difference_that_stock_lerobot_sees_stops_the_export(dataset, tmp_path, monkeypatch):
    def shifted(source, index):
        episode = load_episode(source, index)
        episode.action = np.roll(episode.action, 1, axis=0)
        return episode

    monkeypatch.setattr(exporting, "load_episode", shifted)
    with pytest.raises(DatasetError, match="stock LeRobot reads another action at frame 0 of episode 0"):
        export(dataset, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_export_that_stock_lerobot_cannot_read_is_no_write_error(dataset, tmp_path, monkeypatch):
    class Broken:
        num_episodes = 11

        def __len__(self):
            return 165

        def __getitem__(self, index):
            raise OSError("no decoder")

    monkeypatch.setattr(exporting, "_open_with_lerobot", lambda folder: Broken())
    with pytest.raises(DatasetError, match="stock LeRobot can't read row 0 of the export: no decoder"):
        export(dataset, tmp_path / "out")

    def decoder_fails(*_):
        raise OSError("no decoder")

    monkeypatch.setattr(exporting, "check_with_lerobot", decoder_fails)
    with pytest.raises(OSError, match=r"^no decoder$"):
        export(dataset, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_interrupted_export_leaves_nothing(dataset, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "check_with_lerobot", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(dataset, tmp_path / "out")
    assert not list(tmp_path.iterdir())


TINY = (
    "--policy.device=cpu --steps=2 --batch_size=2 --num_workers=0 --policy.pretrained_backbone_weights=null "
    "--policy.dim_model=32 --policy.n_heads=2 --policy.dim_feedforward=32 --policy.n_encoder_layers=1 "
    "--policy.n_vae_encoder_layers=1 --save_freq=2"
)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("accelerate") is None, reason="lerobot-train needs accelerate")
def test_lerobot_train_trains_on_it(exported, tmp_path):
    """The command that an export prints, for a tiny policy."""
    command = train_command(exported, "robosim/export", str(tmp_path / "act")).split()
    program = str(Path(sys.executable).with_name("lerobot-train"))
    arguments = [*command[command.index("lerobot-train") + 1 :], *TINY.split()]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    run = subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr[-3000:]
    assert (tmp_path / "act/checkpoints/000002/pretrained_model/model.safetensors").is_file()
