"""Simulators of toy size, as files."""

from __future__ import annotations

from pathlib import Path

import pytest

import robosim
from robosim import shipped
from robosim.simulator import Simulator
from tests.toy_run import toy_run


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    """A run folder with an adapter and without manifests."""
    return toy_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def loaded(run) -> Simulator:
    return robosim.load(run, device="cpu")


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of shipped simulators in the package's place; the current folder is empty too."""
    folder, here = tmp_path / "shelf", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    monkeypatch.setattr(shipped, "SHIPPED", folder)
    monkeypatch.chdir(here)
    return folder
