"""The command line: help in under a second, mistakes in one line, exit codes."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robosim import cli
from robosim.cli import main, named_first, split_name
from robosim.commands import COMMANDS
from robosim.config import compose_tree, group_defaults, leaf_keys
from robosim.errors import (
    CheckpointError,
    ConfigError,
    DatasetError,
    OutputError,
    RobosimError,
    UnsupportedError,
)
from robosim.manual import EXIT_CODES, command_keys, page
from robosim.training.loop import TrainingError

NAMES = [command.name for command in COMMANDS]


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["demo", "-h"]])
def test_help_answers_in_a_second(arguments: list[str]):
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        run = subprocess.run(
            [sys.executable, "-m", "robosim.cli", *arguments], capture_output=True, text=True
        )
        seconds.append(time.perf_counter() - started)
        assert run.returncode == 0
        assert "exit codes" in run.stdout
    assert min(seconds) < 1.0


def test_the_overview_names_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in COMMANDS:
        assert command.summary in shown
    assert main([]) == 0
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_a_page_reads_like_a_manual(command):
    text = page(command)
    for heading in ("usage", "reads", "makes", "keys", "examples", "exit codes", "next"):
        assert re.search(rf"^{heading}", text, re.MULTILINE), heading
    assert max(len(line) for line in text.splitlines()) <= 110


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_every_key_is_explained_with_its_default(command):
    keys = {key.name: key for key in command_keys(command.name)}
    tree = compose_tree(command.name)
    assert set(keys) == {*leaf_keys(tree), *dict(group_defaults(command.name))}
    assert [name for name, key in keys.items() if not key.meaning] == []
    assert keys["seed"].default == ("50000" if command.name in ("bench experts", "bench physics") else "0")


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_the_examples_use_keys_that_exist(command):
    from robosim.pipeline import split_overrides
    from robosim.stage_table import BY_NAME

    for example in command.examples:
        name, overrides = split_name(example.split()[1:])
        assert example.startswith("robosim ") and name == command.name
        own, by_stage = (
            split_overrides(overrides) if name == "demo" else (named_first(command, overrides), {})
        )
        compose_tree(name, own)
        for stage, forwarded in by_stage.items():
            compose_tree(BY_NAME[stage].command, forwarded)


def test_the_next_command_carries_what_still_counts(tmp_path: Path):
    from robosim.pipeline import next_line
    from robosim.stage_table import BY_NAME

    chosen = {"task": "reach", "seed": "3", "episodes": "20", "out": "x"}
    line = next_line(BY_NAME["adapt"], tmp_path, chosen)
    assert line == f"robosim pretrain out={tmp_path} task=reach seed=3"
    assert next_line(BY_NAME["report"], tmp_path, chosen).startswith("uv run rerun ")


def test_a_misspelt_command_names_the_nearest_and_all(capsys):
    assert main(["colect"]) == 2
    shown = capsys.readouterr().err
    assert "did you mean 'collect'" in shown
    assert all(name in shown for name in NAMES)
    assert len(shown.splitlines()) == 1


def test_a_command_of_two_words_is_found(capsys):
    assert split_name(["bench", "experts", "seed=1"]) == ("bench experts", ["seed=1"])
    assert split_name(["collect", "seed=1"]) == ("collect", ["seed=1"])
    assert main(["bench", "expert"]) == 2
    assert "did you mean 'bench experts'" in capsys.readouterr().err
    assert main(["bench", "physics", "--help"]) == 0
    assert "sheet=null" in capsys.readouterr().out


def test_a_misspelt_key_is_one_line_and_makes_nothing(capsys, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "pretrain.rouns=1", "device=cpu"]) == 2
    shown = capsys.readouterr().err
    assert "did you mean 'rounds'" in shown
    assert len(shown.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "kind",
    [RobosimError, ConfigError, DatasetError, CheckpointError, OutputError, UnsupportedError, TrainingError],
)
def test_an_error_of_ours_is_one_line_with_its_exit_code(kind, monkeypatch, capsys):
    def fail(command, overrides):
        raise kind("what, where, what to do")

    monkeypatch.setattr(cli, "run", fail)
    assert main(["collect"]) == kind.exit_code
    assert capsys.readouterr().err == "robosim collect: what, where, what to do\n"
    assert kind.exit_code in dict(EXIT_CODES)


def test_a_full_disk_is_one_line(monkeypatch, capsys):
    def fail(command, overrides):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/x/clips")

    monkeypatch.setattr(cli, "run", fail)
    assert main(["collect"]) == OutputError.exit_code
    assert "the disk is full at runs/x/clips" in capsys.readouterr().err


def test_a_defect_of_ours_keeps_its_traceback(monkeypatch):
    def fail(command, overrides):
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "run", fail)
    with pytest.raises(ZeroDivisionError):
        main(["collect"])


INTERRUPTED = """
import sys, time
from robosim import cli, pipeline
def wait(command, overrides):
    print("begun", flush=True)
    time.sleep(60)
pipeline.stage_command = wait
sys.exit(cli.main(["collect"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_with_a_hint_and_130(number):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    _, shown = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted; run the same command again to go on" in shown
    assert "Traceback" not in shown


def test_a_page_of_documentation_exists_for_every_command(repository: Path):
    readme = (repository / "README.md").read_text()
    for name in NAMES:
        file = f"docs/commands/{name.split()[0]}.md"
        assert f"robosim {name}" in (repository / file).read_text()
        assert file in readme


def test_the_first_word_of_a_family_lists_it(capsys):
    for arguments in (["bench"], ["bench", "--help"]):
        assert main(arguments) == 0
        shown = capsys.readouterr().out
        assert (
            "bench experts" in shown
            and "bench physics" in shown
            and "collect" not in shown.split("commands:")[1]
        )


def test_a_reader_of_the_output_who_leaves_is_no_traceback(tmp_path: Path):
    """As in `robosim … | head -1`."""
    code = (
        "import sys\nfrom robosim import cli\n"
        "def talk(*_):\n    [print('line', flush=True) for _ in range(100000)]\n"
        "cli.run = talk\nsys.exit(cli.main(['demo']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait() == 1 and said == ""
