import math
import warnings

import numpy as np
import pytest
from scipy import stats as reference

from analysis import power, stats


@pytest.mark.parametrize("n", [3, 5, 20])
def test_paired_agrees_with_scipy(n: int) -> None:
    draw = np.random.default_rng(n)
    arm, baseline = draw.normal(10, 1, n), draw.normal(11, 1, n)
    found = stats.paired(dict(enumerate(arm)), dict(enumerate(baseline)))
    told = reference.ttest_rel(arm, baseline)
    low, high = told.confidence_interval(0.95)
    assert found.p == pytest.approx(told.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)
    assert found.n == n
    assert found.d_z == pytest.approx(told.statistic / math.sqrt(n), rel=1e-9)


def test_pairs_are_made_by_seed_whatever_the_order() -> None:
    found = stats.paired({2: 5.0, 0: 1.0, 1: 3.0, 9: 99.0}, {0: 0.0, 1: 1.0, 2: 2.0, 7: -99.0})
    assert (found.n, found.mean, found.sd) == (3, 2.0, 1.0)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_pairs_have_no_interval(n: int) -> None:
    found = stats.paired({seed: 1.0 + seed for seed in range(n)}, dict.fromkeys(range(n), 0.0))
    assert found.n == n
    assert math.isnan(found.p) and math.isnan(found.low)
    assert stats.verdict(found.mean, found.p) == stats.TOO_FEW


def test_equal_differences_are_told_without_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = stats.paired({0: 1.1, 1: 2.2, 2: 3.3}, {0: 1.1, 1: 2.2, 2: 3.3})
        # 0.1 more each time, but for rounding
        shifted = stats.paired({0: 1.2, 1: 2.3, 2: 3.4}, {0: 1.1, 1: 2.2, 2: 3.3})
    assert (same.p, same.low, same.high, same.d_z) == (1.0, 0.0, 0.0, 0.0)
    assert stats.verdict(same.mean, same.p) == stats.NO_DIFFERENCE
    # sign test: two of eight outcomes are as uniform as this
    assert shifted.p == 0.25
    assert math.isnan(shifted.low)


def test_holm_worked_by_hand() -> None:
    # sorted: .005 * 4, .01 * 3, .03 * 2, .04 * 1 -> .02, .03, .06, .06 (never below the one before)
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.5, 0.9]) == [1.0, 1.0]
    assert stats.holm([0.02]) == [0.02]
    assert stats.holm([]) == []


def test_holm_leaves_out_what_was_not_tested() -> None:
    adjusted = stats.holm([0.02, math.nan, 0.03])
    assert adjusted[0] == pytest.approx(0.04) and adjusted[2] == pytest.approx(0.04)
    assert math.isnan(adjusted[1])


def test_verdicts() -> None:
    assert stats.verdict(-1.0, 0.049) == stats.BETTER
    assert stats.verdict(1.0, 0.049) == stats.WORSE
    assert stats.verdict(-1.0, 0.05) == stats.NO_DIFFERENCE


def test_interval_of_a_mean_agrees_with_scipy() -> None:
    values = [1.0, 2.5, 3.0, 4.5]
    low, high = reference.t.interval(0.95, 3, loc=np.mean(values), scale=reference.sem(values))
    assert stats.interval(values) == pytest.approx((np.mean(values), low, high))
    assert math.isnan(stats.interval([1.0, 2.0])[1])
    assert math.isnan(stats.interval([])[0])


@pytest.mark.parametrize("n", [5, 12, 40])
def test_the_bootstrap_agrees_with_scipy(n: int) -> None:
    values = np.random.default_rng(n).exponential(2, n)
    draw = np.random.default_rng(1)
    told = reference.bootstrap((values,), np.mean, method="BCa", n_resamples=20_000, rng=draw).confidence_interval
    low, high = stats.bootstrap(values)
    # Two draws of resamples differ a little in their outermost quantiles.
    assert (low, high) == pytest.approx((told.low, told.high), abs=0.05 * (told.high - told.low))
    assert stats.bootstrap(values) == (low, high), "the same differences have the same limits"


