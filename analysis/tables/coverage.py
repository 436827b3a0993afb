"""How far every plan in the store has come: its cells by state."""

from collections.abc import Callable, Sequence

import pandas as pd

from analysis import coverage
from analysis.data import GridData, records
from analysis.tables.table import Column, Row, Table


def build(grids: Sequence[GridData]) -> Table:
    """Build the table, one row a plan. It never refuses: it is what tells of gaps."""
    rows = []
    sources = {}
    for grid in grids:
        found = grid.coverage
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
            }
        )
        sources[grid.plan.plan_id] = [
            {key: row[key] for key in ("variant", "seed", "state", "why", "run_id")} for row in records(found)
        ]
    names = ["benchmark", "grid", "plan", "overrides", "variants", "seeds", "cells", *coverage.STATES]
    return Table(
        name="coverage",
        frame=pd.DataFrame(rows, columns=names),
        columns=tuple(Column(name, _text(name), "l" if name in names[:4] else "r") for name in names),
        caption="Cells of every plan by their state. Stale: done, but by other code than the plan was last run with, "
        "or under another recipe.",
        sources=sources,
    )


def _text(name: str) -> Callable[[Row], str]:
    return lambda row: str(row[name])
