import math

import numpy as np
import pytest

from robosim.evaluation.statistics import (
    bootstrap_interval,
    mmrv,
    mmrv_noise_floor,
    paired_test,
    pearson,
    wilson_interval,
)

# Success rates published by SimplerEnv (Li et al. 2024): real robot, simulator.
PICK_REAL = [0.907, 0.853, 0.920, 0.760, 0.133, 0.293]
PICK_SIM = [0.787, 0.857, 0.710, 0.567, 0.027, 0.170]
MOVE_REAL = [0.733, 0.633, 0.583, 0.450, 0.017, 0.350]
MOVE_SIM = [0.779, 0.442, 0.354, 0.317, 0.050, 0.042]


@pytest.mark.parametrize(
    ("real", "simulated", "expected"), [(PICK_REAL, PICK_SIM, 0.0313), (MOVE_REAL, MOVE_SIM, 0.1110)]
)
def test_mmrv_equals_the_published_values(real, simulated, expected):
    assert mmrv(physics=real, learned=simulated) == pytest.approx(expected, abs=5e-5)


def test_mmrv_is_not_symmetric():
    assert mmrv(physics=MOVE_SIM, learned=MOVE_REAL) == pytest.approx(0.0027, abs=5e-5)


@pytest.mark.parametrize(
    ("real", "simulated", "expected"), [(PICK_REAL, PICK_SIM, 0.9754), (MOVE_REAL, MOVE_SIM, 0.8561)]
)
def test_pearson_equals_the_published_values(real, simulated, expected):
    result = pearson(physics=real, learned=simulated)
    assert result.r == pytest.approx(expected, abs=5e-5)
    assert result.interval.low < result.r < result.interval.high
    assert result.drop_one.low <= result.r <= result.drop_one.high


def test_fisher_interval_of_24_policies_at_r_95():
    # The lower end for r = .95 and k = 24, known from the closed form tanh(atanh .95 − 1.96 / √21).
    generator = np.random.default_rng(0)
    x = generator.normal(size=24)
    noise = generator.normal(size=24)
    noise -= x * (noise @ (x - x.mean())) / (x @ (x - x.mean()))
    noise *= np.std(x) / np.std(noise) * math.sqrt(1 / 0.95**2 - 1)
    result = pearson(physics=x, learned=x + noise)
    assert result.r == pytest.approx(0.95, abs=0.01)
    assert result.interval.low == pytest.approx(0.886, abs=0.02)


@pytest.mark.parametrize(("k", "expected"), [(8, 0.019), (24, 0.087)])
def test_noise_floor_of_a_perfect_simulator(k, expected):
    assert mmrv_noise_floor(np.linspace(0.05, 0.95, k), 50, samples=1000) == pytest.approx(
        expected, abs=0.003
    )


def test_rates_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="one success rate a policy"):
        mmrv(physics=[0.1, 0.2], learned=[0.1, 0.2, 0.3])


def test_wilson_interval_against_known_values():
    assert (wilson_interval(0, 50).low, wilson_interval(50, 50).high) == (0.0, 1.0)
    middle = wilson_interval(25, 50)
    assert (middle.low, middle.high) == (pytest.approx(0.3664, abs=1e-4), pytest.approx(0.6336, abs=1e-4))
    assert not wilson_interval(2, 50).overlaps(wilson_interval(40, 50))
    assert wilson_interval(20, 50).overlaps(wilson_interval(25, 50))
    with pytest.raises(ValueError, match="not a rate"):
        wilson_interval(3, 2)


def test_wilson_interval_covers_the_true_rate():
    draws = np.random.default_rng(1).binomial(50, 0.12, size=2000)
    inside = [wilson_interval(k, 50).low <= 0.12 <= wilson_interval(k, 50).high for k in draws]
    assert 0.93 <= np.mean(inside) <= 0.98


def test_exact_paired_test_counts_sign_patterns():
    # All 5 differences positive: only the observed pattern and its mirror are as extreme, 2 of 32.
    result = paired_test([1.0, 2, 3, 4, 5], np.zeros(5))
    assert (result.mean_difference, result.p_value, result.pairs) == (3.0, 2 / 32, 5)
    assert paired_test([1.0, -1.0], [0.0, 0.0]).p_value == 1.0


def test_sampled_paired_test_is_calibrated_and_seeded():
    generator = np.random.default_rng(2)
    p_values = [paired_test(generator.normal(size=30), np.zeros(30), samples=500).p_value for _ in range(300)]
    assert 0.02 <= np.mean(np.array(p_values) < 0.05) <= 0.09
    a, b = generator.normal(0.5, 1, 40), generator.normal(0, 1, 40)
    assert paired_test(a, b, seed=3) == paired_test(a, b, seed=3)
    assert paired_test(a + 5, b).p_value < 0.001


def test_pairing_finds_what_the_spread_between_starts_hides():
    starts = np.random.default_rng(4).uniform(0, 1, 50)
    assert paired_test(starts, starts + 0.01 + 0.001 * np.sin(np.arange(50))).p_value < 0.001


def test_bootstrap_interval_covers_the_mean():
    generator = np.random.default_rng(5)
    inside = 0
    for trial in range(150):
        interval = bootstrap_interval(generator.normal(1, 1, 40), seed=trial, samples=300)
        inside += interval.low <= 1 <= interval.high
    assert 0.87 <= inside / 150 <= 1
