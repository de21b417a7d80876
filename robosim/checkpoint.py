"""Atomic files, and the manifest that says that a stage is finished.

Weights are safetensors, everything else JSON; nothing here can run code from a file. Every file is written
beside its place and renamed, so that a crash at any moment leaves the old file or the new one, never half of one.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robosim.config import to_dict
from robosim.errors import CheckpointError, OutputError

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "stage.json"

SAME_RESULT = {"same_result": True}
"""Metadata of a configuration's field that changes how a result is made, but not what it is, rounding apart."""

ONLY_TRAINING = {"only_training": True}
"""Metadata of a model configuration's field that is about its training alone: other weights fit all the same."""


def deciding(config: Any) -> dict[str, Any]:
    """A configuration (a dataclass) as plain JSON, without the fields marked `SAME_RESULT`: what decides a result."""
    plain = to_dict(config)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.metadata.get("same_result"):
            del plain[field.name]
        elif dataclasses.is_dataclass(value):
            plain[field.name] = deciding(value)
    return plain


def json_hash(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def content_name(path: Path) -> str:
    """A file that a configuration names, by its name and content: what decides a result, wherever the file lies.

    Its YAML of the same name counts too, and so do the files that an XML names (`file="…"`: includes and meshes).
    """
    digests = [
        file_hash(file) for file in (path.with_suffix(".yaml"), *_with_named_files(path)) if file.is_file()
    ]
    return f"{path.name} {json_hash(digests)[:16]}"


def _with_named_files(path: Path) -> list[Path]:
    """`path` and what it names, files within files included, each once."""
    found: list[Path] = []
    waiting, folders = [path], {path.parent}
    while waiting:
        file = waiting.pop(0)
        if file in found or not file.is_file():
            continue
        found.append(file)
        if file.suffix == ".xml":
            text = file.read_text(errors="replace")
            folders |= {
                path.parent / name for name in re.findall(r'(?:asset|mesh|texture)dir="([^"]+)"', text)
            }
            names = re.findall(r'\bfile="([^"]+)"', text)
            waiting += [folder / name for name in names for folder in sorted(folders)]
    return found


def prepare_folder(path: Path) -> Path:
    """Make `path` a writable folder, or raise `OutputError` saying what stands in the way."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(
            f"can't make the folder {path}: a file is in its place; move it or set out="
        ) from error
    except OSError as error:
        raise OutputError(f"can't make the folder {path}: {error.strerror}; set out= elsewhere") from error
    if not os.access(path, os.W_OK):
        raise OutputError(f"can't write into {path}: no permission; set out= elsewhere")
    return path


def sync_folder(path: Path) -> None:
    """Make a rename inside `path` durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_atomically(temporary: Path, final: Path) -> None:
    """Flush `temporary` to disk and rename it to `final`."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, final)
    sync_folder(final.parent)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """The file to write instead of `path`: it takes that name when the block is done, or is removed.

    Raises `OutputError` (a full disk, a file for a folder).
    """
    prepare_folder(path.parent)
    temporary = path.with_name(path.name + ".partial")
    try:
        yield temporary
        replace_atomically(temporary, path)
    except BaseException as error:  # Ctrl-C too
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise write_error(path, error) from error
        raise


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` whole or not at all. Raises `OutputError` (a full disk, a file for a folder)."""
    with written_whole(path) as temporary:
        temporary.write_bytes(data)


def write_error(path: Path, error: OSError) -> OutputError:
    """The sentence for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(
            f"the disk is full: {path} wasn't written; free some space and run the same command again"
        )
    return OutputError(f"can't write {path}: {error.strerror or error}; set out= elsewhere")


def atomic_write_json(path: Path, value: Any) -> None:
    atomic_write_bytes(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises `CheckpointError` when it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; run the stage that writes it") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} can't be read ({error}); delete it and run its stage again") from error


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named tensors as one safetensors file, atomically, and from where they lie on the host.

    Raises `OutputError` as all writing does, and `RuntimeError` where two tensors share their memory.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with written_whole(path) as temporary:
        try:
            save_file(contiguous, temporary, dict(metadata or {}))
        except SafetensorError as error:
            raise system_error(error) from error


def system_error(error: Exception) -> OSError:
    """What the system said to safetensors, whose errors have its number in their text only."""
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises `CheckpointError` when it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise CheckpointError(f"{path} is missing; run the stage that writes it")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error}); delete its folder and run the stage again"
        ) from error


def stage_finished(out: Path, config: Mapping[str, Any], inputs: Mapping[str, str]) -> bool:
    """True if and only if `out` holds a result of exactly this configuration and these input hashes.

    A manifest of another configuration is an old result, not this one: the stage runs again. Raises
    `CheckpointError` when the manifest can't be read, or names a file that is missing or was changed.
    """
    if not (out / MANIFEST).exists():
        return False
    manifest = read_json(out / MANIFEST)
    if manifest["config_hash"] != json_hash(config) or manifest["inputs"] != dict(inputs):
        return False
    for name, digest in manifest["outputs"].items():
        if not (out / name).is_file() or file_hash(out / name) != digest:
            raise CheckpointError(
                f"{out / name} is missing or was changed; delete {out} and run its stage again"
            )
    return True


def finish_stage(
    out: Path,
    stage: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    wall_seconds: float,
    figures: Mapping[str, Any],
    outputs: tuple[str, ...] = (),
) -> None:
    """Write the manifest, last of all: from now on the stage counts as finished.

    `outputs` are file names relative to `out`; their hashes are kept and checked before the stage is reused.
    """
    manifest = {
        "stage": stage,
        "config": dict(config),
        "config_hash": json_hash(config),
        "inputs": dict(inputs),
        "outputs": {name: file_hash(out / name) for name in outputs},
        "wall_seconds": wall_seconds,
        "figures": dict(figures),
    }
    atomic_write_json(out / MANIFEST, manifest)


def drop_snapshots(folder: Path) -> None:
    """Remove the snapshots of a training run whose result is saved."""
    for path in folder.glob("step_*"):
        shutil.rmtree(path, ignore_errors=True)


def stage_hash(out: Path) -> str:
    """Hash of a finished stage: what a later stage records as its input."""
    manifest = read_json(out / MANIFEST)
    return json_hash({key: manifest[key] for key in ("stage", "config_hash", "inputs", "outputs")})


def stage_figures(out: Path) -> dict[str, Any]:
    return read_json(out / MANIFEST)["figures"]


def stage_seconds(out: Path) -> float:
    return read_json(out / MANIFEST)["wall_seconds"]
