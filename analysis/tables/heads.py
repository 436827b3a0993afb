"""What every head gets wrong: the main branch, which is what is used, beside the side branches and their ensembles."""

import re
from functools import partial

import pandas as pd

from analysis import schema
from analysis.data import GridData
from analysis.plan import Plan
from analysis.tables.table import Column, Row, Table, changes, decimals, provenance, seeds_of_grid, spread

MAIN = "main"
TITLES = {schema.ENSEMBLE: "ensemble (logits)", schema.ENSEMBLE_SOFTMAX: "ensemble (softmax)"}


def applies(plan: Plan) -> bool:
    """Say whether any variant has side branches."""
    return any(variant.method != "plain" for variant in plan.variants)


def build(grid: GridData) -> Table:
    """Build the table, baselines first, a column a head. IncompleteError where the grid is not complete."""
    plan = grid.plan
    names = _heads(grid.cells)
    rows = []
    lacking: dict[str, None] = {}
    for variant in plan.ordered:
        row: dict[str, object] = {"variant": variant.name}
        for head in names:
            errors = pd.Series(grid.by_seed(variant.name, _metric(head)), dtype=float)
            if 0 < len(errors) < len(grid.of(variant.name)):  # a mean over fewer seeds would stand among the others
                errors, lacking = errors.iloc[:0], {**lacking, variant.name: None}
            row[head], row[f"{head}_sd"] = float(errors.mean()), float(errors.std())
        rows.append(row)
    frame = pd.DataFrame(rows)
    places = decimals(float(value) for head in names for value in frame[f"{head}_sd"])
    runs = grid.run_ids(list(plan.names))
    return Table(
        name=f"{plan.benchmark}-{plan.grid}-heads",
        frame=frame,
        columns=(
            Column("variant", lambda row: str(row["variant"]), "l"),
            *(Column(TITLES.get(head, head), partial(_error, head=head, places=places)) for head in names),
        ),
        caption=_caption(grid, names, list(lacking)),
        sources={variant.name: {"runs": runs[variant.name]} for variant in plan.ordered},
    )


def _heads(cells: pd.DataFrame) -> list[str]:
    """Return the names of what was evaluated: main, the side branches by their nodes, ensembles."""
    there = [str(name) for name in cells.dropna(axis=1, how="all").columns]
    begin = f"{schema.FINAL_TOP1}/"
    others = [name.removeprefix(begin) for name in there if name.startswith(begin)]
    return [MAIN, *sorted(others, key=_place)]


def _place(head: str) -> tuple[float, float, str]:
    """Say where a head stands: a branch inside a stage comes before the one at its output."""
    node = re.fullmatch(r"side(\d+)(?:_(\d+))?([a-z]?)", head)
    if node is None:
        return float("inf"), 0.0, head
    return float(node[1]), float(node[2] or "inf"), node[3]


def _metric(head: str) -> str:
    return schema.FINAL_TOP1 if head == MAIN else f"{schema.FINAL_TOP1}/{head}"


def _error(row: Row, *, head: str, places: int) -> str:
    return spread(row[head], row[f"{head}_sd"], places)


def _caption(grid: GridData, names: list[str], lacking: list[str]) -> str:
    plan = grid.plan
    told = [
        f"{plan.title} on {plan.benchmark}: top-1 error of every head in %, last epoch, mean ± standard deviation over "
        f"{seeds_of_grid(plan)}.",
        "The main branch is what is kept; side branches are named by the stage that they fork after.",
    ]
    if set(TITLES) & set(names):
        told.append("Ensembles predict by the mean of the heads' logits, or of their softmax; all branches are kept.")
    if lacking:
        told.append(f"What not every cell of {', '.join(lacking)} was evaluated in is not shown.")
    return " ".join([*told, *changes(grid), provenance(grid)])
