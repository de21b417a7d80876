"""The card of a shipped simulator: how it was made, what was measured, what it can't do.

Everything comes from the run's own files. What they don't say is null here; nothing is guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from robosim_datasets.clip_store import ClipStore
from robosim_datasets.mixture import MIXTURE_JSON

from robosim.checkpoint import MANIFEST, file_hash, read_json, stage_finished, stage_hash
from robosim.errors import CheckpointError
from robosim.evaluation.machine import machine
from robosim.evaluation.summary import STAGES
from robosim.shipped import read_card, shipped_folder, shipped_names, weights_hash
from robosim.simulator import Simulator

SHOWN = ("tokenizer", "latent_action", "dynamics", "adapt")
"""The stages that made a simulator, after its video."""

WEIGHTS = "*.safetensors"

NOT_FIGURES = ("train", "trained_on", "init", "parameters")
"""What a stage's figures hold beside what was measured on held-out video."""


def make_card(
    run: Path,
    simulator: Simulator,
    clips: ClipStore,
    precision: str,
    check: Mapping[str, Any],
    limits: Sequence[str],
) -> dict[str, Any]:
    """All of the card but the files of the folder, see `files_of`. Raises `CheckpointError` for stale figures."""
    manifests = {stage: read_manifest(run, stage) for stage in ("collect", *SHOWN)}
    parts = {"tokenizer": simulator.world.tokenizer, "latent_action": simulator.world.latent_action}
    parts["dynamics"] = simulator.world.dynamics
    sizes = {name: sum(value.numel() for value in part.parameters()) for name, part in parts.items()}
    evaluation = run / "evaluation" / "evaluation.json"
    summary = run / "summary.json"
    return {
        "name": simulator.name,
        "robosim": version("robosim"),
        "date": datetime.now(UTC).date().isoformat(),
        "precision": precision,
        "parameters": {**sizes, "total": sum(sizes.values())},
        "data": data_recipe(run, clips, manifests["collect"]),
        "training": {stage: training_of(stage, manifests[stage]) for stage in SHOWN},
        "held_out": {stage: figures_of(manifests[stage]) for stage in SHOWN},
        "evaluation": brief(nameless(read_json(evaluation))) if evaluation.is_file() else None,
        "check": dict(check),
        "hardware": {
            "trained_on": {stage: figure(manifests[stage], "trained_on") for stage in SHOWN},
            "reported_on": read_json(summary).get("machine") if summary.is_file() else None,
            "shipped_on": machine(),
        },
        "limits": list(limits),
    }


def files_of(folder: Path) -> dict[str, Any]:
    """SHA-256 of every file in a folder, by its path there, and their bytes; those of the weights apart."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        "files": {path.relative_to(folder).as_posix(): file_hash(path) for path in files},
        "total_bytes": sum(path.stat().st_size for path in files),
        "weight_bytes": sum(path.stat().st_size for path in folder.rglob(WEIGHTS)),
    }


def read_manifest(run: Path, stage: str) -> dict[str, Any] | None:
    """A stage's manifest, None where it left none. Raises `CheckpointError` where its figures are of other weights."""
    folder = run / STAGES[stage]
    if not (folder / MANIFEST).is_file():
        return None
    manifest = read_json(folder / MANIFEST)
    if stage != "collect":  # the video isn't shipped, and hashing it takes long
        stage_finished(folder, manifest["config"], manifest["inputs"])
    for below, digest in manifest["inputs"].items():
        known = below in STAGES and (run / STAGES[below] / MANIFEST).is_file()
        if known and stage_hash(run / STAGES[below]) != digest:
            raise CheckpointError(
                f"{stage} in {run} was made from an earlier {below}; run its stage again before robosim ship"
            )
    return manifest


