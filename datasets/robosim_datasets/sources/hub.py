"""Datasets by their name on the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from robosim.errors import DatasetError, UnsupportedError

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def is_hub_name(name: str) -> bool:
    """Whether `name` could be a dataset's name on the Hub: "organisation/name"."""
    return bool(HUB_NAME.fullmatch(name))


def fetch_from_hub(name: str, revision: str | None = None) -> Path:
    """The local folder of dataset "organisation/name": LeRobot's own copy if there is one, else it is downloaded.

    Raises `DatasetError` when the Hub has no such dataset for this user, `UnsupportedError` when it can't be reached.
    """
    if not is_hub_name(name):
        raise DatasetError(f"{name!r} is no dataset's name on the Hub; a name is organisation/name")
    local = lerobot_home() / name
    if revision is None and (local / "meta" / "info.json").is_file():
        return local
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        cache = lerobot_home() / "hub"
        return Path(snapshot_download(name, repo_type="dataset", revision=revision, cache_dir=cache))
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        version = f" of revision {revision}" if revision else ""
        raise DatasetError(
            f"the Hub has no dataset {name}{version} for you (a private one needs `hf auth login`), and there is no "
            f"folder of that name; check the name or give a local folder"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise UnsupportedError(
            f"there is no folder {name} here, and as a dataset of that name it can't be fetched from the Hub "
            f"({_first_line(error)}); correct the path, or go online"
        ) from error


def lerobot_home() -> Path:
    """Where LeRobot keeps datasets, by the variables that it reads itself."""
    hub = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_LEROBOT_HOME") or Path(hub) / "lerobot").expanduser()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
