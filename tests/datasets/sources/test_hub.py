"""Datasets by their name on the Hub, without the Hub."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from robosim_datasets.sources import hub
from robosim_datasets.sources.lerobot import open_lerobot

from robosim.errors import DatasetError, UnsupportedError


class TestHub:
    @pytest.fixture(autouse=True)
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "lerobot"))
        return tmp_path / "lerobot"

    def test_a_copy_of_lerobots_is_used_first(
        self, old: dict[str, Path], home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("huggingface_hub.snapshot_download", None)
        shutil.copytree(old["v2.1"], home / "lab/arm")
        assert open_lerobot(hub.fetch_from_hub("lab/arm")).info.episodes == 3

    def test_others_are_downloaded(self, old: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def download(name: str, **options) -> str:
            asked.append((name, options["repo_type"], options["revision"]))
            return str(old["v2.1"])

        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        assert hub.fetch_from_hub("lab/arm", "v2.1") == old["v2.1"]
        assert asked == [("lab/arm", "dataset", "v2.1")]

    def test_without_a_connection_a_local_folder_is_proposed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(
            UnsupportedError, match=r"there is no folder lab/arm here, .* can't be fetched.*go online"
        ):
            hub.fetch_from_hub("lab/arm")

    def test_a_name_that_the_hub_lacks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub.errors import RepositoryNotFoundError

        def download(*_, **__) -> str:
            raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        with pytest.raises(DatasetError, match=r"no dataset lab/arm.*check the name or give a local folder"):
            hub.fetch_from_hub("lab/arm")
        with pytest.raises(DatasetError, match="no dataset's name"):
            hub.fetch_from_hub("../etc")