def data_recipe(run: Path, clips: ClipStore, manifest: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the video is and how it was made; counted on the clips themselves."""
    spec, rows = clips.spec, clips.episodes
    kinds = Counter((row.task, row.split) for row in rows)
    seeds = [row.seed for row in rows]
    return {
        **made_by(manifest),
        "arm": spec.robot.name,
        "cameras": list(spec.cameras),
        "size": spec.size,
        "fps": spec.fps,
        "episodes": dict(Counter(row.split for row in rows)),
        "episodes_by_task": {
            task.name: {split: kinds[task.name, split] for split in ("train", "val")} for task in spec.tasks
        },
        "behaviours": dict(Counter(row.behaviour for row in rows)),
        "frames": clips.num_frames,
        "episode_seeds": [min(seeds), max(seeds)],
        "parts": mixed_parts(run),
    }


def mixed_parts(run: Path) -> list[dict[str, Any]] | None:
    """Of a mixture the parts, each with its own recipe; None for one dataset."""
    path = run / "dataset" / MIXTURE_JSON
    if not path.is_file():
        return None
    found = []
    for part in read_json(path)["parts"]:
        own = (run / part["path"]).resolve().parent / "dataset" / MANIFEST
        recipe = made_by(read_json(own) if own.is_file() else None)
        found.append({"name": part["name"], "weight": part["weight"], **recipe})
    return found


def made_by(manifest: Mapping[str, Any] | None) -> dict[str, Any]:
    """Stage, configuration (seed included) and seconds of whatever made a dataset."""
    return {
        "made_by": manifest and manifest["stage"],
        "config": manifest and nameless(manifest["config"]),
        "wall_seconds": manifest and manifest["wall_seconds"],
    }


def training_of(stage: str, manifest: Mapping[str, Any] | None) -> dict[str, Any]:
    """How a part was trained. `init` is what its weights started from, null for random ones, and `maps_from` whose maps
    an adapter has; of a part that was taken as it is from a shipped simulator, `taken_from`, all this is what its card
    says."""
    config = manifest and manifest["config"]
    if earlier := earlier_card(stage, manifest):
        return {**earlier["training"][stage], "taken_from": f"{earlier['name']} of {earlier['date']}"}
    return {
        "config": config and nameless(config),
        "seed": config and config.get("seed"),
        "steps": config and config.get("train", {}).get("steps"),
        "wall_seconds": manifest and manifest["wall_seconds"],
        "init": figure(manifest, "init"),
        "init_sha256": manifest and manifest["inputs"].get("init"),
        **({"maps_from": maps} if (maps := figure(manifest, "maps_from")) else {}),
        "last_metrics": figure(manifest, "train"),
    }


def earlier_card(stage: str, manifest: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The card of the shipped simulator from which a part was taken without a step of training; None for a part that
    was trained, or whose origin isn't shipped, or isn't what it was."""
    name = figure(manifest, "init")
    if not manifest or not name or name not in shipped_names():
        return None
    training = manifest["config"].get("train")
    if (
        training is None or training["steps"]
    ):  # without a training it is an adapter, whose probe is of its own labels
        return None
    same = weights_hash(shipped_folder(name), stage) == manifest["inputs"].get("init")
    return read_card(name) if same else None


def figures_of(manifest: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a stage measured on held-out video, on the weights as they were trained: float32."""
    if manifest is None:
        return None
    return {name: value for name, value in manifest["figures"].items() if name not in NOT_FIGURES}


TOO_MUCH = ("moving_psnr_gain_db", "tool_drift_from_probe_m", "object_drift_from_probe_m")
"""Measures that a card leaves out: they say again, in other words, what others say."""


def brief(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """What a card says of an evaluation: all tasks together, in four digits; the whole is too heavy. `stretches` says
    by horizon how many a figure is of at most; masks and consistency are of fewer."""
    kept = {name: value for name, value in evaluation["pooled"].items() if name not in TOO_MUCH}
    return {key: rounded(value) for key, value in evaluation.items() if key != "tasks"} | {
        "pooled": rounded(kept)
    }


def rounded(value: Any) -> Any:
    """The same with every number in four significant digits, figures without their number of episodes."""
    if isinstance(value, Mapping):
        return {
            key: rounded(part) for key, part in value.items() if key != "episodes" or "value" not in value
        }
    return float(f"{value:.4g}") if isinstance(value, float) else value


def figure(manifest: Mapping[str, Any] | None, name: str) -> Any:
    return manifest and manifest["figures"].get(name)


def nameless(value: Any) -> Any:
    """The same without the folders of the machine that it was made on: of an absolute path the last part stays, of the
    words of a command too."""
    if isinstance(value, Mapping):
        return {key: nameless(part) for key, part in value.items()}
    if isinstance(value, list):
        return [nameless(part) for part in value]
    if not isinstance(value, str) or Path(value).is_absolute():
        return Path(value).name if isinstance(value, str) else value
    parts = (word.rpartition("=") for word in value.split(" "))
    return " ".join(
        key + equals + (Path(path).name or path if Path(path).is_absolute() else path)
        for key, equals, path in parts
    )
