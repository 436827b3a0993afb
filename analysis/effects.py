"""What each variant of a grid does: its error, and its paired difference to the baseline with a verdict."""

from typing import Any

import pandas as pd

from analysis import schema, sequential, stats
from analysis.data import GridData, records
from analysis.plan import Plan

COLUMNS = (
    "variant", "against", "seeds", "mean", "sd", "mean_low", "mean_high", "best",
    "pairs", "difference", "sd_difference", "low", "high", "d_z", "p", "p_holm", "verdict",
)  # fmt: skip


def effects(grid: GridData) -> pd.DataFrame:
    """Return one row a variant, baselines first: COLUMNS. Errors in percent, differences in points.

    `against` is None for a baseline. Verdicts go by Holm's p over all comparisons of the grid; where seeds were added
    look by look, p and the interval are those of `analysis.sequential`. A variant without any usable cell keeps its
    row, with NaN.
    """
    plan = grid.plan
    rows = []
    for variant in plan.ordered:
        errors = grid.by_seed(variant.name)
        best = grid.by_seed(variant.name, schema.BEST_TOP1)
        mean, low, high = stats.interval(list(errors.values()))
        row = {
            "variant": variant.name,
            "seeds": len(errors),
            "mean": mean,
            "sd": float(pd.Series(errors, dtype=float).std()),
            "mean_low": low,
            "mean_high": high,
            "best": float(pd.Series(best, dtype=float).mean()),
        }
        if plan.is_arm(variant.name):
            against = plan.baseline_of(variant.name)
            result = compared(grid, variant.name, against)
            row |= {"against": against, "pairs": result.n, "difference": result.mean}
            row |= {"sd_difference": result.sd, "low": result.low, "high": result.high}
            row |= {"d_z": result.d_z, "p": result.p}
        rows.append(row)
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame["against"] = frame["against"].astype(object).where(frame["against"].notna(), None)
    frame["p_holm"] = stats.holm(frame["p"].astype(float).tolist())
    frame["verdict"] = ["" if row["against"] is None else _verdict(plan, row) for row in records(frame)]
    return frame


def compared(grid: GridData, arm: str, against: str, metric: str = schema.FINAL_TOP1) -> stats.Paired:
    """Compare two variants by the rule by which the grid's seeds were added."""
    errors = grid.by_seed(arm, metric), grid.by_seed(against, metric)
    if not grid.plan.looks:
        return stats.paired(*errors)
    return sequential.compare(grid.plan.looks, *errors, grid.plan.seeds_of(arm))


def _verdict(plan: Plan, row: dict[str, Any]) -> str:
    told = stats.verdict(row["difference"], row["p_holm"])
    more = plan.looks and len(plan.seeds_of(row["variant"])) < plan.looks[-1]
    return stats.OPEN if more and told == stats.NO_DIFFERENCE else told


def differences(grid: GridData, variant: str) -> dict[int, float]:
    """Return a variant's error minus its baseline's by seed, on the seeds that both have."""
    arm, baseline = grid.by_seed(variant), grid.by_seed(grid.plan.baseline_of(variant))
    return {seed: arm[seed] - baseline[seed] for seed in sorted(set(arm) & set(baseline))}


def interval_words(grid: GridData) -> str:
    """Say what a figure shows of a variant: the mean and its interval, over how many seeds, or why there is none."""
    counts = {len(grid.by_seed(name)) for name in grid.plan.names}
    if max(counts) >= stats.MIN_PAIRS:
        told = f"mean and 95 % interval, {_count(counts)}"
        return f"{told}; none below {stats.MIN_PAIRS} seeds" if min(counts) < stats.MIN_PAIRS else told
    if max(counts) == 1:
        return "one seed, no interval: too few to tell"
    return f"mean, no interval from {_count(counts)} (marks alone): too few to tell"


def mean_words(grid: GridData) -> str:
    """Say what a figure shows of a variant where it shows the mean alone: over how many seeds."""
    counts = {len(grid.by_seed(name)) for name in grid.plan.names}
    told = "one seed" if max(counts) == 1 else f"mean of {_count(counts)}"
    return told if max(counts) >= stats.MIN_PAIRS else f"{told}: too few to tell"


def range_words(grid: GridData) -> str:
    """Say what a figure of curves shows of a variant: the mean and the range, over how many seeds."""
    counts = {len(grid.by_seed(name)) for name in grid.plan.names}
    told = "one seed" if max(counts) == 1 else f"mean and range of {_count(counts)}"
    return told if max(counts) >= stats.MIN_PAIRS else f"{told}: too few to tell"


def _count(counts: set[int]) -> str:
    fewest, most = min(counts), max(counts)
    return f"{most} seeds" if fewest == most else f"{fewest} to {most} seeds"
