"""The trials of a search: what was tried, how it did on held-out training images, and what was selected."""

from collections.abc import Callable

import pandas as pd

from analysis import coverage, schema, wording
from analysis.data import GridData, records
from analysis.plan import Plan
from analysis.search import importance_words
from analysis.tables.table import NONE, Column, Row, Table, number, provenance


def applies(plan: Plan) -> bool:
    """Say whether the plan has a search."""
    return plan.search is not None


def build(grid: GridData) -> Table:
    """Build the table, a row a trial in their order. ValueError where the plan has no search."""
    search = grid.searched
    frame = grid.trials
    kept = ["trial", *search["space"], "error", "epochs", "state", "selected"]
    over = frame["state"].isin((coverage.DONE, coverage.PRUNED))
    frame = frame.assign(
        error=frame[schema.VAL_TOP1],
        epochs=frame[schema.EPOCHS].astype("Int64").where(over),
        selected=frame[schema.TRIAL_NUMBER] == search["selected"],
    ).rename(columns={schema.TRIAL_NUMBER: "trial"})
    columns = [
        Column("trial", lambda row: str(row["trial"])),
        *(Column(path, _level(path)) for path in search["space"]),
        Column("error on held-out (%)", lambda row: number(row["error"], 2)),
        Column("epochs", lambda row: NONE if pd.isna(row["epochs"]) else str(row["epochs"])),
        Column("state", lambda row: "done, selected" if row["selected"] else str(row["state"]), "l"),
    ]
    return Table(
        name=f"{grid.plan.benchmark}-{grid.plan.grid}-trials",
        frame=frame[kept],
        columns=tuple(columns),
        caption=_caption(grid),
        sources={str(row["trial"]): {"run": row["run_id"], "code": row[schema.CODE]} for row in records(frame)},
    )


def _level(path: str) -> Callable[[Row], str]:
    return lambda row: wording.level(row[path])


def _caption(grid: GridData) -> str:
    plan, search = grid.plan, grid.searched
    told = [
        f"Trials of {plan.title[:1].lower()}{plan.title[1:]} on {plan.benchmark}, seed {search['seed']}.",
        f"Each is judged by {search['held_out']:.0%} of the training images, which it does not train on; no test image "
        "was looked at. Selected: the lowest error of a trial that ended, of equals the earlier.",
    ]
    if (grid.trials["state"] == coverage.PRUNED).any():
        told.append(
            f"Pruned trials were given up by the {search['pruner']} rule; their error is that of their last epoch."
        )
    told += filter(None, [importance_words(search["importance"])])
    codes = sorted(set(map(str, grid.trials[schema.CODE])))
    if len(codes) > 1:
        told.append(f"The trials were made by {len(codes)} codes ({', '.join(codes)}).")
    return " ".join([*told, "Of the comparison:", provenance(grid)])
