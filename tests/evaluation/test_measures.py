import math

import numpy as np
import pytest

from robosim.evaluation.measures import Measure, estimate, psnr, psnr_gain, ratio, summarise

ALL = np.arange(2)


def test_a_psnr_is_pooled_over_pixels_and_no_mean_of_episodes():
    measure = Measure.of(psnr, [1.0, 10.0], [100, 900])
    found = estimate(measure, ALL, 0)
    assert found is not None
    assert found["value"] == pytest.approx(-10 * math.log10(11 / 1000))
    assert found["episodes"] == 2


def test_the_interval_resamples_episodes_and_pools_within_each_resample():
    # Of two episodes a resample holds the first twice, the second twice, or both: a quarter, a quarter, a half.
    first, second, both = (-10 * math.log10(x) for x in (0.1, 0.001, 11.1 / 200))
    found = estimate(Measure.of(psnr, [10.0, 0.1], [100, 100]), ALL, 0)
    assert found is not None and found["value"] == pytest.approx(-10 * math.log10(10.1 / 200))
    assert (found["low"], found["high"]) == (pytest.approx(first), pytest.approx(second))
    assert first < both < second


def test_an_interval_shrinks_with_episodes_and_is_the_same_again():
    values = np.random.default_rng(0).random(64)
    few, many = (estimate(Measure.of(ratio, values[:n], np.ones(n)), np.arange(n), 3) for n in (8, 64))
    assert few is not None and many is not None
    assert many["low"] <= many["value"] <= many["high"]
    assert many["high"] - many["low"] < 0.6 * (few["high"] - few["low"])
    assert many == estimate(Measure.of(ratio, values, np.ones(64)), np.arange(64), 3)


def test_an_episode_without_the_figure_has_no_part_in_it():
    measure = Measure.of(ratio, [3.0, np.nan, 5.0], [1, 1, 1])
    found = estimate(measure, np.arange(3), 0)
    assert found is not None and (found["value"], found["episodes"]) == (4.0, 2)
    alone = estimate(measure, np.arange(2), 0)
    assert alone == {"value": 3.0, "low": None, "high": None, "episodes": 1}
    assert estimate(measure, np.array([1]), 0) is None


def test_what_has_no_pixels_is_no_figure():
    assert estimate(Measure.of(psnr, [0.0, 0.0], [0, 0]), ALL, 0) is None
    assert estimate(Measure.of(ratio, [0.0, 0.0], [0, 0]), ALL, 0) is None


def test_a_gain_is_the_difference_of_two_psnrs():
    found = estimate(Measure.of(psnr_gain, [1.0, 1.0], [10.0, 10.0], [50, 50]), ALL, 0)
    assert found is not None and found["value"] == pytest.approx(10.0)


def test_a_tree_keeps_its_names_and_takes_the_rows_it_is_told():
    tree = {"a": {"1": Measure.of(ratio, [1.0, 7.0], [1, 1])}, "b": Measure.of(ratio, [2.0, 2.0], [1, 1])}
    found = summarise(tree, np.array([1]), 0)
    assert found["a"]["1"]["value"] == 7.0 and found["b"]["value"] == 2.0
