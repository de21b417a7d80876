"""The help pages. Keys, defaults and their meaning are read from the YAML files and their comments, as text.

Nothing heavy is imported: `robosim <command> --help` has to answer at once.
"""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from robosim.config import choices, config_name, config_root, group_defaults

EXIT_CODES = (
    (0, "done"),
    (1, "failed"),
    (2, "a command, key or value that doesn't exist or has the wrong type"),
    (3, "a dataset is missing, damaged or doesn't fit"),
    (4, "a checkpoint or an earlier stage is missing, damaged or was made otherwise"),
    (5, "a result can't be written: a file in its place, no permission, a full disk"),
    (6, "this machine lacks something that was asked for"),
    (7, "training can't go on: a loss or gradient isn't finite"),
    (130, "interrupted; the same command goes on where it stopped"),
)

WIDEST_KEY = 44
"""Columns of a help page that key and default may take; longer ones get a line of their own."""

_LINE = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z_]\w*):(?P<value>[^#]*)(?:#\s*(?P<comment>.*))?$")


@dataclass(frozen=True)
class Command:
    """One entry of the command line. `run` is `module:function`; the function takes the overrides.

    `first` is the key that a bare first word sets, `first_name` what the help page calls that word.
    """

    name: str
    summary: str
    purpose: str
    reads: str
    makes: str
    examples: tuple[str, ...]
    next: str
    run: str
    first: str = ""
    first_name: str = ""


@dataclass(frozen=True)
class Key:
    """One override: `name=default`, what it means, and for groups the choices."""

    name: str
    default: str
    meaning: str
    choices: tuple[str, ...] = ()


def overview(commands: Sequence[Command], version: str) -> str:
    """`robosim --help`."""
    width = max(len(command.name) for command in commands)
    lines = [f"  {command.name:<{width}}  {command.summary}" for command in commands]
    return "\n".join(
        [
            f"robosim {version}: learn a simulator of a robot arm from video, drive it with joint commands,",
            "pretrain policies inside it, and check them against MuJoCo.",
            "",
            "usage: robosim <command> [key=value ...]",
            "",
            "commands:",
            *lines,
            "",
            "robosim <command> --help explains a command and every key that it takes.",
            "Start with: robosim demo",
            "",
            *_exit_codes(),
        ]
    )


def page(command: Command) -> str:
    """`robosim <command> --help`."""
    sections = [
        f"robosim {command.name}: {command.summary}",
        f"usage: robosim {command.name} {command.first_name + ' ' if command.first else ''}[key=value ...]",
        _fill(command.purpose),
        "reads\n" + _fill(command.reads, "  "),
        "makes\n" + _fill(command.makes, "  "),
        "\n".join(["keys", *_key_lines(command_keys(command.name))]),
        "\n".join(["examples", *(f"  {example}" for example in command.examples)]),
        "\n".join(_exit_codes()),
        "next\n" + _fill(command.next, "  "),
    ]
    return "\n\n".join(sections)


def command_keys(command: str) -> list[Key]:
    """Every override of a command: its groups first, then all keys with their defaults."""
    root = config_root()
    path = root / f"{config_name(command)}.yaml"
    text = path.read_text()
    keys = []
    values = file_keys(path)
    for group, default in group_defaults(command):
        comment = re.search(rf"^ *- {group}: *{default} *# *(.*)$", text, re.MULTILINE)
        keys.append(Key(group, default, comment[1] if comment else "", tuple(choices(group))))
        values += file_keys(root / group / f"{default}.yaml", group)
    named = {key.name for key in keys}
    values = [key for key in values if key.name not in named]
    # The demo takes a group's name as a plain key and hands it on.
    return keys + [
        replace(key, choices=tuple(choices(key.name))) if (root / key.name).is_dir() else key
        for key in values
    ]


def file_keys(path: Path, package: str = "") -> list[Key]:
    """The keys of one YAML file in order; a key's meaning is the comment behind it or on the lines above."""
    text = path.read_text()
    if "# @package _global_" in text:
        package = ""
    keys: list[Key] = []
    parents: list[tuple[int, str]] = []
    above: list[str] = []
    for line in text.splitlines():
        if line.strip().startswith("#"):
            above.append(line.strip("# "))
            continue
        match = _LINE.match(line)
        if not match:
            above = []
            continue
        indent, value = len(match["indent"]), match["value"].strip()
        parents = [parent for parent in parents if parent[0] < indent]
        name = ".".join([*([package] if package else []), *(key for _, key in parents), match["key"]])
        if value and match["key"] != "defaults":
            keys.append(Key(name, _shown(value), match["comment"] or " ".join(above)))
        else:
            parents.append((indent, match["key"]))
        above = []
    return keys


def _shown(value: str) -> str:
    """A default as a reader sees it: `${seed}` becomes `<seed>`."""
    return re.sub(r"\$\{([^}]*)\}", r"<\1>", value)


def _key_lines(keys: Sequence[Key]) -> list[str]:
    heads = [f"  {key.name}={key.default}" for key in keys]
    column = min(WIDEST_KEY, max(len(head) for head in heads)) + 2
    lines = []
    for key, head in zip(keys, heads, strict=True):
        meaning = key.meaning + (f" ({' | '.join(key.choices)})" if key.choices else "")
        if len(head) >= column:
            lines.append(head)
            head = ""
        lines += _fill(meaning, " " * column, head.ljust(column)).split("\n")
    return lines


def _exit_codes() -> list[str]:
    return ["exit codes", *(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES)]


def _fill(text: str, indent: str = "", first: str | None = None) -> str:
    width = min(shutil.get_terminal_size((100, 24)).columns, 100)
    return textwrap.fill(
        " ".join(text.split()),
        width,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
