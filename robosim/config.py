"""Configuration: Hydra composes `configs/<command>.yaml` with overrides, this module gives it types.

The rooms own their dataclasses and keep them idiomatic: frozen, nested, with tuples and `Literal` choices.
OmegaConf's structured configs know none of these three, so the composed tree is checked against the type
hints here. Nothing in a configuration is ever called, evaluated or imported.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

from robosim.errors import ConfigError, UnsupportedError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


FILE_CHOICES = {"robot": ".xml", "task_file": ".py"}
"""Keys that may name a file of the user's, with its ending: of the group of that name where there is one, its value
being a name otherwise."""

NO_GROUP = {("train", "data"), ("evaluate", "data")}
"""Keys of a command that have the name of a group and another meaning."""


@dataclass
class RunOptions:
    """The keys that every command takes."""

    out: str | None = None
    seed: int = 0
    device: str = "auto"
    resume: bool = True

    @property
    def run(self) -> Path:
        """The run folder, absolute."""
        if not self.out:
            raise ConfigError("out is empty; set out=runs/NAME")
        return Path(self.out).expanduser().resolve()


def config_root() -> Path:
    """The folder of the YAML files: `robosim/configs` in an installed wheel, `configs` in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if folder.is_dir():
            return folder
    raise ConfigError(f"no configs folder in {package} or beside it; install robosim again")


def compose[T](command: str, schema: type[T], overrides: Sequence[str] = ()) -> T:
    """Compose `configs/<command>.yaml` with Hydra overrides (`key=value`) into an instance of `schema`.

    Raises `ConfigError` for a key or group choice that doesn't exist (naming the nearest and the valid ones),
    a value of the wrong type, an override that can't be parsed, and a YAML file that doesn't fit the schema.
    """
    return build(schema, compose_tree(command, overrides), "")


def compose_tree(command: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What Hydra composes for a command, as plain dicts and lists whose types aren't checked yet."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    parsed = _parse_overrides(overrides)
    # A process that composes for several commands, or runs below another Hydra program, must start clean.
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_root()), version_base="1.3", job_name="robosim"):
            groups = dict(group_defaults(command))
            _check_choices([o for o in parsed if (command, o.key_or_group) not in NO_GROUP], groups)
            files = {o.key_or_group: path for o in parsed if (path := _file_choice(o))}
            parsed = [o for o in parsed if o.key_or_group not in files]
            chosen = [o.input_line or "" for o in parsed if o.key_or_group in groups]
            _check_keys(
                parsed, command, OmegaConf.to_container(hydra_compose(config_name(command), overrides=chosen))
            )
            # The demo has keys with the names of groups, which it hands on; Hydra would look for the groups.
            handed_on = [o for o in parsed if o.key_or_group not in groups and choices(o.key_or_group)]
            rest = [o.input_line or "" for o in parsed if o not in handed_on]
            tree = OmegaConf.to_container(hydra_compose(config_name(command), overrides=rest), resolve=True)
            values = {o.key_or_group: o.value() for o in handed_on}
            return typing.cast(dict[str, Any], tree) | values | files
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_first_line(error)) from error
    finally:
        GlobalHydra.instance().clear()


