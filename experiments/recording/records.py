"""What the tracking store says about the cells of a plan, read through analysis."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis import schema, store
from analysis.liveness import ORPHANED
from experiments.grid import Plan

DONE, FAILED, RUNNING = "FINISHED", "FAILED", "RUNNING"  # MLflow's own words
NEAREST_LAST = ("KILLED", ORPHANED, RUNNING, FAILED, DONE)  # of several records of a cell the last one of these counts


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CellRecord:
    """The record of a cell.

    Args:
        state: MLflow's status of the run.
        code: hash of the code that made it.
        message: last line of its failure, if it failed.
    """

    run_id: str
    state: str
    code: str
    attempts: int
    top1_error: float = math.nan
    message: str = ""

    @property
    def open(self) -> bool:
        """Whether nobody has said how it ended."""
        return self.state in (RUNNING, ORPHANED)


def of_plan(runs: pd.DataFrame, plan: Plan) -> dict[str, CellRecord]:
    """The records of a plan's cells, by cell.

    Args:
        runs: `analysis.store.runs`.
    """
    ordered = _nearest_last(_of_plan(runs, plan))
    return {str(row[schema.CELL_ID]): _record(row) for row in ordered.to_dict("records")}


def surplus(runs: pd.DataFrame, plan: Plan) -> list[str]:
    """Run ids of records of a plan's cells that have a better one: a server that went away while it made a record may
    have made two."""
    return surplus_of(_of_plan(runs, plan), schema.CELL_ID)


def surplus_of(rows: pd.DataFrame, identity: str) -> list[str]:
    """See `surplus`; rows of the same `identity` are records of the same thing."""
    ordered = _nearest_last(rows)
    return [str(run_id) for run_id in ordered[ordered.duplicated(identity, keep="last")]["run_id"]]


def _of_plan(runs: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    wanted = {cell.cell_id for cell in plan.cells}
    return runs[(runs[schema.PLAN] == plan.plan_id) & runs[schema.CELL_ID].isin(wanted)]


def _nearest_last(rows: pd.DataFrame) -> pd.DataFrame:
    rank = rows["status"].map({state: number for number, state in enumerate(NEAREST_LAST)}).fillna(-1)
    return rows.loc[rank.sort_values(kind="stable").index]


def originals(runs: pd.DataFrame, code: str, measured: Sequence[str] = ()) -> dict[str, CellRecord]:
    """Finished cells of whatever plan, made by the given code, by cell; copies left out.

    Args:
        measured: beginnings of the names of metrics; cells with several heads are left out that lack one of them.
    """
    chosen = store.unique_cells(runs)
    chosen = chosen[(chosen["status"] == DONE) & (chosen[schema.CODE] == code)]
    for wanted in measured:
        there = chosen[[name for name in chosen.columns if str(name).startswith(wanted)]].notna().any(axis=1)
        chosen = chosen[there | (chosen[schema.METHOD] == "plain")]
    return {str(row[schema.CELL_ID]): _record(row) for row in chosen.to_dict("records")}


def of_trial(row: dict[Any, Any]) -> CellRecord:
    """The record of a trial, from a row of `analysis.store.trials`."""
    return CellRecord(
        run_id=str(row["run_id"]),
        state=str(row["status"]),
        code=str(row[schema.CODE]),
        attempts=int(row[schema.ATTEMPTS]),
        top1_error=float(row[schema.VAL_TOP1]),
        message=str(row[schema.FAILURE_MESSAGE] or ""),
    )


def _record(row: dict[Any, Any]) -> CellRecord:
    message = row.get(schema.FAILURE_MESSAGE)
    return CellRecord(
        run_id=str(row["run_id"]),
        state=str(row["status"]),
        code=str(row[schema.CODE]),
        attempts=int(row[schema.ATTEMPTS]),
        top1_error=float(row.get(schema.FINAL_TOP1, math.nan)),
        message=message if isinstance(message, str) else "",
    )
