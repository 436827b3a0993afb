"""What the diagnostics of a grid say about the agreement of heads, where they were recorded."""

from collections.abc import Mapping, Sequence

import pandas as pd

from analysis import schema
from analysis.data import GridData

_NAMED = 4  # cells that a message names


def heads(grid: GridData) -> dict[str, tuple[str, ...]]:
    """Return the heads of every variant that was measured, the main branch first, then by their nodes.

    ValueError where cells with side branches have no diagnostics, unless gaps are allowed and some cells have.
    """
    bare = unmeasured(grid)
    found = {variant.name: _heads(grid.of(variant.name)) for variant in grid.plan.variants}
    found = {name: order for name, order in found.items() if order}
    if bare and not (found and grid.allow_incomplete):
        more = f" and {len(bare) - _NAMED} more" if len(bare) > _NAMED else ""
        raise ValueError(
            f"no diagnostics are recorded for {', '.join(bare[:_NAMED])}{more}: cells that were done without them are "
            f"not trained again. Have them in a store of their own: `{grid.plan.command} diagnostics.every=1 "
            "store=results/diagnostics`."
        )
    if not found:
        raise ValueError(f"{grid.plan.experiment} has no side branches, so there are no heads to compare")
    return found


def unmeasured(grid: GridData) -> list[str]:
    """Return the names of the usable cells that have side branches and no diagnostics."""
    bare = []
    for variant in grid.plan.variants:
        if variant.method == "plain":
            continue
        records = grid.of(variant.name)
        without = records[_pairs(records)].isna().all(axis=1)
        bare += [f"{variant.name} s{seed}" for seed in records.loc[without, schema.SEED]]
    return bare


def warning(grid: GridData) -> str:
    """Return what a figure of diagnostics must say of gaps; empty where there are none."""
    bare = unmeasured(grid)
    return grid.warning or (f"NOT COMPLETE: {len(bare)} cells without diagnostics" if bare else "")


def curves(grid: GridData, metric: str) -> dict[tuple[str, str], pd.DataFrame]:
    """Return mean, least and largest over the seeds by epoch, for every variant and pair of heads.

    An epoch at which only some of a variant's cells were measured is left out.
    """
    names = grid.cells.set_index("run_id")[schema.VARIANT]
    points = grid.curves[grid.curves["metric"].str.startswith(f"{metric}/") & grid.curves["run_id"].isin(names.index)]
    keys = [points["run_id"].map(names), points["metric"].str.removeprefix(f"{metric}/")]
    return {(str(variant), str(pair)): _over_seeds(own) for (variant, pair), own in points.groupby(keys)}


def _over_seeds(points: pd.DataFrame) -> pd.DataFrame:
    whole = points.pivot(index="epoch", columns="run_id", values="value").dropna()
    return whole.agg(["mean", "min", "max"], axis=1)


def matrix(grid: GridData, variant: str, metric: str, order: Sequence[str]) -> pd.DataFrame:
    """Return the mean over seeds of a metric of ordered pairs, at the last epoch that has it.

    Rows are students and columns teachers; the diagonal is NaN.
    """
    found: Mapping[str, Mapping[str, float]] = {
        teacher: {
            student: _mean(grid.by_seed(variant, f"{metric}/{student}.{teacher}"))
            for student in order
            if student != teacher
        }
        for teacher in order
    }
    return pd.DataFrame(found).reindex(index=list(order), columns=list(order))


def _mean(values: Mapping[int, float]) -> float:
    return sum(values.values()) / len(values)


def _pairs(records: pd.DataFrame) -> list[str]:
    return [str(name) for name in records.columns if str(name).startswith(f"{schema.AGREEMENT}/")]


def _heads(records: pd.DataFrame) -> tuple[str, ...]:
    """Unordered pairs are named in the order of the heads: the first head leads most of them, the last one none."""
    there = records[_pairs(records)].dropna(axis=1, how="all").columns
    pairs = [str(name).removeprefix(f"{schema.AGREEMENT}/").split(".") for name in there]
    firsts = [first for first, _ in pairs]
    return tuple(sorted({head for pair in pairs for head in pair}, key=lambda head: -firsts.count(head)))
