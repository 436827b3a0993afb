"""Reads from the tracking store what tables and figures are built from."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis import catalogue, schema, store
from analysis.data import GridData
from analysis.plan import Plan


def load(uri: str, plan: Plan, *, allow_incomplete: bool = False) -> GridData:
    """Read one plan's records, and what its figures draw besides."""
    runs = store.runs(uri, plan)
    grid = GridData(plan=plan, runs=runs, allow_incomplete=allow_incomplete)
    finished = runs[runs["status"] == "FINISHED"]
    return with_drawn(uri, grid, finished, catalogue.metrics(plan.figures), catalogue.files(plan.figures))


def with_drawn(uri: str, grid: GridData, cells: pd.DataFrame, metrics: Sequence[str], files: Sequence[str]) -> GridData:
    """Add to a grid what figures draw of some of its records: curves, trials, networks.

    Args:
        metrics, files: that are wanted, as `catalogue.metrics` and `catalogue.files` name them.
    """
    return replace(
        grid,
        curves=store.curves(uri, cells, curve_names(cells, metrics)),
        trials=_trials(uri, grid.plan),
        topologies=_topologies(uri, cells) if schema.TOPOLOGY_FILE in files else {},
    )


def curve_names(runs: pd.DataFrame, wanted: Sequence[str]) -> list[str]:
    """Return the curves that are wanted (see `catalogue.metrics`), of those that the records have."""
    there = [str(name) for name in runs.dropna(axis=1, how="all").columns]
    return [name for name in there if any(name == w or (w.endswith("/") and name.startswith(w)) for w in wanted)]


def _trials(uri: str, plan: Plan) -> pd.DataFrame:
    """Return the trials of a plan's search, an empty frame where it has none."""
    if plan.search is None:
        return pd.DataFrame()
    return store.trials(uri, plan.search["search_id"], list(plan.search["space"]))


def _topologies(uri: str, runs: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the network of each variant, which is that of any of its runs."""
    firsts = runs.drop_duplicates(schema.VARIANT)
    found = store.topologies(uri, firsts)
    pairs = zip(firsts[schema.VARIANT], firsts["run_id"], strict=True)
    return {str(name): found[run_id] for name, run_id in pairs if run_id in found}
