import numpy as np
import pytest

from robosim.evaluation.agreement import agreement_figures, judge_figures, task_figures
from robosim.evaluation.policies import RandomPolicy
from robosim.evaluation.rollouts import run_policy

SEEDS = list(range(20))


@pytest.fixture
def sets(make_env, seek_policy, recorded_range):
    physics = run_policy(make_env(20), seek_policy, SEEDS)
    start = {"agent_pos": physics.agent_pos[:, 0], "goal": physics.goal[:, 0]}
    learned = run_policy(make_env(20, slip=0.12), seek_policy, SEEDS, options=start)
    random = run_policy(make_env(20), RandomPolicy(recorded_range, SEEDS), SEEDS)
    return physics, learned, random


def test_figures_of_a_task(sets, env_spec):
    physics, learned, random = sets
    figures = task_figures(physics, learned, random, physics.distance, env_spec.task("reach"), seed=0)
    assert figures["success_physics"] == 1.0 > figures["success_random_physics"]
    low, high = figures["success_physics_interval"]
    assert low < 1.0 == high and low > figures["success_random_physics_interval"][1]
    assert figures["final_distance_physics_m"] < figures["final_distance_random_m"]
    assert figures["distance_p_value"] < 0.001
    gain = figures["final_distance_random_m"] - figures["final_distance_physics_m"]
    assert figures["distance_gain_m"] == pytest.approx(gain, abs=1e-6)
    assert figures["distance_gain_interval_m"][0] < gain < figures["distance_gain_interval_m"][1]
    assert figures["bias"] == pytest.approx(figures["success_learned"] - 1.0)
    assert len(figures["table"]) == figures["episodes"] == 20
    assert figures["table"][3]["learned"]["steps"] == learned.length[3]


def test_both_directions_of_disagreement():
    physics = np.array([True, True, False, False, False])
    learned = np.array([True, False, True, False, True])
    figures = agreement_figures(physics, learned, seed=0)
    assert figures["bias"] == pytest.approx(0.2)
    assert figures["agreement"] == pytest.approx(0.4)
    assert figures["false_success"] == pytest.approx(2 / 3)
    assert figures["missed_success"] == pytest.approx(0.5)
    assert agreement_figures(np.ones(3, bool), np.ones(3, bool), 0)["false_success"] is None


def test_the_judge_is_measured_on_running_frames_only(sets, env_spec):
    physics = sets[0]
    task = env_spec.task("reach")
    judged = physics.distance + 0.01
    for row, length in enumerate(physics.length):
        judged[row, length + 1 :] = 99.0
    figures = judge_figures(physics, judged, task)
    assert figures["error_m"] == pytest.approx(0.01, abs=1e-6) == figures["bias_m"]
    exact = judge_figures(physics, physics.distance, task)
    assert (exact["agreement"], exact["missed_success"]) == (1.0, 0.0)
    blind = judge_figures(physics, physics.distance + 1, task)
    assert (blind["agreement"], blind["missed_success"]) == (0.0, 1.0)
