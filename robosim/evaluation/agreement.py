"""From rollouts to figures: success with intervals, distances against random, and where the simulators disagree."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from robosim.evaluation.rollouts import RolloutSet
from robosim.evaluation.statistics import bootstrap_interval, paired_test, wilson_interval
from robosim.spec import SuccessRule, TaskSpec


def task_figures(
    physics: RolloutSet,
    learned: RolloutSet,
    random: RolloutSet,
    judged: np.ndarray,
    task: TaskSpec,
    seed: int,
) -> dict[str, Any]:
    """Everything that the comparison says about one task.

    `physics` and `learned` hold the same policy from the same N starts, row by row; `random` random commands in
    physics from these starts. `judged` [N,T+1] is the judge's distance on the frames of `physics`.
    """
    against_random = paired_test(physics.final_distance, random.final_distance, seed)
    return {
        "episodes": len(physics),
        **_rate("success_learned", learned.success),
        **_rate("success_physics", physics.success),
        **_rate("success_random_physics", random.success),
        "start_distance_m": float(physics.distance[:, 0].mean()),
        "final_distance_learned_m": float(learned.final_distance.mean()),
        "final_distance_physics_m": float(physics.final_distance.mean()),
        "final_distance_random_m": float(random.final_distance.mean()),
        "distance_gain_m": float((random.final_distance - physics.final_distance).mean()),
        "distance_gain_interval_m": _interval(random.final_distance - physics.final_distance, seed),
        "distance_p_value": against_random.p_value,
        **agreement_figures(physics.success, learned.success, seed),
        "judge": judge_figures(physics, judged, task),
        "table": _table(physics, learned, random),
    }


def agreement_figures(physics: np.ndarray, learned: np.ndarray, seed: int) -> dict[str, Any]:
    """How the verdicts [N] of the two simulators on the same episodes relate.

    `bias` is learned − physics; `false_success` = P(learned succeeds | physics fails) and `missed_success` =
    P(learned fails | physics succeeds), None where the condition never held.
    """
    difference = learned.astype(float) - physics.astype(float)
    return {
        "bias": float(difference.mean()),
        "bias_interval": _interval(difference, seed),
        "agreement": float((learned == physics).mean()),
        "false_success": _share(learned, given=~physics),
        "missed_success": _share(~learned, given=physics),
    }


def judge_figures(physics: RolloutSet, judged: np.ndarray, task: TaskSpec) -> dict[str, Any]:
    """The judge on *physics* video, where the truth is known: its error apart from the world model's.

    `error_m` is the mean |judged − true| distance over the frames before an episode ended, `bias_m` the signed one.
    """
    running = np.arange(judged.shape[1]) <= physics.length[:, None]
    error = (judged - physics.distance)[running]
    rule = SuccessRule(task.success_distance, len(judged))
    verdict = np.zeros(len(judged), dtype=bool)
    for distances in judged[:, 1:].T:
        verdict |= rule.update(distances)
    return {
        "error_m": float(np.abs(error).mean()),
        "bias_m": float(error.mean()),
        "agreement": float((verdict == physics.success).mean()),
        "false_success": _share(verdict, given=~physics.success),
        "missed_success": _share(~verdict, given=physics.success),
    }


def finite(figure: float) -> float | None:
    """The figure, or None where it isn't a number: JSON has no NaN."""
    return figure if math.isfinite(figure) else None


def _rate(name: str, success: np.ndarray) -> dict[str, Any]:
    interval = wilson_interval(int(success.sum()), len(success))
    return {name: float(success.mean()), f"{name}_interval": [interval.low, interval.high]}


def _interval(values: np.ndarray, seed: int) -> list[float]:
    interval = bootstrap_interval(values, seed=seed)
    return [interval.low, interval.high]


def _share(event: np.ndarray, given: np.ndarray) -> float | None:
    return float(event[given].mean()) if given.any() else None


def _table(physics: RolloutSet, learned: RolloutSet, random: RolloutSet) -> list[dict[str, Any]]:
    rows = []
    for i in range(len(physics)):
        row: dict[str, Any] = {"seed": int(physics.seeds[i]), "start_m": float(physics.distance[i, 0])}
        for name, rollouts in (("physics", physics), ("learned", learned), ("random", random)):
            row[name] = {
                "success": bool(rollouts.success[i]),
                "final_m": float(rollouts.final_distance[i]),
                "steps": int(rollouts.length[i]),
            }
        rows.append(row)
    return rows
