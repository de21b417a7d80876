"""report.html: one self-contained page about a run. No script, nothing fetched."""

from __future__ import annotations

import sys
from html import escape
from importlib.resources import files
from pathlib import Path

from robosim.checkpoint import atomic_write_bytes, read_json
from robosim.evaluation import sections
from robosim.evaluation.page import definitions
from robosim.evaluation.summary import build_summary
from robosim.spec import CONTROL_HZ

DEFINITIONS = (
    (
        "PSNR",
        "−10 · log₁₀ of the mean squared error (colours in 0…1), pooled over all frames and pixels of the set.",
    ),
    (
        "moving pixels",
        "Pixels that differ by more than 0.04 in any channel between the first frame and the one scored.",
    ),
    (
        "still picture",
        "The first frame, repeated, through the tokenizer: what a model scores that predicts no motion.",
    ),
    ("ceiling", "The true frame through the tokenizer: the model can't do better."),
    ("random latents", "The model driven by the latent actions of another clip. The loss in PSNR is ΔPSNR."),
    (
        "another clip's",
        "The learned simulator driven by another held-out clip's joint motions from the same start.",
    ),
    (
        "drift",
        "Mean distance between true positions and those the probe reads off predicted frames, its own error included.",
    ),
    ("success", "The task distance stays within the task's threshold for 3 frames; it ends the episode."),
    (
        "random",
        "In physics, each joint moves at a random speed, redrawn every half second, within recorded ranges.",
    ),
    ("Wilson interval", "95 % score interval of a success rate."),
    ("paired p", "Two-sided sign-flip test on the differences of final distance, start by start."),
    ("bias", "Success in the learned simulator minus success in physics, same policy, same starts."),
    (
        "false success",
        "P(learned succeeds | physics fails); missed success is P(learned fails | physics succeeds).",
    ),
    (
        "judge",
        "Reads the distance off a frame. On physics video its error is its own, not the world model's.",
    ),
)


def write_report(run: Path, report_seconds: float | None = None, command: str | None = None) -> Path:
    """Write `run`/report.html from the run's manifests, compare/ and training logs; return its path.

    `report_seconds` is how long the report stage took so far; `command` is shown as what made the run (default:
    this process's command line). Raises `CheckpointError` when a stage is missing or a file is damaged.
    """
    summary = build_summary(run, report_seconds)
    compared = read_json(run / "compare" / "compare.json")
    tables = {task: figures["table"] for task, figures in compared["tasks"].items()}
    fps = CONTROL_HZ
    body = "\n".join(
        [
            sections.head(summary),
            sections.trust(summary),
            sections.films(run, summary, fps),
            sections.strips(run, summary, fps),
            sections.fidelity(summary),
            sections.policies(run, summary, fps),
            sections.agreement(summary),
            sections.parts_table(summary),
            sections.losses(run),
            sections.run_facts(summary, command or command_line()),
            "<h2>What the words mean</h2>",
            definitions(DEFINITIONS),
            sections.episodes(tables),
        ]
    )
    path = run / "report.html"
    atomic_write_bytes(path, page(run.name, body).encode())
    return path


def page(name: str, body: str) -> str:
    """The whole document around `body`."""
    style = files("robosim.evaluation").joinpath("report.css").read_text()
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>robosim · {escape(name)}</title><style>\n{style}</style></head><body>\n"
        f'<p class="kicker">robosim · learned simulator against physics</p><h1>{escape(name)}</h1>\n{body}\n'
        "<footer>One file, no script, nothing fetched. The figures are in summary.json, the rollouts in "
        "rollouts.rrd (open it with: rerun rollouts.rrd).</footer></body></html>\n"
    )


def command_line() -> str:
    """How this process was called, without the path of the executable."""
    return " ".join([Path(sys.argv[0]).name or "python", *sys.argv[1:]])
