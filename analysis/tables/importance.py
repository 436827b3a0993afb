"""What a search says of each parameter: where it was searched, what was found, and how much it mattered."""

import math

import pandas as pd

from analysis import schema
from analysis.data import GridData, records
from analysis.plan import Plan
from analysis.tables.table import NONE, Column, Table, number, provenance


def applies(plan: Plan) -> bool:
    """Say whether the plan has a search."""
    return plan.search is not None


def build(grid: GridData) -> Table:
    """Build the table, a row a parameter, the most important first. ValueError where the plan has no search."""
    plan, search = grid.plan, grid.searched
    chosen = records(grid.trials[grid.trials[schema.TRIAL_NUMBER] == search["selected"]])
    rows = []
    for path, (low, high, log) in search["space"].items():
        rows.append(
            {
                "parameter": path,
                "low": low,
                "high": high,
                "logarithmic": bool(log),
                "own": plan.levels(path)[0] if plan.levels(path) else math.nan,
                "found": chosen[0][path] if chosen else math.nan,
                "importance": search["importance"].get(path, math.nan),
            }
        )
    rows.sort(key=lambda row: -row["importance"] if math.isfinite(row["importance"]) else 0)
    ended = grid.trials[grid.trials["state"] == "done"]
    runs = dict(zip("trial " + ended[schema.TRIAL_NUMBER].astype(str), ended["run_id"], strict=True))
    shared = " ".join(
        word
        for word in (
            f"Parameters of {plan.title[:1].lower()}{plan.title[1:]} on {plan.benchmark}.",
            "Importance is the share of the variation of the error on held-out training images that a parameter "
            f"explains by itself, in a forest fitted to the trials that ended ({len(ended)}; fANOVA); what is missing "
            "to 100 % is of parameters together. None is given where too few ended to tell. It is one seed's, and "
            "takes noise for an effect: a hint, not a finding.",
            ""
            if plan.searching
            else f"What was found is that of trial {search['selected']}; whether it beats the recipe's own is in the "
            "comparison.",
            provenance(grid),
        )
        if word
    )
    return Table(
        name=f"{plan.benchmark}-{plan.grid}-importance",
        frame=pd.DataFrame(rows),
        columns=(
            Column("parameter", lambda row: str(row["parameter"]), "l"),
            Column("searched", lambda row: f"{row['low']:g} to {row['high']:g}"),
            Column("scale", lambda row: "logarithmic" if row["logarithmic"] else "linear", "l"),
            Column("recipe's own", lambda row: _value(row["own"])),
            Column("found", lambda row: _value(row["found"])),
            Column("importance (%)", lambda row: number(100 * row["importance"], 0)),
        ),
        caption=shared,
        sources={row["parameter"]: {"runs": runs} for row in rows},
    )


def _value(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else NONE
