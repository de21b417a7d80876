"""The sections of the report, each a function from figures and rollouts to HTML."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from robosim.evaluation.charts import Bar, Series, clock, duration_chart, interval_chart, line_chart
from robosim.evaluation.page import fact, figure, film, strip_figure, table
from robosim.evaluation.rollouts import load_arrays, load_rollouts
from robosim.evaluation.summary import STAGES
from robosim.evaluation.verdict import Check, checks, headline, p_text

REPLAY_LINES = (
    ("recorded commands", "moving_psnr_db", "learned", False),
    ("another clip's", "other_motions_moving_psnr_db", "other", False),
    ("still picture", "repeat_last_moving_psnr_db", "random", True),
    ("tokenizer's ceiling", "ceiling_moving_psnr_db", "ceiling", True),
)

FILMS = 2
"""Episodes a task that are shown as films."""

DYNAMICS_LINES = (
    ("model", "moving_psnr_db", "learned", False),
    ("random latents", "random_latents_moving_psnr_db", "other", False),
    ("still picture", "repeat_last_moving_psnr_db", "random", True),
    ("tokenizer's ceiling", "ceiling_moving_psnr_db", "ceiling", True),
)


def origin(dynamics: dict[str, Any], video: dict[str, Any]) -> str:
    """What the simulator learned from: this video, the weights of another, or both."""
    seen = f"{video['episodes']} episodes of video ({video['frames']:,} frames)"
    start = dynamics.get("init")
    if start is None:
        return f"A simulator learned from {seen}"
    if dynamics["train"]:
        return f"The simulator {start}, trained on with {seen}"
    return f"The simulator {start} as it is, on {seen}"


def taught(adapter: dict[str, Any]) -> str:
    """Where the maps between commands and latent actions come from."""
    labels = f"{adapter['labels']} labelled transitions"
    if "maps_from" in adapter:
        return f"through the adapter of {adapter['maps_from']} and read by a probe of {labels}"
    return f"after {labels}"


def head(summary: dict[str, Any]) -> str:
    """What was made, and whether to trust it."""
    video, total = summary["video"], summary["wall_seconds"]["total"]
    made = (
        f"{origin(summary['dynamics'], video)}, driven by joint commands {taught(summary['adapter'])}, "
        f"in {clock(total)}."
    )
    verdict = " ".join(headline(summary))
    facts = [
        fact(
            f"{summary['dynamics']['moving_psnr_db'].get('8') or float('nan'):.1f} dB",
            "PSNR of moving pixels, 8 frames ahead",
        ),
        fact(f"{summary['dynamics']['frames_per_second']:.0f}", "simulated frames a second, one rollout"),
    ]
    for task, figures in summary["policy"].items():
        facts.append(
            fact(
                f"{figures['success_physics']:.0%}",
                f"{task}: success in physics (learned {figures['success_learned']:.0%}, "
                f"random {figures['success_random_physics']:.0%})",
            )
        )
    return (
        f'<p class="lead">{escape(made)}</p><p class="lead">{escape(verdict)}</p>'
        f'<div class="facts">{"".join(facts)}</div>'
    )


def trust(summary: dict[str, Any]) -> str:
    rows = "".join(_check_row(check) for check in checks(summary))
    return (
        "<h2>Can it be trusted?</h2><p>Each question has a bar that was fixed beforehand. "
        "All figures are from held-out episodes.</p>"
        '<div class="scroll"><table><thead><tr><th></th><th>question</th><th>measured</th><th>bar</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _check_row(check: Check) -> str:
    style, word = {True: ("yes", "✓ yes"), False: ("no", "✗ no"), None: ("unknown", "? open")}[check.passed]
    cells = "".join(f"<td>{escape(text)}</td>" for text in (check.question, check.measured, check.bar))
    return f'<tr><td class="mark {style}">{word}</td>{cells}</tr>'


def films(run: Path, summary: dict[str, Any], fps: int) -> str:
    """The same policy from the same start in both simulators."""
    parts = ["<h2>The same policy in both simulators</h2>"]
    parts.append('<p class="note">Left physics, right the learned simulator; the first frame is shared.</p>')
    for task in summary["policy"]:
        physics = load_rollouts(run / "compare" / f"{task}_physics.npz")
        learned = load_rollouts(run / "compare" / f"{task}_learned.npz")
        shown = []
        for row in range(min(FILMS, len(physics.frames), len(learned.frames))):
            last = int(max(physics.length[row], learned.length[row])) + 1
            words = [
                f"{name}: {'success' if s.success[row] else 'no success'}, {100 * s.final_distance[row]:.1f} cm left"
                for name, s in (("physics", physics), ("learned", learned))
            ]
            caption = "; ".join(words)
            shown.append(film(physics.frames[row, :last], learned.frames[row, :last], caption, fps))
        parts.append(f'<h3>{escape(task)}</h3><div class="films">{"".join(shown)}</div>')
    return "\n".join(parts)


def strips(run: Path, summary: dict[str, Any], fps: int) -> str:
    """True, predicted and error frames: by recorded commands, and by inferred latent actions."""
    parts = [
        "<h2>Held-out episodes, true and predicted</h2>",
        '<p class="note">Driven by commands, the learned simulator sees the first frame only. '
        "Errors are shown twice as strong.</p>",
    ]
    for task in summary["policy"]:
        path = run / "compare" / f"{task}_replay.npz"
        if path.is_file():
            clips = load_arrays(path)
            row = liveliest(clips["true"])
            caption = f"{task}: driven by the recorded joint commands of a held-out episode."
            parts.append(strip_figure(clips["true"][row], clips["predicted"][row], caption, fps))
    path = run / "dynamics" / "strips.npz"
    if path.is_file():
        clips = load_arrays(path)
        row = liveliest(clips["true"])
        true, predicted = clips["true"][row], clips["predicted"][row]
        caption = (
            "The world model alone, driven by latent actions that were inferred from the true frames; "
            f"the first {given_frames(true, predicted)} frames are given."
        )
        parts.append(strip_figure(true, predicted, caption, fps))
    return "\n".join(parts)


def liveliest(videos: np.ndarray) -> int:
    """The row of uint8 [n,T,H,W,3] in which most pixels change: a fixed rule, blind to the prediction."""
    change = np.abs(videos[:, 1:].astype(np.int16) - videos[:, :1].astype(np.int16))
    return int(change.mean(axis=(1, 2, 3, 4)).argmax())


def given_frames(true: np.ndarray, predicted: np.ndarray) -> int:
    """How many frames of [T,H,W,3] a prediction was given: they are equal."""
    return int(np.cumprod((true == predicted).all(axis=(1, 2, 3))).sum())


def fidelity(summary: dict[str, Any]) -> str:
    dynamics, replay = summary["dynamics"], summary["replay"]
    charts = [
        _horizon_chart(dynamics, DYNAMICS_LINES, "The world model alone, by inferred latent actions"),
        _horizon_chart(replay, REPLAY_LINES, f"By recorded joint commands, {replay['clips']} clips"),
    ]
    horizons = sorted(replay["tool_drift_m"], key=int)
    rows = (
        ("tool", "tool_drift_m"),
        ("tool: error of the probe alone", "tool_probe_error_m"),
        ("object", "object_drift_m"),
        ("object: error of the probe alone", "object_probe_error_m"),
    )
    drift = [
        [name, *(f"{100 * replay[key][h]:.1f} cm" for h in horizons)] for name, key in rows if key in replay
    ]
    return (
        "<h2>How far ahead does it see?</h2><p>Only pixels that move are scored: a still background makes any model "
        "look good. A <em>still picture</em> repeats the first frame through the tokenizer; the <em>ceiling</em> is "
        "what the tokenizer keeps of the true frame.</p>"
        f'<div class="charts">{"".join(charts)}</div>'
        "<h3>Drift under recorded commands</h3>"
        + table(["mean distance from the truth", *(f"after {h}" for h in horizons)], drift, narrow=True)
    )


def _horizon_chart(figures: dict[str, Any], lines: Sequence[tuple[str, str, str, bool]], caption: str) -> str:
    series = []
    for name, key, style, dashed in lines:
        points = [(int(h), v) for h, v in figures.get(key, {}).items() if v is not None]
        if points:
            x, y = zip(*sorted(points), strict=True)
            series.append(Series(name, x, y, style, dashed, marks=not dashed))
    ticks = sorted(int(h) for h in figures["moving_psnr_db"])
    return figure(line_chart(series, "frames ahead", "PSNR of moving pixels, dB", ticks), caption)


def policies(run: Path, summary: dict[str, Any], fps: int) -> str:
    bars, charts, rows = [], [], []
    for task, figures in summary["policy"].items():
        count = figures["episodes"]
        for key, name, style in (
            ("success_physics", "physics", "physics"),
            ("success_learned", "learned simulator", "learned"),
            ("success_random_physics", "random, physics", "random"),
        ):
            low, high = figures[f"{key}_interval"]
            bars.append(Bar(f"{task}, {count} starts", name, style, figures[key], low, high))
        charts.append(_distance_chart(run, task, fps))
        low, high = figures["distance_gain_interval_m"]
        rows.append(
            [
                task,
                f"{100 * figures['start_distance_m']:.1f}",
                *(
                    f"{100 * figures[f'final_distance_{who}_m']:.1f}"
                    for who in ("physics", "learned", "random")
                ),
                f"{100 * figures['distance_gain_m']:.1f} ({100 * low:.1f} to {100 * high:.1f})".replace(
                    "-", "−"
                ),
                p_text(figures["distance_p_value"]).removeprefix("= "),
            ]
        )
    columns = [
        "distance to the goal, cm",
        "start",
        "physics",
        "learned",
        "random",
        "nearer than random",
        "paired p",
    ]
    return (
        "<h2>Policies trained inside the learned simulator</h2><p>The same policy from the same starts in both "
        "simulators, random commands in physics as the floor. Dots are success rates, bars 95 % Wilson "
        "intervals.</p>"
        + figure(interval_chart(bars))
        + f'<div class="charts">{"".join(charts)}</div>'
        + table(columns, rows)
    )


def _distance_chart(run: Path, task: str, fps: int) -> str:
    series = []
    for name in ("physics", "learned", "random"):
        distance = 100 * load_rollouts(run / "compare" / f"{task}_{name}.npz").distance
        low, middle, high = np.quantile(distance, [0.25, 0.5, 0.75], axis=0)
        seconds = (np.arange(distance.shape[1]) / fps).tolist()
        band = list(zip(low.tolist(), high.tolist(), strict=True))
        series.append(Series(name, seconds, middle.tolist(), name, band=band))
    caption = f"{task}: median distance, and the middle half of the episodes"
    return figure(line_chart(series, "seconds", "distance to the goal, cm", from_zero=True), caption)


def agreement(summary: dict[str, Any]) -> str:
    rows = []
    for task, figures in summary["policy"].items():
        judge = figures["judge"]
        rows.append(
            [
                task,
                f"{100 * figures['bias']:+.0f} points".replace("-", "−"),
                *(_percent(figures[name]) for name in ("agreement", "false_success", "missed_success")),
                _percent(judge["agreement"]),
                f"{100 * judge['error_m']:.1f} cm",
            ]
        )
    columns = [
        "learned against physics",
        "bias",
        "same verdict",
        "false success",
        "missed success",
        "judge right on physics video",
        "judge's distance error",
    ]
    return "<h2>Where the simulators disagree</h2>" + table(columns, rows)


def parts_table(summary: dict[str, Any]) -> str:
    """Tokenizer, latent actions and adapter in figures."""
    tokenizer, latent, adapter = summary["tokenizer"], summary["latent_action"], summary["adapter"]
    maps = f"; commands by the maps of {adapter['maps_from']}" if "maps_from" in adapter else ""
    rows = [
        ["tokenizer: all pixels, reconstructed", f"{tokenizer['psnr_db']:.1f} dB"],
        ["tokenizer: moving pixels, reconstructed", f"{tokenizer['moving_psnr_db']:.1f} dB"],
        ["tokenizer: codes in use", f"{tokenizer['codes_used']:,}"],
        ["latent actions: moving pixels one step ahead, inferred", f"{latent['psnr_db']:.1f} dB"],
        ["latent actions: the same, shuffled", f"{latent['shuffled_psnr_db']:.1f} dB"],
        ["adapter: labels", f"{adapter['labels']} transitions of {adapter['episodes']} episodes{maps}"],
        ["adapter: command error, joints", _measure(adapter["command_mae_rad"], 1, "rad", 4)],
        ["adapter: command error, tool", _measure(adapter["tool_mae_m"], 100, "cm", 2)],
        ["adapter: probe error", _measure(adapter["probe_error_m"], 100, "cm", 2)],
    ]
    return "<h2>The parts</h2>" + table(["held-out figure", "value"], rows, narrow=True)


def _measure(value: Any, factor: float, unit: str, digits: int) -> str:
    """One number, or several by name, in `unit`."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_measure(entry, factor, unit, digits)}" for name, entry in value.items())
    return f"{factor * value:.{digits}f} {unit}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def losses(run: Path) -> str:
    """One curve a trained model; the rounds of a policy follow one another."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for folder in STAGES.values():
        for path in sorted((run / folder).glob("**/metrics.jsonl")):
            place = path.parent.parent if path.parent.name.startswith("round_") else path.parent
            steps, values = curves.setdefault(place.relative_to(run).as_posix(), ([], []))
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            offset = steps[-1] if steps else 0
            steps += [offset + row["step"] for row in rows]
            values += [row["loss"] for row in rows]
    charts = [
        figure(line_chart([Series("", steps, values, "physics")], "step", "loss", size=(300, 180)), name)
        for name, (steps, values) in curves.items()
        if len(steps) > 1
    ]
    return f'<h2>Training</h2><div class="losses">{"".join(charts)}</div>' if charts else ""


def run_facts(summary: dict[str, Any], command: str) -> str:
    seconds = {name: value for name, value in summary["wall_seconds"].items() if name != "total"}
    machine = summary["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("robosim", "torch", "mujoco", "lerobot"))
    place = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB"
    rows = [
        ["machine", place + (f", {machine['gpu']}" if "gpu" in machine else "")],
        ["software", f"{versions}, Python {machine['python']}, {machine['system']}"],
        ["seed", str(summary["seed"])],
        ["time", clock(summary["wall_seconds"]["total"])],
    ]
    return (
        f"<h2>How it was made</h2><pre><code>{escape(command)}</code></pre>"
        + table(["", ""], rows, numbers_from=9)
        + figure(duration_chart(list(seconds.items())), "Wall-clock time of the stages, one after another.")
    )


def episodes(tables: dict[str, list[dict[str, Any]]]) -> str:
    """Every compared episode, folded away."""
    parts = ["<h2>Every episode</h2>"]
    for task, rows in tables.items():
        lines = []
        for row in rows:
            cells = [str(row["seed"]), f"{100 * row['start_m']:.1f}"]
            for name in ("physics", "learned", "random"):
                result = row[name]
                cells.append(f"{'✓' if result['success'] else '·'} {100 * result['final_m']:.1f}")
            lines.append(cells)
        columns = ["start seed", "start, cm", "physics", "learned", "random"]
        parts.append(
            f"<details><summary>{escape(task)}: {len(rows)} episodes, success and final distance in cm</summary>"
            f"{table(columns, lines)}</details>"
        )
    return "\n".join(parts)
