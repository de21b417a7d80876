"""Collection: the same dataset whatever the number of processes, and whatever happened on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from robosim_datasets.episode_shards import FOLDER, load_shard, pack, save_shard, shard_path
from robosim_datasets.lerobot_io import read_episode, read_episode_table, read_spec

from robosim.errors import ConfigError, RobosimError
from robosim.physics.collection import collect as module
from robosim.physics.collection.collect import CollectConfig, Mix, collect, plan_episodes
from robosim.physics.collection.workers import RecorderSetup, record_on_processes
from robosim.physics.variation import Variation
from robosim.stage_runner import Request
from robosim.stage_table import BY_NAME

TASKS = ("reach", "soft_push")
TINY = CollectConfig(
    tasks=TASKS,
    episodes=4,
    val_fraction=0.25,
    size=16,
    seed=3,
    workers=2,
    variation=Variation(size=(0.9, 1.1)),
)

CHILD = """
import sys
from pathlib import Path
from robosim.physics.collection.collect import CollectConfig, collect
from robosim.physics.variation import Variation
if __name__ == "__main__":
    config = CollectConfig(
        tasks=("reach", "soft_push"), episodes=4, val_fraction=0.25, size=16, seed=3, workers=1,
        variation=Variation(size=(0.9, 1.1)),
    )
    collect(config, Path(sys.argv[1]))
"""


def files(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("collect") / "dataset"
    figures = collect(TINY, out)
    assert figures["episodes"] == 4 and figures["frames"] > 40
    assert sum(entry["episodes"] for entry in figures["outcomes"].values()) == 4
    return out


def interrupted(out: Path, folder: Path, how: signal.Signals) -> int:
    """Start a collection in a process group of its own and stop it after the first episode; the return code.

    SIGKILL hits the parent alone: its processes have to end by themselves, or they would write beside the next attempt.
    """
    script = folder / "child.py"
    script.write_text(CHILD)
    child = subprocess.Popen(
        [sys.executable, script, out], start_new_session=True, stderr=subprocess.DEVNULL, cwd=folder
    )
    deadline = time.monotonic() + 120
    shards = out.with_name(f"{out.name}.shards")
    try:
        while not any(shards.rglob("*.npz")):
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        if how == signal.SIGKILL:
            child.kill()
        else:
            os.killpg(child.pid, how)
        code = child.wait(timeout=60)
        while alive(child.pid):
            assert time.monotonic() < deadline, "processes outlive the collection"
            time.sleep(0.02)
        return code
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def alive(group: int) -> bool:
    """Whether the process group has a member left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_plan_is_stratified():
    plans = plan_episodes(CollectConfig(tasks=TASKS, episodes=340))
    counts = Counter((plan.split, plan.task, plan.behaviour) for plan in plans)
    assert sum(plan.split == "val" for plan in plans) == 41
    assert [plan.split for plan in plans] == sorted(plan.split for plan in plans), "train comes first"
    for split in ("train", "val"):
        of_split = [count for key, count in counts.items() if key[0] == split]
        assert len(of_split) == 4 and max(of_split) - min(of_split) <= 2
    assert len({plan.seed for plan in plans}) == 340
    assert {plan.seed for plan in plan_episodes(CollectConfig(seed=1))}.isdisjoint(p.seed for p in plans)


def test_the_mix_is_kept_in_every_stretch_of_the_plan():
    mix = Mix(expert=0.4, noisy=0.2, stopped=0.1, explore=0.3)
    plans = plan_episodes(CollectConfig(tasks=("reach",), episodes=80, mix=mix, val_fraction=0.0))
    assert {plan.split for plan in plans} == {"train"}
    for start in range(0, 80, 20):
        counts = Counter(plan.behaviour for plan in plans[start : start + 20])
        assert counts == {"expert": 8, "noisy": 4, "stopped": 2, "explore": 6}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"tasks": ("fold",)}, "unknown task 'fold'.*reach"),
        ({"robot": "ur5"}, "panda"),
        ({"tasks": ()}, r"tasks=\[\] needs at least one"),
        ({"tasks": ("reach", "reach")}, "none twice"),
        ({"cameras": ()}, r"cameras=\[\] needs at least one"),
        ({"cameras": ("side",)}, "camera of panda 'side'.*front"),
        ({"episodes": 0}, "episodes=0"),
        ({"size": 100}, "size=100"),
        ({"frames": 1}, "frames=1"),
    ],
)
def test_bad_configurations_are_named(changes, names):
    with pytest.raises(ConfigError, match=names):
        CollectConfig(**changes)


@pytest.mark.parametrize("shares", [{"expert": -1.0}, {"expert": 0.0, "explore": 0.0}])
def test_a_mix_of_nothing_is_refused(shares):
    with pytest.raises(ConfigError, match="mix"):
        Mix(**shares)


def test_the_dataset_holds_what_was_planned(dataset):
    table, plans = read_episode_table(dataset), plan_episodes(TINY)
    for row, plan in zip(table, plans, strict=True):
        assert (row["task"], row["behaviour"], row["split"], row["seed"]) == (
            plan.task,
            plan.behaviour,
            plan.split,
            plan.seed,
        )
    assert read_spec(dataset).size == 16
    assert not dataset.with_name("dataset.shards").exists()


