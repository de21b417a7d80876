"""evaluation.html: one table and one figure a metric. One file beside the strips, no script, nothing fetched."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from robosim.checkpoint import atomic_write_bytes
from robosim.evaluation.charts import Series, line_chart
from robosim.evaluation.evaluation_words import (
    CURVES,
    MEANINGS,
    METRICS,
    SCALARS,
    STYLES,
    Metric,
    at,
    columns,
    shown,
)
from robosim.evaluation.page import definitions, fact, figure, table

CHART = (760, 320)


def write_page(out: Path, figures: Mapping[str, Any]) -> Path:
    """Write `out`/evaluation.html from what evaluation.json holds and the pictures in `out`."""
    name = Path(figures["run"]).name
    parts = [
        head(figures),
        *(metric_section(metric, figures) for metric in METRICS if metric.name in figures["pooled"]),
        scalars_section(figures),
        pictures_section(out, figures),
        "<h2>What the words mean</h2>",
        definitions(MEANINGS),
        facts_section(figures),
    ]
    style = files("robosim.evaluation").joinpath("report.css").read_text()
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>robosim evaluate · {escape(name)}</title><style>\n{style}</style></head><body>\n"
        f'<p class="kicker">robosim · the learned simulator on held-out video</p><h1>{escape(name)}</h1>\n'
        + "\n".join(parts)
        + "\n<footer>One file, no script, nothing fetched. The figures are in evaluation.json.</footer>"
        "</body></html>\n"
    )
    path = out / "evaluation.html"
    atomic_write_bytes(path, text.encode())
    return path


def head(figures: Mapping[str, Any]) -> str:
    """What was evaluated, the leading figures, and what is missing."""
    pooled, stretches = figures["pooled"], figures["stretches"]
    total = sum(task["stretches"] for task in stretches.values())
    furthest = next(
        (str(h) for h in reversed(figures["horizons"]) if at(pooled, f"moving_psnr_db.latent.{h}")), "1"
    )
    leading = (
        (f"moving_psnr_db.latent.{furthest}", f"dB on moving pixels, {furthest} frames ahead", 1.0, 1),
        (f"moving_psnr_db.repeat_last_raw.{furthest}", "dB, repeating the last frame", 1.0, 1),
        (f"moving_psnr_db.nearest.{furthest}", "dB, nearest training clip", 1.0, 1),
        ("usable_horizon.command", "frames usable, driven by commands", 1.0, 0),
        ("shuffle_ratio", "× the loss with another clip's latent actions", 1.0, 2),
    )
    facts = [
        fact(shown(value, scale, digits, interval=False), words)
        for place, words, scale, digits in leading
        if (value := at(pooled, place)) is not None
    ]
    counted = table(
        ["task", "stretches", "longest", *(f"+{h}" for h in next(iter(stretches.values()))["reach"])],
        [
            [task, str(of["stretches"]), str(of["longest"]), *map(str, of["reach"].values())]
            for task, of in stretches.items()
        ],
    )
    own = figures["data"] == figures["run"]
    whose = "the run's held-out episodes" if own else f"the episodes of {figures['data']}"
    missing = "".join(f"<li>{escape(line)}</li>" for line in figures["missing"])
    return (
        f'<p class="lead">{total} stretches of {escape(whose)}, each rolled out once from '
        f"{figures['context']} true frames.</p>"
        f'<div class="facts">{"".join(facts)}</div>'
        '<p class="note">Frames ahead of the last context frame. A horizon\'s figures compare the same stretches: '
        "those that are so long, counted under +1, +4, …</p>"
        + counted
        + (f"<h3>What is missing</h3><ul class='note'>{missing}</ul>" if missing else "")
    )


def metric_section(metric: Metric, figures: Mapping[str, Any]) -> str:
    """One chart and one table of all tasks together, and a table for each task folded away."""
    pooled, horizons = figures["pooled"][metric.name], figures["horizons"]
    curves = [
        curve
        for curve in CURVES
        if curve in pooled and any(value is not None for value in pooled[curve].values())
    ]
    heading = f"<h2>{escape(metric.title)}</h2><p>{escape(metric.meaning)}</p>"
    if not curves:
        return heading + '<p class="note">Nothing to measure: see what is missing.</p>'
    chart = line_chart(
        [series_of(curve, pooled[curve], horizons, metric) for curve in curves],
        "frames ahead",
        metric.unit,
        x_ticks=[h for h in horizons if any(pooled[curve][str(h)] is not None for curve in curves)],
        from_zero=metric.from_zero,
        size=CHART,
    )
    there = columns(figures)
    by_task = "".join(
        f"<details><summary>{escape(task)}</summary>{metric_table(metric, of[metric.name], there)}</details>"
        for task, of in figures["tasks"].items()
        if any(any(values.values()) for values in of[metric.name].values())
    )
    return heading + figure(chart) + metric_table(metric, pooled, there) + by_task


def series_of(curve: str, values: Mapping[str, Any], horizons: list[int], metric: Metric) -> Series:
    """A line with its band of intervals, over the horizons that have a figure."""
    there = [(h, values[str(h)]) for h in horizons if values[str(h)] is not None]
    style, dashed = STYLES[curve]
    scale = metric.scale
    bands = [
        (value["low"] * scale, value["high"] * scale)
        if value["low"] is not None
        else (value["value"] * scale, value["value"] * scale)
        for _, value in there
    ]
    # Bands of all lines would hide each other: only what the model does has one.
    band = bands if curve in ("latent", "command") else None
    heights = [value["value"] * scale for _, value in there]
    return Series(CURVES[curve], [h for h, _ in there], heights, style, dashed, band, marks=True)


def metric_table(metric: Metric, values: Mapping[str, Any], horizons: list[int]) -> str:
    rows = [
        [CURVES[curve], *(shown(values[curve][str(h)], metric.scale, metric.digits) for h in horizons)]
        for curve in CURVES
        if any(values.get(curve, {}).values())
    ]
    return table([f"{metric.unit}, frames ahead", *map(str, horizons)], rows)


def scalars_section(figures: Mapping[str, Any]) -> str:
    """ΔPSNR, shuffle ratio, one step, consistency, usable horizon: pooled, and a column a task."""
    parts = {"all tasks": figures["pooled"], **figures["tasks"]}
    rows = [
        [words, *(shown(at(of, place), scale, digits) for of in parts.values())]
        for place, words, scale, digits in SCALARS
        if any(at(of, place) is not None for of in parts.values())
    ]
    return "<h2>Control, consistency and usable horizon</h2>" + table(["", *parts], rows)


def pictures_section(out: Path, figures: Mapping[str, Any]) -> str:
    """The strips of every task, and the masks of its object."""
    parts = ["<h2>To look at</h2>"]
    for task in figures["tasks"]:
        for folder, words in (("strips", "frames ahead"), ("masks", "what counts as the object")):
            path = out / folder / f"{task}.png"
            if path.is_file():
                uri = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
                alt = f"{task}: {words}"
                parts.append(figure(f'<img alt="{escape(alt)}" src="{uri}">', alt))
    return "\n".join(parts)


def facts_section(figures: Mapping[str, Any]) -> str:
    """The command, the sampling, the machine."""
    rows = [
        ("run", figures["run"]),
        ("data", figures["data"]),
        ("seed", str(figures["seed"])),
        ("intervals", figures["interval"]),
        *((f"sampling: {key}", str(value)) for key, value in figures["sampling"].items()),
        *((key, str(value)) for key, value in figures["machine"].items()),
    ]
    return f"<h2>How it was made</h2><pre>{escape(figures['command'])}</pre>" + table(
        ["", ""], [list(row) for row in rows], numbers_from=2, narrow=True
    )
