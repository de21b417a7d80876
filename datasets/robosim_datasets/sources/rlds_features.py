"""What an RLDS dataset in the Open-X layout holds: its `features.json` read flat, or inferred from a record.

A record is an episode. The features of its steps are stored one after another under `steps/…`, T times what one step
has; whatever else the episode has stands beside them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from robosim_datasets.sources.tfrecord import Values

STEPS = "steps/"
BOUNDS = ("steps/is_first", "steps/is_last", "steps/is_terminal")
IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
"""How JPEG and PNG files begin."""

INSTRUCTIONS = ("language_instruction", "natural_language_instruction", "instruction")
"""Last parts of the names of features that hold the episode's sentence, the usual one first."""

LONGEST_STATE = 64
"""Numbers. A longer vector among the observations is an embedding or a reading of another kind, not a state."""


@dataclass(frozen=True)
class Feature:
    """One leaf of the dataset's tree of features."""

    name: str
    """With the names of the branches, as in `steps/observation/image_0`."""
    kind: Literal["image", "text", "numbers", "unread"]
    """"unread": of a kind that has no place in a robosim dataset, such as a list of its own length in every step."""
    shape: tuple[int | None, ...] = ()
    """Of one step, or of the episode where it doesn't belong to the steps; None where it varies."""
    dtype: str = "float32"
    description: str = ""

    @property
    def in_steps(self) -> bool:
        return self.name.startswith(STEPS)

    @property
    def short(self) -> str:
        """The name below `steps` and `observation`."""
        return self.name.removeprefix(STEPS).removeprefix("observation/")

    @property
    def is_vector(self) -> bool:
        """Whether it is a number or a plain vector of numbers."""
        return self.kind == "numbers" and len(self.shape) <= 1 and None not in self.shape

    @property
    def size(self) -> int:
        """Numbers a step."""
        return math.prod(n or 0 for n in self.shape)


@dataclass(frozen=True)
class Columns:
    """Which features become what in a robosim dataset."""

    cameras: dict[str, Feature]
    action: tuple[Feature, ...]
    state: tuple[Feature, ...]
    instructions: tuple[Feature, ...]
    """Where the sentence may stand, best first."""
    left_out: tuple[Feature, ...]

    @property
    def vectors(self) -> tuple[Feature, ...]:
        return (*self.action, *self.state)


def read_features(tree: Mapping[str, Any]) -> list[Feature]:
    """The leaves of the content of a `features.json`. Raises `KeyError`, `TypeError` or `ValueError` if it is none."""
    return sorted(_leaves(tree, ""), key=lambda feature: feature.name)


def _leaves(node: Mapping[str, Any], name: str) -> Iterator[Feature]:
    description = node.get("description", "")
    if "featuresDict" in node:
        for part, below in node["featuresDict"].get("features", {}).items():
            yield from _leaves(below, f"{name}/{part}" if name else part)
    elif "sequence" in node and f"{name}/" == STEPS:
        yield from _leaves(node["sequence"]["feature"], name)
    elif "image" in node:
        shape = _shape(node["image"])
        colour = shape[-1:] == (3,) and node["image"].get("dtype", "uint8") == "uint8"
        yield Feature(
            name, "image" if colour else "unread", shape, node["image"].get("dtype", "uint8"), description
        )
    elif "text" in node:
        yield Feature(name, "text", (), "string", description)
    elif "tensor" in node and node["tensor"].get("dtype") == "string":
        yield Feature(name, "unread" if _shape(node["tensor"]) else "text", (), "string", description)
    elif "tensor" in node and node["tensor"].get("encoding", "none") == "none":
        yield Feature(name, "numbers", _shape(node["tensor"]), node["tensor"]["dtype"], description)
    else:
        yield Feature(name, "unread", (), node["pythonClassName"].rsplit(".", 1)[-1], description)


def _shape(node: Mapping[str, Any]) -> tuple[int | None, ...]:
    sizes = [int(size) for size in node.get("shape", {}).get("dimensions", [])]
    return tuple(size if size >= 0 else None for size in sizes)