def test_recorded_and_collected_are_the_same(dataset):
    from robosim.physics.recording import Recorder

    plan = plan_episodes(TINY)[0]
    fresh = Recorder(size=16, variation=TINY.variation).record(plan.task, plan.behaviour, plan.seed)
    stored = read_episode(dataset, 0)
    assert stored.factors == fresh.factors and stored.factors["size"] != 1.0
    assert np.array_equal(stored.state, fresh.state) and np.array_equal(stored.action, fresh.action)
    assert np.array_equal(stored.success, fresh.success)


def test_a_killed_collection_goes_on_and_ends_as_on_two_processes(dataset, tmp_path, monkeypatch):
    out = tmp_path / "dataset"
    assert interrupted(out, tmp_path, signal.SIGKILL) == -signal.SIGKILL
    kept = sorted(out.with_name("dataset.shards").rglob("episode_*.npz"))
    assert not out.exists() and kept
    kept[0].write_bytes(kept[0].read_bytes()[:1000])  # a shard that was damaged since is made again
    done = {}

    def silent(label, total, unit="step", done_before=done, **rest):
        done_before[label] = rest.get("done", 0)
        return nullcontext(SimpleNamespace(advance=lambda *count, **figures: None))

    monkeypatch.setattr(module, "progress", silent)
    collect(CollectConfig(**(vars(TINY) | {"workers": 1})), out)
    assert done.get("collect", 4) == len(kept)
    assert files(out) == files(dataset)


def test_starting_over_uses_nothing_of_before(tmp_path, monkeypatch):
    config = CollectConfig(tasks=("reach",), episodes=2, val_fraction=0.0, size=16, workers=1)
    out, recorded = tmp_path / "dataset", []

    def stop(setup, plans, folder, workers):
        recorded.append([plan.index for plan in plans])
        save_shard(shard_path(folder, 0), b"from an attempt that was interrupted")
        raise KeyboardInterrupt
        yield 0

    monkeypatch.setattr(module, "record_on_processes", stop)
    for resume in (True, True, False):
        with pytest.raises(KeyboardInterrupt):
            collect(config, out, resume=resume)
    assert recorded == [[0, 1], [1], [0, 1]]
    assert not out.exists() and not out.with_name("dataset.partial").exists()


def test_ctrl_c_stops_all_processes_and_keeps_whole_shards(tmp_path):
    out = tmp_path / "dataset"
    assert interrupted(out, tmp_path, signal.SIGINT) not in (0, None)
    shards = out.with_name("dataset.shards")
    assert not out.exists() and not list(shards.rglob("*.partial"))
    kept = list(shards.rglob("*.npz"))
    assert kept and all(load_shard(path) is not None for path in kept)


def test_the_command_starts_over_where_it_is_told_to(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "collect", lambda config, out, resume: asked.append(resume) or {})
    monkeypatch.setattr("robosim_datasets.clip_store.build_clip_store", lambda dataset, clips: None)
    for resume in (True, False):
        Request(BY_NAME["collect"], tmp_path / str(resume), TINY, 0, "cpu", resume).call()
    assert asked == [True, False]


def test_who_records_is_no_part_of_what_is_asked(tmp_path):
    changed = CollectConfig(**(vars(TINY) | {"workers": 7, "ray_address": "auto"}))
    records = [
        Request(BY_NAME["collect"], tmp_path, each, 0, "cpu", True).record() for each in (TINY, changed)
    ]
    assert records[0] == records[1]


class Deadly:
    """A plan that ends the process which unpickles it."""

    index = 0

    def __reduce__(self):
        return os._exit, (1,)


def test_a_process_that_dies_is_one_sentence(tmp_path):
    setup = RecorderSetup("panda", 16, ("front",), Variation())
    with pytest.raises(RobosimError, match=r"was killed.*run the same command again"):
        list(record_on_processes(setup, [Deadly()], tmp_path, 1))


def test_a_shard_survives_the_trip_and_damage_is_seen(dataset, tmp_path):
    episode, path = read_episode(dataset, 1), tmp_path / "one.npz"
    save_shard(path, pack(episode))
    loaded = load_shard(path)
    assert loaded is not None
    assert (loaded.task, loaded.split, loaded.seed) == (episode.task, episode.split, episode.seed)
    assert loaded.factors == episode.factors and loaded.measures == episode.measures
    assert np.array_equal(loaded.frames["front"], episode.frames["front"])
    assert np.array_equal(loaded.action, episode.action)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert load_shard(path) is None
    middle = len(whole) // 2
    path.write_bytes(
        whole[:middle] + bytes(b ^ 0xFF for b in whole[middle : middle + 9]) + whole[middle + 9 :]
    )
    assert load_shard(path) is None
    assert load_shard(tmp_path / "none.npz") is None


def test_no_folder_holds_more_shards_than_a_thousand(tmp_path):
    folders = Counter(shard_path(tmp_path, index).parent for index in range(2 * FOLDER + 1))
    assert max(folders.values()) == FOLDER and len(folders) == 3
