import math
import warnings

import numpy as np
import pytest
from scipy import stats as reference

from analysis import stats


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
