"""Every variant's error, and its paired difference to the baseline with a verdict: the table of any grid."""

import math

import pandas as pd

from analysis import power, schema, sequential, stats
from analysis.data import GridData, records
from analysis.effects import differences, effects
from analysis.search import earlier_words
from analysis.tables.table import (
    NONE,
    Column,
    Table,
    changes,
    decimals,
    difference_decimals,
    number,
    p_value,
    provenance,
    seeds_of_grid,
    spread,
)


def build(grid: GridData) -> Table:
    """Build the table, baselines first, then the grid's order. IncompleteError where the grid is not complete."""
    frame = effects(grid)
    places = decimals(frame["sd"])
    finer = difference_decimals(places, frame["sd_difference"])
    tests = int(frame["p"].notna().sum())
    reach = _reach(grid, frame, power.level_of(tests))
    columns = [
        Column("variant", lambda row: str(row["variant"]), "l"),
        Column("seeds", lambda row: str(row["seeds"])),
        Column("top-1 error (%)", lambda row: spread(row["mean"], row["sd"], places)),
        Column("difference", lambda row: number(row["difference"], finer, signed=True)),
        Column("95 % interval", lambda row: span(row["low"], row["high"], finer)),
        Column("p", lambda row: p_value(row["p"])),
        Column("p (Holm)", lambda row: p_value(row["p_holm"])),
        Column("verdict", lambda row: row["verdict"] or "baseline", "l"),
        Column("best epoch (%)", lambda row: number(row["best"], places)),
    ]
    if frame["against"].nunique() > 1:
        columns.insert(3, Column("against", lambda row: row["against"] or NONE, "l"))
    runs = grid.run_ids(list(frame["variant"]))
    sources = {
        name: {"runs": runs[name], "against": against}
        for name, against in zip(frame["variant"], frame["against"], strict=True)
    }
    return Table(
        name=f"{grid.plan.benchmark}-{grid.plan.grid}-comparison",
        frame=frame.drop(columns=["mean_low", "mean_high"]).assign(**reach),
        columns=tuple(columns),
        caption=_caption(
            grid,
            frame,
            [str(name) for name in frame["against"].dropna().unique()] or [grid.plan.baseline],
            _reach_words(reach, finer, tests),
        ),
        sources=sources,
    )


def span(low: float, high: float, places: int) -> str:
    """Return an interval in brackets, or NONE."""
    text = f"[{number(low, places, signed=True)}, {number(high, places, signed=True)}]"
    return NONE if NONE in text else text


def _reach(grid: GridData, frame: pd.DataFrame, level: float) -> dict[str, list[float]]:
    """Return columns: the bootstrap's limits, what the seeds at hand could show, and how many seeds would show what.

    Needed are seeds for the difference that was found, and for half a point. Power is at the level that one of the
    grid's comparisons has, and that of a fixed number of seeds, so none is told where they were added look by look.
    """
    found: dict[str, list[float]] = {
        name: [] for name in ("boot_low", "boot_high", "detectable", "seeds_needed", "seeds_for_half_point")
    }
    for row in records(frame):
        arm = row["against"] is not None
        low, high = stats.bootstrap(list(differences(grid, row["variant"]).values()) if arm else [])
        sd, pairs = math.nan if grid.plan.looks else row["sd_difference"], row["pairs"]
        numbers = (
            low,
            high,
            power.detectable(sd, int(pairs), level) if arm else math.nan,
            power.seeds_needed(row["difference"], sd, level),
            power.seeds_needed(power.HALF_POINT, sd, level),
        )
        for column, value in zip(found.values(), numbers, strict=True):
            column.append(value)
    return found


def _reach_words(reach: dict[str, list[float]], places: int, tests: int) -> str:
    """Say what the seeds at hand could show, and how many would show half a point."""
    shown = sorted({number(value, places) for value in reach["detectable"]} - {NONE}, key=float)
    needed = sorted({value for value in reach["seeds_for_half_point"] if not math.isnan(value)})
    if not shown:
        return ""
    ends = [f"{value:,.0f}" if math.isfinite(value) else f"more than {power.MOST_SEEDS:,}" for value in needed]
    return (
        f"With {power.POWER * 100:.0f} % power (two-sided 5 %{f' over {tests} comparisons' if tests > 1 else ''}, the "
        "deviations that were found taken for the true ones) these seeds show "
        f"a difference of {_range(shown)} points; {power.HALF_POINT:g} points would need {_range(ends)} seeds."
    )


def _range(texts: list[str]) -> str:
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def _training(grid: GridData) -> str:
    """Say which backbones were trained, and for how many epochs."""
    archs = list(dict.fromkeys(variant.arch for variant in grid.plan.variants))
    told = f"backbone{'s' if len(archs) > 1 else ''} {', '.join(archs)}"
    epochs = sorted({int(value) for value in grid.cells[schema.EPOCHS].dropna()})
    if not epochs:
        return told
    count = f"{epochs[0]} to {epochs[-1]}" if len(epochs) > 1 else str(epochs[0])
    return f"{told}, {count} epoch{'s' if epochs[-1] > 1 else ''}"


def _caption(grid: GridData, frame: pd.DataFrame, baselines: list[str], reach: str) -> str:
    plan, tested = grid.plan, frame[frame["p"].notna()]
    tests = len(tested)
    against = baselines[0] if len(baselines) == 1 else "the baseline named"
    told = [
        f"{plan.title} on {plan.benchmark}{f' ({plan.data_words})' if plan.data_words else ''}: {_training(grid)}.",
        f"Error of the last epoch, mean ± standard deviation over {seeds_of_grid(plan)}.",
        f"Differences are to {against}, in percentage points, paired by seed; below zero is better.",
        sequential.words(plan.looks) if plan.looks else "Intervals are Student's, each for itself.",
    ]
    if tests:
        told.append(
            ("The test is the paired t test" if plan.looks else "p is the paired t test's")
            + (", or the sign test where all differences are the same" if tested["low"].isna().any() else "")
            + f"; the verdict goes by Holm's correction over {tests} comparison{'s' if tests > 1 else ''} at 0.05. "
            + reach
        )
    told.append(earlier_words(grid.dropped))
    told.append("Best epoch: mean over seeds of the lowest test error of any epoch, which is chosen on the test set.")
    return " ".join([*(words.strip() for words in told if words), *changes(grid), provenance(grid)])
