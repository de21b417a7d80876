"""summary.json: the figures of every stage of a run in one file, under names that don't change.

Every figure comes from a stage's manifest; nothing is measured or rounded here.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from robosim.checkpoint import MANIFEST, atomic_write_json, read_json
from robosim.errors import CheckpointError
from robosim.evaluation.machine import machine

STAGES = {
    "collect": "dataset",
    "tokenizer": "tokenizer",
    "latent_action": "latent_action",
    "dynamics": "dynamics",
    "adapt": "adapter",
    "pretrain": "policy",
    "compare": "compare",
}
"""The stages in order, and the folder in which each leaves its manifest."""

HORIZONS = ("1", "4", "8", "16")

FIELDS = (
    "seed",
    *(f"wall_seconds.{stage}" for stage in (*STAGES, "report")),
    "video.episodes",
    "video.frames",
    "tokenizer.psnr_db",
    "tokenizer.moving_psnr_db",
    "tokenizer.codes_used",
    "latent_action.psnr_db",
    "latent_action.shuffled_psnr_db",
    *(f"dynamics.moving_psnr_db.{h}" for h in HORIZONS),
    *(f"dynamics.repeat_last_moving_psnr_db.{h}" for h in HORIZONS),
    *(f"dynamics.psnr_db.{h}" for h in HORIZONS),
    "dynamics.delta_psnr_db",
    "dynamics.frames_per_second",
    "adapter.labels",
    "adapter.episodes",
    "adapter.command_mae_rad",
    "adapter.tool_mae_m",
    "adapter.probe_error_m",
    *(f"adapter.rollout_moving_psnr_db.{h}" for h in HORIZONS),
)
"""What every summary holds, as dotted paths; definitions stand in the report."""

TASK_FIELDS = (
    "success_learned",
    "success_physics",
    "success_random_physics",
    "final_distance_physics_m",
    "final_distance_random_m",
    "episodes",
)
"""What it holds for each task, below `policy.<task>`."""


def build_summary(run: Path, report_seconds: float | None = None) -> dict[str, Any]:
    """Collect the figures of a finished run. `report_seconds` is how long the report itself took.

    Raises `CheckpointError` naming the stage that hasn't run.
    """
    manifests = {stage: _manifest(run, stage) for stage in STAGES}
    figures = {stage: manifest["figures"] for stage, manifest in manifests.items()}
    seconds = {stage: float(manifest["wall_seconds"]) for stage, manifest in manifests.items()}
    if report_seconds is not None:
        seconds["report"] = report_seconds
    compared = figures["compare"]
    return {
        "run": run.name,
        "machine": machine(),
        "seed": manifests["collect"]["config"].get("seed"),
        "wall_seconds": {**seconds, "total": sum(seconds.values())},
        "video": figures["collect"],
        "tokenizer": figures["tokenizer"],
        "latent_action": figures["latent_action"],
        "dynamics": figures["dynamics"],
        "adapter": {**figures["adapt"], "rollout_moving_psnr_db": compared["rollout_moving_psnr_db"]},
        "policy": {
            task: {**figures["pretrain"].get(task, {}), **_without(values, "table")}
            for task, values in compared["tasks"].items()
        },
        "replay": compared["replay"],
        "pooled": compared["pooled"],
    }


def write_summary(run: Path, report_seconds: float) -> dict[str, Any]:
    """Write `run`/summary.json, atomically, and return it."""
    summary = build_summary(run, report_seconds)
    atomic_write_json(run / "summary.json", summary)
    return summary


def missing_fields(summary: dict[str, Any]) -> list[str]:
    """Dotted paths of the fields that are absent, null, or not a finite number."""
    policies = summary.get("policy") or {"<task>": {}}
    paths = [*FIELDS, *(f"policy.{task}.{name}" for task in policies for name in TASK_FIELDS)]
    return [path for path in paths if not _filled(_lookup(summary, path.split(".")))]


def _lookup(tree: Any, keys: list[str]) -> Any:
    for key in keys:
        if not isinstance(tree, dict) or key not in tree:
            return None
        tree = tree[key]
    return tree


def _filled(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value) and all(_filled(entry) for entry in value.values())
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _manifest(run: Path, stage: str) -> dict[str, Any]:
    path = run / STAGES[stage] / MANIFEST
    if not path.exists():
        raise CheckpointError(f"{run} has no finished stage {stage!r} ({path} is missing); run it first")
    return read_json(path)


def _without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}
