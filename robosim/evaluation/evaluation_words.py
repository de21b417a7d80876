"""How the figures of evaluation.json are called, in which unit they are shown, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CURVES = {
    "latent": "latent-driven",
    "command": "command-driven",
    "ceiling": "tokenizer's ceiling",
    "repeat_last_raw": "repeat last, raw",
    "repeat_last": "repeat last, coded",
    "nearest": "nearest training clip",
    "true": "probe on true frames",
    "latent_repeat_last": "latent-driven − repeat last, coded",
    "latent_nearest": "latent-driven − nearest clip",
    "latent_ceiling": "latent-driven − ceiling",
    "command_repeat_last": "command-driven − repeat last, coded",
    "command_nearest": "command-driven − nearest clip",
    "command_ceiling": "command-driven − ceiling",
}
"""What is shown in place of the true frames, in the order of tables; then differences of two."""

STYLES = {
    "latent": ("learned", False),
    "command": ("physics", False),
    "ceiling": ("ceiling", False),
    "repeat_last_raw": ("random", True),
    "repeat_last": ("random", False),
    "nearest": ("other", False),
    "true": ("other", True),
    "latent_repeat_last": ("learned", False),
    "latent_nearest": ("other", False),
    "latent_ceiling": ("ceiling", False),
    "command_repeat_last": ("physics", True),
    "command_nearest": ("other", True),
    "command_ceiling": ("ceiling", True),
}
"""Colour class of report.css, and whether the line is dashed."""


@dataclass(frozen=True)
class Metric:
    """One figure by curve and horizon."""

    name: str
    title: str
    unit: str
    meaning: str
    scale: float = 1.0
    digits: int = 1
    from_zero: bool = False


METRICS = (
    Metric(
        "moving_psnr_db",
        "PSNR on moving pixels",
        "dB",
        "Of the mean squared error, pooled over the pixels that differ by more than 0.04 in any channel between the "
        "last context frame and the true frame. Higher is better.",
    ),
    Metric(
        "moving_psnr_gain_db",
        "PSNR on moving pixels, against floors and ceiling",
        "dB",
        "Differences of the curves above, on the same pixels; so are their intervals. Above 0 beats the floor.",
    ),
    Metric(
        "psnr_db", "PSNR on all pixels", "dB", "A still background counts too: repeat-last copies it exactly."
    ),
    Metric(
        "moving_ssim",
        "SSIM on moving pixels",
        "0 … 1",
        "Mean of the SSIM map (Gaussian window, σ = 1.5 pixels) over the moving pixels. Higher is better.",
        digits=3,
    ),
    Metric("ssim", "SSIM on all pixels", "0 … 1", "Mean of the SSIM map over all pixels.", digits=3),
    Metric("lpips", "LPIPS", "AlexNet", "Mean distance of deep features. Lower is better.", 1, 3, True),
    Metric(
        "tool_drift_m",
        "Tool drift",
        "cm",
        "Mean distance between the true position of the tool and what the probe reads off the frames; beside it the "
        "probe's own error, on the true frames. Lower is better.",
        100,
        1,
        True,
    ),
    Metric(
        "tool_drift_from_probe_m",
        "Tool drift by the probe alone",
        "cm",
        "Mean distance between what the probe reads off the shown and off the true frame.",
        100,
        1,
        True,
    ),
    Metric(
        "object_drift_m",
        "Object drift",
        "cm",
        "As tool drift, of the object, in tasks that have one.",
        100,
        1,
        True,
    ),
    Metric(
        "object_drift_from_probe_m",
        "Object drift by the probe alone",
        "cm",
        "As above, of the object.",
        100,
        1,
        True,
    ),
    Metric(
        "foreground_area_ratio",
        "Arm and things, area",
        "shown / true",
        "Pixels that differ by more than 0.12 from the training video's background, shown / true, of all stretches "
        "together: 1 keeps the arm, towards 0 it fades away.",
        1,
        2,
        True,
    ),
    Metric(
        "object_iou",
        "Object mask, overlap",
        "IoU",
        "Pixels in the object's colours in both the shown and the true frame, of those in either. Higher is better.",
        1,
        2,
        True,
    ),
    Metric(
        "object_area_ratio",
        "Object mask, area",
        "shown / true",
        "Pixels in the object's colours, shown / true, of all stretches together: 1 keeps the object's size.",
        1,
        2,
        True,
    ),
    Metric(
        "object_area_error",
        "Object mask, error of its area",
        "share of true",
        "Mean of |shown − true| / mean of true, in pixels: 0 is right in every stretch. An object that vanished "
        "doesn't make up for one that doubled. Lower is better.",
        1,
        2,
        True,
    ),
)

SCALARS = (
    ("delta_psnr_db", "ΔPSNR after 4 frames, dB", 1.0, 2),
    ("shuffle_ratio", "loss with another clip's latent actions / with its own", 1.0, 2),
    ("one_step_moving_psnr_db.inferred", "one step by inferred latent actions, moving PSNR, dB", 1.0, 1),
    ("one_step_moving_psnr_db.shuffled", "one step by shuffled latent actions, moving PSNR, dB", 1.0, 1),
    ("one_step_moving_psnr_db.repeat_last", "repeat-last, one step, moving PSNR, dB", 1.0, 1),
    ("consistency.same_sequence", "tool directions agree, same latent actions: cosine", 1.0, 2),
    ("consistency.different_sequences", "control, different latent actions: cosine", 1.0, 2),
    (
        "consistency.same_joint_motion",
        "for reference, the true joint motion by the arm's kinematics: cosine",
        1.0,
        2,
    ),
    ("usable_horizon.latent", "usable horizon, latent-driven, frames", 1.0, 0),
    ("usable_horizon.command", "usable horizon, command-driven, frames", 1.0, 0),
)
"""Figures without a horizon: place in the tree, words, scale, digits."""

MEANINGS = (
    ("latent-driven", "Rolled out by the latent actions that are inferred from the true video."),
    (
        "command-driven",
        "Rolled out by the recorded commands through the adapter, as LearnedEnv does; the joints are its own.",
    ),
    ("tokenizer's ceiling", "The true frames through the tokenizer: the model can't do better."),
    ("repeat last", "The last context frame, for ever: raw, and coded by the tokenizer."),
    (
        "nearest training clip",
        "Of the training frames that look most like the last context frame, the one whose next latent actions are "
        "nearest; what followed it is shown. It knows no more than memory.",
    ),
    (
        "the probe",
        "Reads tool and object off a frame. Each task has its own, fitted for this evaluation on five frames each of "
        "up to 60 training episodes; where those are too few the adapter's reads, and what is missing says so.",
    ),
    (
        "ΔPSNR",
        "PSNR by the inferred latent actions minus PSNR by those of another clip of the task, after 4 frames.",
    ),
    (
        "usable horizon",
        "The last frame up to which the mean tool drift never exceeds 3 cm; it can't be longer than the longest "
        "horizon asked for (long= included) or the longest held-out stretch.",
    ),
    (
        "consistency",
        "The same 8 latent actions from different start frames: mean cosine of the tool's displacements. The control "
        "pairs different sequences; where both agree, everything moves the same way anyhow.",
    ),
    (
        "the object's mask",
        "Pixels in those colours of a task's true frames that lie around the object, denser than elsewhere and than "
        "around the goal, and don't follow the tool.",
    ),
    ("interval", "95 % percentile bootstrap over episodes; sums are pooled within each resample."),
)


def at(tree: Mapping[str, Any], place: str) -> Any:
    """The part of nested dicts at a dotted place; None where there is none."""
    part: Any = tree
    for name in place.split("."):
        part = part.get(name) if isinstance(part, Mapping) else None
    return part


def columns(figures: Mapping[str, Any]) -> list[int]:
    """Horizons of tables: those asked for, and the long one where a stretch is so long."""
    long, reaches = figures["long"], [task["reach"] for task in figures["stretches"].values()]
    reached = long and any(reach[str(long)] for reach in reaches)
    return sorted({*figures["horizons"], *([long] if reached else [])})


def shown(figure: Mapping[str, Any] | None, scale: float, digits: int, interval: bool = True) -> str:
    """A figure as text: 21.3 (20.1 to 22.4); – where there is none."""
    if figure is None:
        return "–"
    text = f"{figure['value'] * scale:.{digits}f}"
    if not interval or figure["low"] is None:
        return text
    return f"{text} ({figure['low'] * scale:.{digits}f} to {figure['high'] * scale:.{digits}f})"
