"""`robosim <command> [key=value ...]`: which command is meant, and what its errors look like. Dispatch only."""

from __future__ import annotations

import errno
import importlib
import os
import select
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from robosim.commands import COMMANDS, SHARED
from robosim.config import override_text, unknown
from robosim.errors import ConfigError, OutputError, RobosimError
from robosim.interrupts import INTERRUPTED, Interrupt
from robosim.manual import Command, overview, page
from robosim.ranks import Elsewhere, launched


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code (see `robosim.manual.EXIT_CODES`)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview(COMMANDS, version("robosim")))
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"robosim {version('robosim')}")
        return 0
    if family := command_family(arguments):
        print(overview(family, version("robosim")))
        return 0
    name, overrides = split_name(arguments)
    try:
        command = find_command(name)
        if any(argument in ("-h", "--help") for argument in overrides):
            print(page(command))
            return 0
        run(command, overrides)
    except RobosimError as error:
        if said_here(error):
            print(f"robosim {name}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        if launched()[0] == 0:
            print("\ninterrupted; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        if not reader_gone():
            raise
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" at {error.filename}" if error.filename else ""
        print(f"robosim {name}: the disk is full{where}; free some space and run it again", file=sys.stderr)
        return OutputError.exit_code
    return 0


def reader_gone() -> bool:
    """Whether whoever read the output has gone, as `| head` does; what is left of it then goes nowhere."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    gone = any(event & select.POLLERR for _, event in poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


def said_here(error: RobosimError) -> bool:
    """Of the processes of a `torchrun` one says what is wrong: the first, if all meet it, else the one that does."""
    return not isinstance(error, Elsewhere) and (launched()[0] == 0 or not isinstance(error, ConfigError))


def split_name(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """A command's name, of one word or two (`bench experts`), and the overrides behind it."""
    first = {command.name.split()[0] for command in COMMANDS if " " in command.name}
    words = 2 if arguments[0] in first and len(arguments) > 1 and not arguments[1].startswith("-") else 1
    return " ".join(arguments[:words]), arguments[words:]


def command_family(arguments: Sequence[str]) -> list[Command]:
    """The commands that begin with the one word given (`bench`), where that is no command by itself."""
    if any(not argument.startswith("-") for argument in arguments[1:]):
        return []
    return [command for command in COMMANDS if command.name.startswith(f"{arguments[0]} ")]


def find_command(name: str) -> Command:
    """The command called `name`, or a `ConfigError` with the nearest one and all of them."""
    for command in COMMANDS:
        if command.name == name:
            return command
    raise ConfigError(unknown("command", name, [command.name for command in COMMANDS]))


def run(command: Command, overrides: Sequence[str]) -> None:
    """Import the command's module and run it. SIGTERM stops it as Ctrl-C does: saved and resumable.

    Raises `ConfigError` for a command that doesn't share its work among the processes of a `torchrun`.
    """
    if launched()[1] > 1 and command.name not in SHARED:
        raise ConfigError(f"{command.name} is one process; run it without torchrun (WORLD_SIZE is set here)")
    interrupt = Interrupt()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    module, function = command.run.split(":")
    getattr(importlib.import_module(module), function)(command.name, named_first(command, overrides))


def named_first(command: Command, overrides: Sequence[str]) -> list[str]:
    """The overrides, a bare first word as the value of the key that the command keeps for it: `import SRC`."""
    rest = list(overrides)
    if command.first and rest and ("=" not in rest[0] or Path(rest[0]).exists()):
        rest[0] = override_text(command.first, rest[0])
    return rest


if __name__ == "__main__":
    sys.exit(main())