def build[T](schema: type[T], tree: Any, where: str) -> T:
    """Make the dataclass `schema` from plain dicts and lists; every key must exist and have its field's type.

    `where` is the dotted key of `tree` itself, for messages.
    """
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{where or 'the configuration'} needs keys, got {tree!r}")
    hints = typing.get_type_hints(schema)
    fields = [field for field in dataclasses.fields(schema) if field.init]  # pyright: ignore[reportArgumentType]
    names = [field.name for field in fields]
    for key in tree:
        if key not in names:
            raise ConfigError(unknown("key", _join(where, str(key)), [_join(where, n) for n in names]))
    values = {}
    for field in fields:
        if field.name in tree:
            values[field.name] = _convert(hints[field.name], tree[field.name], _join(where, field.name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{_join(where, field.name)} has no value; set it")
    try:
        return schema(**values)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}" if where else str(error)) from error


def to_dict(cfg: Any) -> dict[str, Any]:
    """The configuration as plain, JSON-ready dicts and lists."""
    return {field.name: _plain(getattr(cfg, field.name)) for field in dataclasses.fields(cfg)}


def unknown(kind: str, name: str, valid: Iterable[str], near: Iterable[str] = ()) -> str:
    """The sentence for a misspelt `name`: the nearest of `valid` (and `near`), then all that are valid."""
    choices = list(dict.fromkeys(valid))
    full = {key.rpartition(".")[2]: key for key in reversed([*choices, *near])}
    full |= {key: key for key in [*choices, *near]}
    nearest = difflib.get_close_matches(name, list(full), n=1, cutoff=0.5)
    hint = f"; did you mean {full[nearest[0]]!r}?" if nearest else ";"
    return f"unknown {kind} {name!r}{hint} valid: {', '.join(choices)}"


def resolve_device(name: str) -> str:
    """`auto` → `cuda` where torch can use one, else `cpu`. Raises for a name or a device that isn't there."""
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(unknown("device", name, ("auto", "cpu", "cuda")))
    if name == "cpu":
        return name
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if name == "cuda":
        raise UnsupportedError("device=cuda: torch finds no CUDA device here; use device=cpu or device=auto")
    return "cpu"


def _parse_overrides(overrides: Sequence[str]) -> list[Override]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        if "=" not in text:
            raise ConfigError(f"{text!r} isn't an override; write key=value")
        try:
            override = parser.parse_override(text)
        except HydraException as error:
            raise ConfigError(f"can't read the override {text!r}: {_first_line(error)}") from error
        if override.is_add() or override.is_force_add() or override.is_delete():
            raise ConfigError(f"{text!r}: keys can be set but not added or removed; write key=value")
        if override.is_sweep_override():
            raise ConfigError(f"{text!r} names several values; give one, and start one run a value")
        parsed.append(override)
    return parsed


def _check_choices(parsed: Iterable[Override], groups: Mapping[str, str]) -> None:
    """Every override of a group names one of its files, or a file of the user's where that will do."""
    for override in parsed:
        key, value = override.key_or_group, override.value()
        valid = choices(key)
        if (
            not valid
            or str(value) in valid
            or _file_choice(override)
            or (value is None and key not in groups)
        ):
            continue
        ending = FILE_CHOICES.get(key)
        hint = f", or the path of a file ({ending})" if ending else ""
        raise ConfigError(unknown(key, str(value), valid) + hint)


def _file_choice(override: Override) -> str | None:
    """The absolute path when an override names a file in place of a group's choice: `robot=arms/mine.xml`.

    Raises `ConfigError` when there is no such file.
    """
    ending, value = FILE_CHOICES.get(override.key_or_group), override.value()
    if ending is None or not isinstance(value, str) or not value.endswith(ending):
        return None
    path = Path(value).expanduser().resolve()
    if not path.is_file():
        raise ConfigError(f"{override.key_or_group}={value}: there is no file {path}")
    return str(path)


def _check_keys(parsed: Iterable[Override], command: str, tree: Any) -> None:
    """Every other override names a key of the composed files."""
    groups = dict(group_defaults(command))
    for override in parsed:
        key = override.key_or_group
        if key in groups:
            continue
        level, prefix = tree, ""
        for part in key.split("."):
            if not isinstance(level, Mapping) or part not in level:
                valid = [*groups, *tree] if level is tree else [_join(prefix, name) for name in _names(level)]
                near = leaf_keys(tree) if level is tree else valid
                raise ConfigError(
                    unknown("key", key, valid, near) + f" (robosim {command} --help explains them)"
                )
            level, prefix = level[part], _join(prefix, part)


def _names(level: Any) -> list[str]:
    return [str(name) for name in level] if isinstance(level, Mapping) else []


def config_name(command: str) -> str:
    """The YAML file of a command, without its ending: `bench experts` has `bench_experts`."""
    return command.replace(" ", "_")


def choices(group: str) -> list[str]:
    """The files of a configuration group: the values that `group=` takes. Empty if there is no such group."""
    return sorted(path.stem for path in (config_root() / group).glob("*.yaml"))


def group_defaults(command: str) -> list[tuple[str, str]]:
    """The groups in a command's defaults list, each with its default choice."""
    import yaml

    path = config_root() / f"{config_name(command)}.yaml"
    entries = (yaml.safe_load(path.read_text()) or {}).get("defaults", [])
    return [pair for entry in entries if isinstance(entry, dict) for pair in entry.items()]


def leaf_keys(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of all values in nested dicts."""
    keys = []
    for name, value in tree.items():
        key = _join(prefix, str(name))
        keys += leaf_keys(value, key) if isinstance(value, Mapping) and value else [key]
    return keys


def _convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint`, or a `ConfigError` that names both."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where)
    if origin in (Union, types.UnionType):
        return _convert_union(args, value, where)
    if origin is Literal:
        if value not in args:
            raise ConfigError(unknown(f"value of {where}:", str(value), map(str, args)))
        return value
    if origin in (tuple, list):
        return _convert_sequence(origin, args, value, where)
    if origin is dict and isinstance(value, Mapping):
        return {str(k): _convert(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if not isinstance(hint, type) or not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise _wrong_type(hint, value, where)
    return value


def override_text(key: str, value: Any) -> str:
    """`key=value` as Hydra reads it back, whatever characters a string has."""
    plain = not isinstance(value, str) or re.fullmatch(r"[\w./-]+", value)
    return f"{key}={value}" if plain else f"{key}='{value.replace("'", "\\'")}'"


def _convert_union(args: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in args:
        return None
    members = [arg for arg in args if arg is not type(None)]
    for member in members:
        try:
            return _convert(member, value, where)
        except ConfigError:
            if len(members) == 1:
                raise
    raise _wrong_type(Union[tuple(members)], value, where)  # noqa: UP007


def _convert_sequence(origin: Any, args: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where} needs a list, got {value!r}; write {where}=[a,b]")
    if origin is tuple and args and args[-1] is not Ellipsis:
        if len(args) != len(value):
            raise ConfigError(f"{where} needs {len(args)} values, got {len(value)}: {value!r}")
        return tuple(_convert(arg, v, where) for arg, v in zip(args, value, strict=True))
    member = args[0] if args else Any
    return origin(_convert(member, v, where) for v in value)


def _wrong_type(hint: Any, value: Any, where: str) -> ConfigError:
    members = typing.get_args(hint) if typing.get_origin(hint) is Union else (hint,)
    wanted = " or ".join(
        m.__name__ if isinstance(m, type) and not typing.get_args(m) else str(m) for m in members
    )
    return ConfigError(f"{where} needs a value of type {wanted}, got {value!r} ({type(value).__name__})")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
