"""The one table that `robosim evaluate` prints."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from robosim.evaluation.evaluation_words import CURVES, METRICS, SCALARS, at, columns, shown

PRINTED = (
    "moving_psnr_db",
    "moving_psnr_gain_db",
    "moving_ssim",
    "lpips",
    "foreground_area_ratio",
    "tool_drift_m",
    "object_drift_m",
    "object_iou",
    "object_area_ratio",
    "object_area_error",
)
"""Metrics of the table; the page has all."""


def print_table(figures: Mapping[str, Any]) -> None:
    """Pooled figures by horizon, then those without one; a log gets it at full width."""
    from rich.console import Console
    from rich.table import Table

    pooled, horizons = figures["pooled"], [str(h) for h in columns(figures)]
    total = sum(task["stretches"] for task in figures["stretches"].values())
    table = Table(title=f"{total} held-out stretches of {', '.join(figures['stretches'])}")
    table.add_column("frames ahead")
    for horizon in horizons:
        table.add_column(horizon, justify="right")
    for metric in METRICS:
        curves = pooled.get(metric.name, {}) if metric.name in PRINTED else {}
        known = {curve: curves[curve] for curve in CURVES if any(curves.get(curve, {}).values())}
        if known:
            table.add_section()
            table.add_row(f"[bold]{metric.title}[/bold], {metric.unit}")
        for curve, values in known.items():
            cells = (shown(values[h], metric.scale, metric.digits, interval=False) for h in horizons)
            table.add_row(f"  {CURVES[curve]}", *cells)
    table.add_section()
    for place, words, scale, digits in SCALARS:
        if (figure := at(pooled, place)) is not None:
            table.add_row(words, shown(figure, scale, digits, interval=False))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120).print(table)
