"""Collection on Ray: the dataset of the process launcher, also when a worker dies on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from robosim_datasets.episode_shards import load_shard, shard_path

from robosim.errors import ConfigError, UnsupportedError
from robosim.physics.collection import ray_launcher
from robosim.physics.collection.collect import CollectConfig, collect, plan_episodes
from robosim.physics.collection.workers import RecorderSetup

CONFIG = {"tasks": ("reach",), "episodes": 4, "val_fraction": 0.25, "size": 16, "seed": 3, "workers": 2}

CHILD = """
import sys
from pathlib import Path
from robosim.cli import main
sys.exit(main([
    "collect", "launcher=ray", "workers=2", "task=reach", "data=few", "size=16", f"out={sys.argv[1]}",
]))
"""


def files(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UnsupportedError, match=r"robosim\[ray\]"):
        CollectConfig(launcher="ray")


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:9", "ray://127.0.0.1:9"])
def test_a_cluster_that_is_not_there_is_one_sentence(address, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with (
        pytest.raises(UnsupportedError, match=f"can't connect to Ray at {address}.*ray start --head"),
        ray_launcher._cluster(ray, 1, address),
    ):
        pass


@pytest.fixture(scope="module")
def cluster():
    """A local cluster with two workers, started once."""
    ray = pytest.importorskip("ray")
    with ray_launcher._cluster(ray, workers=2, address=None):
        yield ray


@pytest.mark.slow
def test_ray_makes_the_dataset_that_processes_make(cluster, tmp_path):
    collect(CollectConfig(**CONFIG, launcher="ray"), tmp_path / "ray")
    collect(CollectConfig(**CONFIG | {"workers": 1}), tmp_path / "processes")
    assert files(tmp_path / "ray") == files(tmp_path / "processes")
    assert cluster.is_initialized(), "a connection that was there before stays"


@pytest.mark.slow
def test_an_episode_whose_worker_is_lost_is_recorded_again(cluster, tmp_path):
    plans = plan_episodes(CollectConfig(**CONFIG))
    setup = RecorderSetup("panda", 16, ("front",), CollectConfig().variation)
    recording = ray_launcher.record_on_ray(setup, plans, tmp_path, 2, None)
    next(recording)
    workers = workers_of(os.getpid())
    for process in workers:
        os.kill(process, signal.SIGKILL)
    assert workers and len(list(recording)) == 3
    assert all(load_shard(shard_path(tmp_path, plan.index)) is not None for plan in plans)


@pytest.mark.slow
def test_the_error_of_an_episode_is_its_own(cluster, tmp_path):
    setup = RecorderSetup("panda", 16, ("nowhere",), CollectConfig().variation)
    with pytest.raises(ConfigError, match="'nowhere'"):
        list(ray_launcher.record_on_ray(setup, plan_episodes(CollectConfig(**CONFIG)), tmp_path, 2, None))


def workers_of(driver: int) -> set[int]:
    """Processes below this one that wait for or run Ray's tasks."""
    table = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in table.splitlines()[1:]]
    parents = {int(pid): int(parent) for pid, parent, _ in rows}

    def below(process: int) -> bool:
        return process == driver or (process in parents and below(parents[process]))

    return {
        int(pid)
        for pid, _, name in rows
        if name.startswith(("ray::record_packed", "ray::IDLE")) and below(int(pid))
    }


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_goes_on_and_no_process(tmp_path):
    pytest.importorskip("ray")
    script, out = tmp_path / "child.py", tmp_path / "run"
    script.write_text(CHILD)
    child = subprocess.Popen(
        [sys.executable, script, out], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        while not any((out / "dataset.shards").rglob("*.npz")):
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(child.pid, signal.SIGINT)
        _, shown = child.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    assert child.returncode == 130
    assert "interrupted; run the same command again" in shown and "Traceback" not in shown
    kept = list((out / "dataset.shards").rglob("*.npz"))
    assert kept and all(load_shard(path) is not None for path in kept)
    assert not (out / "dataset").exists() and not list(out.rglob("*.partial"))
