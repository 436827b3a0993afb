"""Paired differences by seed, their intervals, Holm's correction, verdicts in words. Lower error is better."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

MIN_PAIRS = 3  # with two, the interval is twelve standard errors wide on either side
LEVEL = 0.05
RESAMPLES = 9_999

BETTER, WORSE = "better", "worse"
NO_DIFFERENCE, TOO_FEW = "no difference shown", "too few seeds to tell"
OPEN = "open, more seeds to come"  # where seeds are added look by look


@dataclass(frozen=True, kw_only=True)
class Paired:
    """An arm minus its baseline over `n` shared seeds, in the values' own unit; NaN where unknown."""

    n: int
    mean: float
    sd: float  # of the differences
    low: float  # 95 % interval of the mean difference
    high: float
    p: float  # two-sided
    d_z: float  # Cohen's: mean over sd of the differences


def paired(arm: Mapping[int, float], baseline: Mapping[int, float]) -> Paired:
    """Compare two arms on the seeds that both have, by Student's t on the differences.

    Fewer than MIN_PAIRS pairs have a mean and no interval. Where all differences are the same, t does not
    apply: if they are zero the arms are equal (p = 1, interval 0 to 0); if not, p is the sign test's and there is no
    interval.
    """
    seeds = sorted(set(arm) & set(baseline))
    differences = np.array([arm[seed] - baseline[seed] for seed in seeds], dtype=float)
    n = len(differences)
    nan = math.nan
    mean = float(differences.mean()) if n else nan
    if n < MIN_PAIRS:
        return Paired(n=n, mean=mean, sd=nan, low=nan, high=nan, p=nan, d_z=nan)
    sd = float(differences.std(ddof=1))
    # Equal differences leave rounding of the last bit, which is no deviation.
    if sd <= 1e-9 * max(1.0, abs(mean)):
        if abs(mean) <= 1e-9:
            return Paired(n=n, mean=0.0, sd=0.0, low=0.0, high=0.0, p=1.0, d_z=0.0)
        return Paired(n=n, mean=mean, sd=0.0, low=nan, high=nan, p=0.5 ** (n - 1), d_z=nan)
    error = sd / math.sqrt(n)
    half = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, n - 1))
    return Paired(n=n, mean=mean, sd=sd, low=mean - half, high=mean + half, p=p, d_z=mean / sd)


def bootstrap(differences: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % limits of the mean by the bootstrap, bias-corrected and accelerated (BCa; Efron 1987).

    The same differences have the same limits. NaN below MIN_PAIRS values, or where all are equal. It takes the
    differences for all that there are, so with a handful of them it is too narrow: Student's interval is what counts.
    """
    data = np.asarray(differences, dtype=float)
    if len(data) < MIN_PAIRS or np.ptp(data) <= 1e-9 * max(1.0, abs(data.mean())):
        return math.nan, math.nan
    draws = np.random.default_rng(0).integers(len(data), size=(RESAMPLES, len(data)))
    means = np.sort(data[draws].mean(axis=1))
    below, not_above = np.searchsorted(means, data.mean() + np.array([-1e-12, 1e-12]))
    bias = stats.norm.ppf((below + not_above) / (2 * RESAMPLES))
    # Leaving one value out moves the mean by the distance of that value from it.
    away = data - data.mean()
    acceleration = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    normal = bias + stats.norm.ppf([LEVEL / 2, 1 - LEVEL / 2])
    low, high = np.quantile(means, stats.norm.cdf(bias + normal / (1 - acceleration * normal)))
    return float(low), float(high)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean and its 95 % t interval; NaN limits below MIN_PAIRS values, or where all are equal."""
    data = np.asarray(values, dtype=float)
    mean = float(data.mean()) if len(data) else math.nan
    if len(data) < MIN_PAIRS or np.ptp(data) <= 1e-9 * max(1.0, abs(mean)):
        return mean, math.nan, math.nan
    half = float(stats.t.ppf(1 - LEVEL / 2, len(data) - 1)) * float(data.std(ddof=1)) / math.sqrt(len(data))
    return mean, mean - half, mean + half


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p values (Holm 1979) in the order given. A NaN stays, and does not count."""
    family = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(family):
        largest = max(largest, min(1.0, (len(family) - rank) * p))
        adjusted[index] = largest
    return adjusted


def verdict(difference: float, p: float) -> str:
    """Say in words what a difference in error and its p value show."""
    if math.isnan(p):
        return TOO_FEW
    if p >= LEVEL:
        return NO_DIFFERENCE
    return BETTER if difference < 0 else WORSE
