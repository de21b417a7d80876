"""Errors that a user can act on.

Each message says what is wrong, where, and what to do. The command line prints the message alone and exits
with the class's `exit_code`; anything else is a defect of ours and keeps its traceback.
"""

from __future__ import annotations


class RobosimError(Exception):
    """Base of every error that a user is expected to meet."""

    exit_code = 1


class ConfigError(RobosimError):
    """An override or a configuration file names an unknown key or holds a value of the wrong type."""

    exit_code = 2


class DatasetError(RobosimError):
    """A dataset or clip store is missing, damaged, or doesn't fit what reads it."""

    exit_code = 3


class CheckpointError(RobosimError):
    """A checkpoint or a stage's manifest is missing, damaged, or was made by another configuration."""

    exit_code = 4


class OutputError(RobosimError):
    """A result can't be written: a file in a folder's place, no permission, a full disk."""

    exit_code = 5


class UnsupportedError(RobosimError):
    """This machine or this installation lacks something that the request needs."""

    exit_code = 6
