"""Recording on a Ray cluster, for collections that outgrow one machine. Needs the extra `robosim[ray]`.

The machines of a cluster share no file system: an episode comes back as the bytes of its shard, and the driver alone
writes files. Every machine needs the same versions of robosim, MuJoCo and warp.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from robosim_datasets.episode_shards import save_shard, shard_path

from robosim.errors import RobosimError, UnsupportedError
from robosim.physics.collection.workers import QUEUED, EpisodePlan, RecorderSetup, record_packed

RETRIES = 5
"""How often an episode is recorded again because the worker or machine that recorded it was lost."""

OBJECT_STORE = 512 * 2**20
"""Bytes of shared memory that a local cluster takes; episodes pass through it."""

KNOCK_SECONDS = 5.0
"""How long a running cluster may take to accept a connection."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray would start its workers through `uv run` again where the driver was, and they would reach for the network.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Environment under which Ray keeps to itself. What the user has set stays."""


def import_ray() -> Any:
    """The module. Raises `UnsupportedError` where it isn't installed."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UnsupportedError(
            "launcher=ray needs Ray, which isn't installed here; "
            "install robosim[ray] (in a checkout: uv sync --extra ray), or set launcher=processes"
        ) from error


def record_on_ray(
    setup: RecorderSetup, plans: Sequence[EpisodePlan], folder: Path, workers: int, address: str | None
) -> Generator[int, None, None]:
    """Record `plans` into shards below `folder`; yields the frames of each episode once it is safe.

    `workers`: episodes at a time, at most; 0: as many as the cluster has processors, also when it grows. `address`:
    of a running cluster ("auto" finds one on this machine), or None for one of our own, on this machine. An episode
    whose worker is lost is recorded again; on an error or Ctrl-C, those that have begun are dropped.
    """
    ray = import_ray()
    with _cluster(ray, workers, address):
        record = ray.remote(num_cpus=1, max_retries=RETRIES)(record_packed)
        left = iter(plans)
        running: dict[Any, EpisodePlan] = {}
        while True:
            # Our own cluster has `workers` processors and may queue more; of another one we take no more than asked.
            limit = (
                workers
                if workers and address
                else QUEUED * max(1, int(ray.cluster_resources().get("CPU", 1)))
            )
            for plan in islice(left, max(0, limit - len(running))):
                running[record.remote(setup, plan)] = plan
            if not running:
                return
            finished, _ = ray.wait(list(running), num_returns=1)
            for reference in finished:
                frames, data = _result(ray, reference)
                save_shard(shard_path(folder, running.pop(reference).index), data)
                yield frames


def _result(ray: Any, reference: Any) -> tuple[int, bytes]:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error  # the episode's own error, as on this machine
    except ray.exceptions.RayError as error:
        raise RobosimError(
            f"Ray lost an episode {RETRIES + 1} times ({_first_line(error)}); finished episodes are kept: "
            "run the same command again to go on"
        ) from error


@contextmanager
def _cluster(ray: Any, workers: int, address: str | None) -> Iterator[None]:
    """A connection to the cluster at `address`, or a cluster of our own. A connection that is there already stays."""
    if ray.is_initialized():
        yield
        return
    options: Mapping[str, Any] = {"address": address}
    if address is None:
        options = {
            "address": "local",
            "num_cpus": workers or len(os.sched_getaffinity(0)),
            "object_store_memory": OBJECT_STORE,
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }
    else:
        _knock(address)
    on_term = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(logging_level="error", log_to_driver=False, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _no_cluster(address, error) from error
    finally:
        # Ray has put a handler of its own in place of the one that makes SIGTERM as gentle as Ctrl-C.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_term)
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """See that somebody listens: Ray itself would try for minutes. Raises `UnsupportedError`."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "auto", which Ray looks up by itself
    try:
        socket.create_connection((host, int(port)), KNOCK_SECONDS).close()
    except OSError as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str | None, error: Exception) -> UnsupportedError:
    return UnsupportedError(
        f"can't connect to Ray at {address or 'this machine'}: {_first_line(error)}; start a cluster with "
        "`ray start --head`, correct ray_address=, or set ray_address=null for one of our own"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
