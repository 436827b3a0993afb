"""What a number of seeds can show: power of the paired t test, at the level that one of several comparisons has."""

import math

import numpy as np
from scipy import optimize, stats

from analysis.stats import LEVEL, MIN_PAIRS

POWER = 0.8
HALF_POINT = 0.5  # a difference that papers on CIFAR and ImageNet call a gain, in percentage points
MOST_DEVIATIONS = 1e6  # far more than three pairs need at the level of 10,000 comparisons
MOST_SEEDS = 9_999  # beyond, the number is said to be infinite
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(100)
_QUANTILES, _WEIGHTS = (_NODES + 1) / 2, _NODE_WEIGHTS / 2


def level_of(comparisons: int) -> float:
    """Return the level at which one of so many comparisons is sure to be shown: Holm's for the smallest p value."""
    return LEVEL / max(1, comparisons)


def power(d_z: float, n: int, level: float = LEVEL) -> float:
    """Return the probability that `n` pairs show a true difference of `d_z` deviations, two-sided at `level`."""
    # t is normal given the deviation that was found, and that follows chi. SciPy's own noncentral t is no number here
    # and there, where the shift is large.
    bounds = stats.t.ppf(1 - level / 2, n - 1) * np.sqrt(stats.chi2.ppf(_QUANTILES, n - 1) / (n - 1))
    shift = abs(d_z) * math.sqrt(n)
    return float(_WEIGHTS @ (stats.norm.sf(bounds - shift) + stats.norm.cdf(-bounds - shift)))


def detectable(sd: float, n: int, level: float = LEVEL) -> float:
    """Return the smallest true difference that `n` pairs show with probability POWER, in the unit of `sd`.

    `sd` is that of the differences, taken for the true one. NaN below MIN_PAIRS pairs or without a deviation.
    """
    if n < MIN_PAIRS or not sd > 0:
        return math.nan
    return sd * float(optimize.brentq(lambda d_z: power(d_z, n, level) - POWER, 0, MOST_DEVIATIONS))


def seeds_needed(difference: float, sd: float, level: float = LEVEL) -> float:
    """Return how many pairs show a true difference with probability POWER; infinite beyond MOST_SEEDS.

    NaN where the difference or its deviation is not known.
    """
    if math.isnan(difference) or not sd > 0:
        return math.nan
    d_z = abs(difference) / sd
    low, high = MIN_PAIRS, MOST_SEEDS
    if power(d_z, high, level) < POWER:
        return math.inf
    while low < high:  # power grows with the number of pairs
        middle = (low + high) // 2
        low, high = (low, middle) if power(d_z, middle, level) >= POWER else (middle + 1, high)
    return float(low)