def infer_features(values: Mapping[str, Values]) -> list[Feature]:
    """The features of a record that no `features.json` describes; their shapes are those of vectors."""
    length = step_count(values)
    features = []
    for name, value in sorted(values.items()):
        in_steps = name.startswith(STEPS)
        rows = length if in_steps else 1
        if not len(value) or not rows or len(value) % rows:
            features.append(Feature(name, "unread"))
        elif not isinstance(value, np.ndarray):
            image = in_steps and any(value[0].startswith(start) for start in IMAGE_STARTS)
            kind = "image" if image else "text" if len(value) == rows and _is_text(value[0]) else "unread"
            features.append(
                Feature(name, kind, (None, None, 3) if image else (), "uint8" if image else "string")
            )
        else:
            size = len(value) // rows
            features.append(Feature(name, "numbers", () if size == 1 else (size,), str(value.dtype)))
    return features


def _is_text(value: bytes) -> bool:
    try:
        return value.decode().isprintable()
    except UnicodeDecodeError:
        return False


def step_count(values: Mapping[str, Values], features: Iterable[Feature] = ()) -> int:
    """Steps of the episode in a record, by whatever stands there once a step; 0 if there are none."""
    singles = [f.name for f in features if f.in_steps and (f.kind in ("image", "text") or f.shape == ())]
    for name in (*BOUNDS, *singles):
        if name in values:
            return len(values[name])
    lengths = [len(value) for name, value in values.items() if name.startswith(STEPS)]
    return min(lengths, default=0)


def choose_columns(features: Iterable[Feature]) -> Columns:
    """Cameras, action, state and instruction among the features.

    The action is `steps/action`, one vector or all vectors below it but the flag that ends the episode; the state is
    `observation/state` likewise, else all floating point vectors of the observation that aren't embeddings. Parts
    stand in the order of their names: a record has no other.
    """
    features = list(features)
    images = [f for f in features if f.kind == "image" and f.in_steps]
    action = tuple(f for f in _vectors(features, "steps/action") if not f.name.endswith("/terminate_episode"))
    state = _vectors(features, "steps/observation/state") or tuple(
        f
        for f in features
        if f.name.startswith("steps/observation/")
        and f.is_vector
        and f.dtype.startswith("float")
        and f.size <= LONGEST_STATE
        and "embedding" not in f.name
    )
    texts = [f for f in features if f.kind == "text" and f.name.rsplit("/", 1)[-1] in INSTRUCTIONS]
    texts.sort(key=lambda f: (not f.in_steps, INSTRUCTIONS.index(f.name.rsplit("/", 1)[-1])))
    used = {*images, *action, *state, *texts}
    unused = [f for f in features if f.in_steps and f not in used]
    left_out = [
        f for f in unused if f.name not in (*BOUNDS, "steps/reward", "steps/discount") and f.kind != "text"
    ]
    cameras = {re.sub(r"\W", "_", f.short): f for f in images}
    return Columns(cameras, action, state, tuple(texts), tuple(left_out))


def _vectors(features: Iterable[Feature], name: str) -> tuple[Feature, ...]:
    return tuple(f for f in features if f.is_vector and (f.name == name or f.name.startswith(f"{name}/")))


def number_names(features: Iterable[Feature]) -> tuple[str, ...]:
    """A name for each number of concatenated vectors, such as `world_vector_0`."""
    names: list[str] = []
    for feature in features:
        name = feature.name.rsplit("/", 1)[-1]
        names += [f"{name}_{i}" for i in range(feature.size)] if feature.shape else [name]
    return tuple(names)


def count_fault(features: Iterable[Feature], values: Mapping[str, Values], length: int) -> str:
    """What is missing, of the wrong kind or of the wrong length in a record of `length` steps; "" if nothing is."""
    for feature in features:
        if (
            not feature.in_steps
            or feature.kind == "unread"
            or (None in feature.shape and feature.kind == "numbers")
        ):
            continue
        if feature.name not in values:
            return f"{feature.name} is missing"
        if isinstance(values[feature.name], np.ndarray) != (feature.kind == "numbers"):
            return f"{feature.name} doesn't hold what a feature of kind {feature.kind} does"
        expected = length * (feature.size if feature.kind == "numbers" else 1)
        if len(values[feature.name]) != expected:
            return (
                f"{feature.name} has {len(values[feature.name])} values where {length} steps have {expected}"
            )
    return ""
