"""What the tracking store says about the cells of a plan, read through analysis."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis import schema, store
from experiments.grid import Plan

DONE, FAILED = "FINISHED", "FAILED"  # MLflow's own words


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
    def running(self) -> bool:
        """Whether it was left open."""
        return self.state == "RUNNING"


def of_plan(runs: pd.DataFrame, plan: Plan) -> dict[str, CellRecord]:
    """The records of a plan's cells, by cell.

    Args:
        runs: `analysis.store.runs`.
    """
    wanted = {cell.cell_id for cell in plan.cells}
    mine = runs[(runs[schema.PLAN] == plan.plan_id) & runs[schema.CELL_ID].isin(wanted)]
    return {str(row[schema.CELL_ID]): _record(row) for row in mine.to_dict("records")}


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
