"""What each variant of a grid does: its error, and its paired difference to the baseline with a verdict."""

import pandas as pd

from analysis import schema, stats
from analysis.data import GridData, records

COLUMNS = (
    "variant", "against", "seeds", "mean", "sd", "mean_low", "mean_high", "best",
    "pairs", "difference", "low", "high", "d_z", "p", "p_holm", "verdict",
)  # fmt: skip


def effects(grid: GridData) -> pd.DataFrame:
    """Return one row a variant, baselines first: COLUMNS. Errors in percent, differences in points.

    `against` is None for a baseline. Verdicts go by Holm's p over all comparisons of the grid. A variant
    without any usable cell keeps its row, with NaN.
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
            result = stats.paired(errors, grid.by_seed(against))
            row |= {"against": against, "pairs": result.n, "difference": result.mean, "low": result.low}
            row |= {"high": result.high, "d_z": result.d_z, "p": result.p}
        rows.append(row)
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame["against"] = frame["against"].astype(object).where(frame["against"].notna(), None)
    frame["p_holm"] = stats.holm(frame["p"].astype(float).tolist())
    frame["verdict"] = [
        "" if row["against"] is None else stats.verdict(row["difference"], row["p_holm"]) for row in records(frame)
    ]
    return frame


def differences(grid: GridData, variant: str) -> dict[int, float]:
    """Return a variant's error minus its baseline's by seed, on the seeds that both have."""
    arm, baseline = grid.by_seed(variant), grid.by_seed(grid.plan.baseline_of(variant))
    return {seed: arm[seed] - baseline[seed] for seed in sorted(set(arm) & set(baseline))}