def test_the_bootstrap_has_no_limits_where_it_does_not_apply() -> None:
    for values in ([], [1.0, 2.0], [1.5] * 5, [0.0] * 5):
        assert all(map(math.isnan, stats.bootstrap(values)))


def test_the_paired_interval_of_a_worked_example() -> None:
    # Student's own data (1908): hours of sleep gained by ten patients, two drugs; differences with mean 1.58 and
    # deviation 1.23, t = 4.06 with 9 degrees of freedom, p = 0.0028, interval 0.70 to 2.46.
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = stats.paired(dict(enumerate(second)), dict(enumerate(first)))
    assert (found.mean, found.sd) == pytest.approx((1.58, 1.23), abs=0.001)
    assert found.d_z * math.sqrt(10) == pytest.approx(4.0621, abs=1e-4)
    assert found.p == pytest.approx(0.00283, abs=1e-5)
    assert (found.low, found.high) == pytest.approx((0.7001, 2.4599), abs=1e-4)


@pytest.mark.parametrize(("n", "d_z"), [(3, 0.5), (5, 1.0), (5, 2.0), (20, 0.5), (200, 0.1)])
def test_power_is_that_of_the_noncentral_t(n: int, d_z: float) -> None:
    bound, shift = reference.t.ppf(0.975, n - 1), d_z * math.sqrt(n)
    expected = reference.nct.sf(bound, n - 1, shift) + reference.nct.cdf(-bound, n - 1, shift)
    assert power.power(d_z, n) == pytest.approx(expected, abs=1e-5)
    assert power.power(-d_z, n) == power.power(d_z, n)


def test_seeds_needed_of_textbook_effects() -> None:
    # Cohen's small, medium and large effect in a paired t test at 80 % power.
    assert [power.seeds_needed(d, 1.0) for d in (0.2, 0.5, 0.8)] == [199, 34, 15]
    assert power.seeds_needed(-1.0, 2.0) == 34, "in units of the deviation, whichever its sign"
    assert power.seeds_needed(0.0, 1.0) == power.seeds_needed(1e-4, 1.0) == math.inf
    assert math.isnan(power.seeds_needed(1.0, math.nan)) and math.isnan(power.seeds_needed(1.0, 0.0))
    assert power.seeds_needed(1000.0, 1.0) == stats.MIN_PAIRS


@pytest.mark.parametrize("n", [3, 5, 20])
def test_what_can_be_detected_has_just_that_power(n: int) -> None:
    least = power.detectable(2.0, n)
    assert power.power(least / 2.0, n) == pytest.approx(0.8, abs=1e-6)
    assert power.seeds_needed(least * 1.001, 2.0) == n
    assert math.isnan(power.detectable(1.0, 2)) and math.isnan(power.detectable(math.nan, 5))


def test_power_is_how_often_differences_are_shown() -> None:
    draw = np.random.default_rng(3)
    samples = draw.normal(power.detectable(1.0, 5), 1.0, (4000, 5))
    shown = np.mean(reference.ttest_1samp(samples, 0.0, axis=1).pvalue < 0.05)
    assert shown == pytest.approx(0.8, abs=0.02)


def test_equal_values_have_no_interval() -> None:
    mean, low, high = stats.interval([4.5, 4.5, 4.5])
    assert mean == 4.5 and math.isnan(low) and math.isnan(high)


def test_power_at_the_level_of_one_of_several_comparisons_is_what_their_correction_leaves() -> None:
    draw = np.random.default_rng(1)
    size, arms = power.detectable(1.0, 8, power.level_of(4)), 4
    shown = 0
    for _ in range(800):
        differences = draw.normal(0.0, 1.0, (arms, 8))
        differences[0] -= size
        p = [stats.paired(dict(enumerate(row)), dict.fromkeys(range(8), 0.0)).p for row in differences]
        shown += stats.holm(p)[0] < stats.LEVEL
    assert 0.77 < shown / 800 < 0.87, "of studies, one of whose arms truly differs by so much"
