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
from robosim_datasets.lerobot_io import read_episode, read_episode_table, read_spec

from robosim.errors import ConfigError
from robosim.physics import collect as module
from robosim.physics.collect import CollectConfig, collect, plan_episodes
from robosim.physics.shards import load_shard, save_shard

TINY = CollectConfig(episodes=4, val_fraction=0.25, size=16, seed=3, workers=2)

CHILD = """
import sys
from pathlib import Path
from robosim.physics.collect import CollectConfig, collect
if __name__ == "__main__":
    collect(CollectConfig(episodes=4, val_fraction=0.25, size=16, seed=3, workers=1), Path(sys.argv[1]))
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
    """Start a collection in a process group of its own, stop it after the first episode; the return code."""
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
        os.killpg(child.pid, how)
        return child.wait(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def test_the_plan_is_stratified():
    plans = plan_episodes(CollectConfig(episodes=340))
    counts = Counter((plan.split, plan.task, plan.behaviour) for plan in plans)
    assert sum(plan.split == "val" for plan in plans) == 41
    assert [plan.split for plan in plans] == sorted(plan.split for plan in plans), "train comes first"
    for split in ("train", "val"):
        of_split = [count for key, count in counts.items() if key[0] == split]
        assert len(of_split) == 4 and max(of_split) - min(of_split) <= 2
    assert len({plan.seed for plan in plans}) == 340
    assert {plan.seed for plan in plan_episodes(CollectConfig(seed=1))}.isdisjoint(p.seed for p in plans)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_of_experts_is_configured(share):
    plans = plan_episodes(CollectConfig(episodes=80, expert_share=share, val_fraction=0.0))
    assert sum(plan.behaviour == "expert" for plan in plans) == 80 * share
    assert {plan.split for plan in plans} == {"train"}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"tasks": ("fold",)}, "reach, soft_push"),
        ({"robot": "ur5"}, "panda"),
        ({"tasks": ()}, "tasks is empty"),
        ({"episodes": 0}, "episodes"),
        ({"expert_share": 1.5}, "expert_share"),
    ],
)
def test_bad_configurations_are_named(changes, names):
    with pytest.raises(ConfigError, match=names):
        CollectConfig(**changes)


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
    fresh = Recorder(size=16).record(plan.task, plan.behaviour, plan.seed)
    stored = read_episode(dataset, 0)
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
    assert done["collect" if len(kept) < 4 else "write dataset"] == (len(kept) if len(kept) < 4 else 0)
    assert files(out) == files(dataset)


def test_ctrl_c_stops_all_processes_and_keeps_whole_shards(tmp_path):
    out = tmp_path / "dataset"
    assert interrupted(out, tmp_path, signal.SIGINT) not in (0, None)
    shards = out.with_name("dataset.shards")
    assert not out.exists() and not list(shards.rglob("*.partial"))
    kept = list(shards.rglob("*.npz"))
    assert kept and all(load_shard(path) is not None for path in kept)


def test_a_shard_survives_the_trip_and_damage_is_seen(dataset, tmp_path):
    episode, path = read_episode(dataset, 1), tmp_path / "one.npz"
    save_shard(path, episode)
    loaded = load_shard(path)
    assert loaded is not None
    assert (loaded.task, loaded.split, loaded.seed) == (episode.task, episode.split, episode.seed)
    assert np.array_equal(loaded.frames["front"], episode.frames["front"])
    assert np.array_equal(loaded.action, episode.action)
    path.write_bytes(path.read_bytes()[:-100])
    assert load_shard(path) is None
    assert load_shard(tmp_path / "none.npz") is None
