"""`init=`: training that starts from the weights of another simulator instead of random ones."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from torch import nn

from robosim.checkpoint import load_tensors
from robosim.errors import ConfigError
from robosim.ranks import together
from robosim.shipped import locate, weights_hash
from robosim.world_model.world import read_description

MOST_NAMED = 3
"""Tensors that don't fit which a message names at most."""


def start_from(model: nn.Module, init: str | None, part: str, steps: int) -> dict[str, str]:
    """Fill `model` with the weights of `init`/`part` where `init` is given: a run, a saved simulator, a shipped name.

    Returns what the training's identity says of it: the hash of these weights, nothing without `init`. Raises
    `ConfigError` naming the keys in which the two models differ, or the tensors that don't fit, and for `steps` = 0
    without `init`; `CheckpointError` where there is no such part or it is damaged.
    """
    if init is None:
        if steps == 0:
            raise ConfigError(
                f"{part}.train.steps=0 trains nothing, so it needs weights to start from: init=NAME"
            )
        return {}
    together(lambda: fill(model, init, part))
    return {"init": together(lambda: weights_hash(init, part))}


def fill(model: nn.Module, init: str, part: str) -> None:
    """Copy the weights of `init`/`part` into `model`, stored in whatever precision; see `start_from`."""
    check_start(init, part, model.config)
    folder = locate(init) / part
    there, here = read_description(folder).data.get("size"), getattr(model, "size", None)
    if there != here:
        raise ConfigError(f"init={init}: its {part} is for frames of {there} px, this video has {here} px")
    tensors, own = load_tensors(folder / "model.safetensors"), model.state_dict()
    wrong = [
        name
        for name in sorted({*tensors, *own})
        if name not in tensors or name not in own or tensors[name].shape != own[name].shape
    ]
    if wrong:
        raise ConfigError(
            f"init={init}: {len(wrong)} tensors of its {part} don't fit here ({', '.join(wrong[:MOST_NAMED])}); either "
            "the parts that this one stands on are of other sizes: start them from the same init=; or its weights are "
            "of another version of robosim: train them again"
        )
    model.load_state_dict(tensors)


def check_start(init: str, part: str, config: Any) -> None:
    """Raise `ConfigError` naming the keys in which the model of `init`/`part` is made otherwise than by `config`."""
    weights_hash(init, part)  # says what is missing
    differences = differing(read_description(locate(init) / part).part(type(config), "config"), config)
    if differences:
        raise ConfigError(
            f"init={init}: its {part} is made otherwise: {', '.join(differences)}; set {part}.model.* or model= to "
            "what it has, or leave init= out (in the demo: from_scratch=true)"
        )


def differing(there: Any, here: Any, prefix: str = "") -> list[str]:
    """The keys in which two models differ, as `key value (here value)`; how they are trained doesn't count."""
    found = []
    for field in fields(there):
        if field.metadata.get("only_training"):
            continue
        name, old, new = f"{prefix}{field.name}", getattr(there, field.name), getattr(here, field.name)
        if is_dataclass(old):
            found += differing(old, new, f"{name}.")
        elif old != new:
            found.append(f"{name} {old} (here {new})")
    return found
