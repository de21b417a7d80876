"""Fixtures for all tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from robosim import shipped

# No test may need the network: lerobot and huggingface_hub read these when they are imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

# A runner that was started in the background ignores Ctrl-C, and hands that on to the processes which the tests
# mean to interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent

TINY = (
    "from_scratch=true",
    "data=few",
    "collect.episodes=16",
    "tokenizer.train.steps=6",
    "tokenizer.train.batch=8",
    "latent_action.train.steps=6",
    "latent_action.train.batch=8",
    "dynamics.train.steps=4",
    "dynamics.train.batch=2",
    "pretrain.cloning_steps=3",
    "pretrain.improvement_steps=2",
    "pretrain.rounds=1",
    "pretrain.rollouts=2",
    "pretrain.checks=2",
    "pretrain.batch=8",
    "compare.episodes=2",
    "compare.replay_clips=4",
    "compare.kept_episodes=1",
    "seed=5",
    "device=cpu",
)
"""Overrides with which the demo runs whole and learns nothing."""

# What `no_network` is to this process, for child processes: Python imports `sitecustomize` when it starts.
BLOCKER = """
import socket
connect = socket.socket.connect
def refuse(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        raise PermissionError(f"the network is blocked, but something connects to {address}")
    connect(self, address)
socket.socket.connect = refuse
"""


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for the internet fails at once. Sockets between processes stay usable."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address) -> None:
        local = str(address[0]) in ("127.0.0.1", "::1", "localhost")
        if self.family in (socket.AF_INET, socket.AF_INET6) and not local:
            raise PermissionError(f"tests must not use the network, but something connects to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def run_offline(tmp_path_factory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `robosim ...` in a process of its own, in which no connection can be made."""
    blocker = tmp_path_factory.mktemp("blocker")
    (blocker / "sitecustomize.py").write_text(BLOCKER)
    path = os.pathsep.join([str(blocker), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}

    def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "robosim.cli", *arguments]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=1500)

    return run


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory, run_offline) -> Path:
    """The run folder of a tiny demo, all eight stages, made once without network."""
    folder = tmp_path_factory.mktemp("demo")
    run = run_offline("demo", *TINY, "out=runs/tiny", cwd=folder)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    (folder / "log.txt").write_text(run.stdout)
    return folder / "runs" / "tiny"


@pytest.fixture(scope="session")
def tiny_overrides() -> tuple[str, ...]:
    """The overrides of `demo_run`."""
    return TINY


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of shipped simulators in the package's place; the current folder is empty too."""
    folder, here = tmp_path / "shelf", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    monkeypatch.setattr(shipped, "SHIPPED", folder)
    monkeypatch.chdir(here)
    return folder
