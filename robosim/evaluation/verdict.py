"""Whether to trust a learned simulator, in words that follow from the figures by fixed rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from robosim.spec import CONTROL_HZ

LATENT_BAR_DB = 4.0
FIDELITY_BAR_DB = 2.0
CONTROL_BAR_DB = 1.5
BIAS_BAR = 0.05
FALSE_SUCCESS_BAR = 0.10
JUDGE_BAR = 0.90
P_BAR = 0.05
FEWEST_STARTS = 20
COMMAND_HORIZON = "8"


@dataclass(frozen=True)
class Check:
    """One question, what was measured, the bar, and whether it was cleared (None: couldn't be told)."""

    question: str
    measured: str
    bar: str
    passed: bool | None


def checks(summary: dict[str, Any]) -> list[Check]:
    """Every question that decides about trust, in the order of the chain from pixels to policy."""
    result = [*_video_checks(summary), _command_check(summary)]
    for task, figures in summary["policy"].items():
        result += [_policy_check(task, figures), _score_check(task, figures), _judge_check(task, figures)]
    return result


def _video_checks(summary: dict[str, Any]) -> list[Check]:
    latent, dynamics = summary["latent_action"], summary["dynamics"]
    carried = latent["psnr_db"] - latent["shuffled_psnr_db"]
    gains = [
        _gain(dynamics["moving_psnr_db"], dynamics["repeat_last_moving_psnr_db"], horizon)
        for horizon in ("4", "8")
    ]
    delta = dynamics["delta_psnr_db"]
    return [
        Check(
            "Do the latent actions carry the motion?",
            f"{latent['psnr_db']:.1f} dB with the inferred ones, {latent['shuffled_psnr_db']:.1f} dB shuffled",
            f"≥ {LATENT_BAR_DB:g} dB apart",
            carried >= LATENT_BAR_DB,
        ),
        Check(
            "Does it predict motion better than a still picture?",
            f"{_signed(gains[0])} dB after 4 frames, {_signed(gains[1])} dB after 8",
            f"≥ {FIDELITY_BAR_DB:g} dB at both",
            None if None in gains else all(gain is not None and gain >= FIDELITY_BAR_DB for gain in gains),
        ),
        Check(
            "Do its actions decide what happens?",
            f"random actions cost {delta:.1f} dB after 4 frames",
            f"≥ {CONTROL_BAR_DB:g} dB",
            delta >= CONTROL_BAR_DB,
        ),
    ]


def _command_check(summary: dict[str, Any]) -> Check:
    replay = summary["replay"]
    gains = _command_gains(replay, COMMAND_HORIZON)
    still, other = gains or (None, None)
    return Check(
        "Does it follow recorded joint commands?",
        f"{_signed(still)} dB over a still picture, {_signed(other)} dB over another clip's motions, "
        f"after {COMMAND_HORIZON} frames",
        f"≥ {CONTROL_BAR_DB:g} dB over both",
        None if gains is None else min(gains) >= CONTROL_BAR_DB,
    )


def _command_gains(replay: dict[str, Any], horizon: str) -> tuple[float, float] | None:
    """PSNR of recorded commands over a still picture, and over another clip's motions."""
    still = _gain(replay["moving_psnr_db"], replay["repeat_last_moving_psnr_db"], horizon)
    other = _gain(replay["moving_psnr_db"], replay["other_motions_moving_psnr_db"], horizon)
    return None if still is None or other is None else (still, other)


def _policy_check(task: str, figures: dict[str, Any]) -> Check:
    return Check(
        f"{task}: does the policy beat random commands in physics?",
        f"success {figures['success_physics']:.0%} against {figures['success_random_physics']:.0%}; "
        f"distance {100 * figures['final_distance_physics_m']:.1f} cm against "
        f"{100 * figures['final_distance_random_m']:.1f} cm (p {p_text(figures['distance_p_value'])})",
        f"intervals apart, or nearer at p < {P_BAR:g}",
        beats_random(figures),
    )


def _score_check(task: str, figures: dict[str, Any]) -> Check:
    low, high = figures["bias_interval"]
    false = figures["false_success"]
    told = "never failed in physics" if false is None else f"false success {false:.0%}"
    return Check(
        f"{task}: is success in the learned simulator success in physics?",
        f"bias {_points(figures['bias'])} points (95 % interval {_points(low)} to {_points(high)}); {told}",
        f"bias within ± {100 * BIAS_BAR:g} points, false success ≤ {FALSE_SUCCESS_BAR:.0%}, "
        f"from {FEWEST_STARTS} starts with some success",
        abs(figures["bias"]) <= BIAS_BAR and (false is None or false <= FALSE_SUCCESS_BAR)
        if decidable(figures)
        else None,
    )


def decidable(figures: dict[str, Any]) -> bool:
    """Whether verdicts were put to the test: enough starts, and not failures alone, which any judge gets right."""
    succeeds = figures["success_physics"] > 0 or figures["success_learned"] > 0
    return figures["episodes"] >= FEWEST_STARTS and succeeds


def _judge_check(task: str, figures: dict[str, Any]) -> Check:
    judge = figures["judge"]
    return Check(
        f"{task}: is the judge right about physics video?",
        f"{judge['agreement']:.0%} of the verdicts; distance off by {100 * judge['error_m']:.1f} cm on average",
        f"≥ {JUDGE_BAR:.0%} of the verdicts, from {FEWEST_STARTS} starts with some success",
        judge["agreement"] >= JUDGE_BAR if decidable(figures) else None,
    )


def beats_random(figures: dict[str, Any]) -> bool:
    """In physics: the 95 % intervals of success don't overlap, or it ends nearer to the goal (paired, p < .05)."""
    apart = figures["success_physics_interval"][0] > figures["success_random_physics_interval"][1]
    return apart or (figures["distance_gain_m"] > 0 and figures["distance_p_value"] < P_BAR)


def headline(summary: dict[str, Any]) -> list[str]:
    """The verdict in plain sentences: what it can do, and what it must not be used for."""
    policies = summary["policy"]
    video = all(check.passed for check in _video_checks(summary))
    useful = [task for task, figures in policies.items() if beats_random(figures)]
    scored = [task for task, figures in policies.items() if _score_check(task, figures).passed]
    useless, wrong = ([task for task in policies if task not in good] for good in (useful, scored))
    sentences = [
        "It has learned how pictures change and what its actions do."
        if video
        else "As a simulator of pictures it isn't there yet: it fails a check on held-out video below.",
        _reach_sentence(summary["replay"]),
    ]
    if useful:
        not_yet = f" (not yet on {_listed(useless)})" if useless else ""
        sentences.append(
            f"In physics, the policy trained inside it beats random commands on {_listed(useful)}{not_yet}."
        )
    else:
        sentences.append("The policies trained inside it are no better in physics than random commands.")
    if wrong:
        sentences.append(
            f"Don't read success inside it as success in physics on {_listed(wrong)}: check in physics."
        )
    else:
        sentences.append("Success inside it can be read as success in physics, within the intervals below.")
    return sentences


def usable_horizon(replay: dict[str, Any]) -> int:
    """The last horizon up to which recorded commands beat a still picture and another clip's motions by the bar.

    0 when they don't even after one frame.
    """
    last = 0
    for horizon in sorted(replay["moving_psnr_db"], key=int):
        gains = _command_gains(replay, horizon)
        if gains is None or min(gains) < CONTROL_BAR_DB:
            break
        last = int(horizon)
    return last


def _reach_sentence(replay: dict[str, Any]) -> str:
    reach = usable_horizon(replay)
    if not reach:
        return "Driven by recorded joint commands it strays from what the camera saw at once."
    end = "as far as was checked" if reach == max(map(int, replay["moving_psnr_db"])) else "but no longer"
    return (
        f"Driven by recorded joint commands it stays well above a still picture for {reach} frames "
        f"({reach / CONTROL_HZ:g} s), {end}; the tool is then {100 * replay['tool_drift_m'][str(reach)]:.0f} cm off."
    )


def p_text(p_value: float) -> str:
    return "< .001" if p_value < 0.001 else f"= {p_value:.3f}"


def _gain(model: dict[str, Any], baseline: dict[str, Any], horizon: str) -> float | None:
    ours, theirs = model.get(horizon), baseline.get(horizon)
    return None if ours is None or theirs is None else ours - theirs


def _signed(value: float | None) -> str:
    return "?" if value is None else f"{value:+.1f}".replace("-", "−")


def _points(share: float) -> str:
    return f"{100 * share:+.0f}".replace("-", "−")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
