"""How far every plan in the store has come: its cells by state."""

from collections.abc import Callable, Sequence

import pandas as pd

from analysis import coverage
from analysis.data import GridData, records
from analysis.plan import Plan
from analysis.tables.table import Column, Row, Table

_TEXTS = ("benchmark", "grid", "plan", "overrides")
_REASONS = ("code", "data", "recipe")  # why a cell is stale


def build(grids: Sequence[GridData]) -> Table:
    """Build the table, one row a plan. It never refuses: it is what tells of gaps."""
    plans = [grid.plan for grid in grids]
    rows = []
    sources = {}
    for grid in grids:
        found = _since(grid, plans)
        reasons = found.loc[found["state"] == coverage.STALE, "why"]
        rows.append(
            {
                "benchmark": grid.plan.benchmark,
                "grid": grid.plan.grid,
                "plan": grid.plan.plan_id,
                "overrides": " ".join(grid.plan.overrides),
                "variants": len(grid.plan.variants),
                "seeds": len(grid.plan.seeds),
                "cells": len(found),
                **coverage.counts(found),
                "stale_because": ", ".join(why for why in _REASONS if (reasons == why).any()),
            }
        )
        sources[grid.plan.plan_id] = [
            {key: row[key] for key in ("variant", "seed", "state", "why", "run_id")} for row in records(found)
        ]
    counts = ["variants", "seeds", "cells", *coverage.STATES]
    searching = ", ".join(plan.plan_id for plan in plans if plan.searching)
    return Table(
        name="coverage",
        frame=pd.DataFrame(rows, columns=[*_TEXTS, *counts, "stale_because"]),
        columns=(
            *(Column(name, _text(name), "l") for name in _TEXTS),
            *(Column(name, _text(name)) for name in counts if name != coverage.STALE),
            Column(coverage.STALE, _stale),
        ),
        caption="Cells of every plan by their state. Stale: done, but its code has changed since (another plan was run "
        "with later code, or the plan itself), or its data (the same grid was run on other images), or its recipe."
        + (f" One more arm is to come where {coverage.SEARCHING}: {searching}." if searching else ""),
        sources=sources,
    )


def _since(grid: GridData, plans: Sequence[Plan]) -> pd.DataFrame:
    """Return the coverage of a grid, what has become stale by what was run later marked as such."""
    found = grid.coverage.copy()
    latest = max(plans, key=lambda plan: plan.updated)
    codes = dict(zip(grid.runs["run_id"], grid.runs["code"], strict=True))
    done = found["state"] == coverage.DONE
    if any(_replaces(other, grid.plan) for other in plans):
        found.loc[done, ["state", "why"]] = [coverage.STALE, "data"]
        return found
    found.loc[done & (found["run_id"].map(codes) != latest.code), ["state", "why"]] = [coverage.STALE, "code"]
    return found


def _replaces(other: Plan, plan: Plan) -> bool:
    """Say whether `other` is the same question on other data, asked later."""
    same = (other.benchmark, other.grid, other.overrides) == (plan.benchmark, plan.grid, plan.overrides)
    return same and other.data != plan.data and other.updated > plan.updated


def _stale(row: Row) -> str:
    return f"{row['stale']} ({row['stale_because']})" if row["stale"] else "0"


def _text(name: str) -> Callable[[Row], str]:
    return lambda row: str(row[name])
