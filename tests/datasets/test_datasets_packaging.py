"""The folder `datasets/` must never hide the Hugging Face package of that name, on which LeRobot depends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def python(code: str) -> str:
    """Run code with the repository root first on the path, as `python -m` and `python -c` do."""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_datasets_folder_is_no_package():
    assert not (REPOSITORY / "datasets/__init__.py").exists()


def test_hugging_face_datasets_is_not_hidden():
    code = (
        "import sys, importlib.util, robosim_datasets.lerobot_io; sys.path.insert(0, '.');"
        "print(importlib.util.find_spec('datasets').origin)"
    )
    assert "site-packages" in python(code)


def test_reading_and_writing_need_no_heavy_import():
    code = (
        "import sys, robosim_datasets.clip_store, robosim_datasets.checks.command, robosim_datasets.splits;"
        "print([name for name in ('torch', 'lerobot', 'mujoco', 'datasets') if name in sys.modules])"
    )
    assert python(code) == "[]"
