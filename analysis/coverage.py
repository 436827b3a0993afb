"""Which cells of a plan are done, failed, running, missing or stale."""

from typing import Any

import pandas as pd

from analysis import liveness, schema
from analysis.plan import Plan

DONE, STALE, RUNNING, FAILED, MISSING = "done", "stale", "running", "failed", "missing"
PRUNED = "pruned"  # of a trial of a search: given up, since others did better
_JUDGED_BY = (  # what decides about a cell; of a large store the other columns take their time
    *("run_id", "status", schema.VARIANT, schema.SEED, schema.RECIPE_ID, schema.CODE),
    *(schema.FAILURE, schema.FINAL_TOP1),
)
STATES = (DONE, STALE, RUNNING, FAILED, MISSING)
SEARCHING = "the search has selected nothing yet"


def coverage(plan: Plan, runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row a cell of the plan: variant, seed, state, why, run_id (None where missing).

    A cell is stale where it was done by other code than the plan's (`why` is "code") or under another recipe
    ("recipe"). A finished run without a final error counts as failed. Of several records of a cell, the one
    that is nearest to done counts. An interrupted one is missing: the same command goes on with it.
    """
    own = runs.loc[runs[schema.PLAN] == plan.plan_id, [name for name in _JUDGED_BY if name in runs]]
    records: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for record in own.to_dict("records"):
        records.setdefault((record[schema.VARIANT], record[schema.SEED]), []).append(
            {str(key): value for key, value in record.items()}
        )
    rows = []
    for variant in plan.ordered:
        for seed in plan.seeds_of(variant.name):
            judged = [
                (*_judge(plan, variant.recipe_id, record), record["run_id"])
                for record in records.get((variant.name, seed), [])
            ]
            state, why, run_id = min(judged, key=_nearness, default=(MISSING, "", None))
            rows.append((variant.name, seed, state, why, run_id))
    return pd.DataFrame(rows, columns=["variant", "seed", "state", "why", "run_id"])


def counts(frame: pd.DataFrame) -> dict[str, int]:
    """Return the number of cells in each state."""
    found = frame["state"].value_counts()
    return {state: int(found.get(state, 0)) for state in STATES}


def sentence(plan: Plan, frame: pd.DataFrame) -> str:
    """Say in one line how far the plan has come."""
    number = counts(frame)
    done = number[DONE] + number[STALE]
    others = [f"{number[state]} {state}" for state in (RUNNING, FAILED, MISSING) if number[state]]
    told = f"{done} of {len(frame)} cells done" + (", " + ", ".join(others) if others else "")
    for why, words in (("code", "made by earlier code"), ("recipe", "made under another recipe")):
        stale = int(((frame["state"] == STALE) & (frame["why"] == why)).sum())
        told += f"; {stale} of them {words}" if stale else ""
    told += f"; {SEARCHING}" if plan.searching else ""
    return f"{plan.words}: {told}."


def _judge(plan: Plan, recipe_id: str, record: dict[str, Any]) -> tuple[str, str]:
    if record["status"] in ("RUNNING", "SCHEDULED"):
        return RUNNING, ""
    if record["status"] in ("KILLED", liveness.ORPHANED):
        return MISSING, "interrupted" if record["status"] == "KILLED" else "orphaned"
    if record["status"] != "FINISHED":
        return FAILED, str(record[schema.FAILURE] or schema.ERROR)
    if pd.isna(record.get(schema.FINAL_TOP1)):
        return FAILED, f"no {schema.FINAL_TOP1}"
    if record[schema.RECIPE_ID] != recipe_id:
        return STALE, "recipe"
    return (DONE, "") if record[schema.CODE] == plan.code else (STALE, "code")


def _nearness(judged: tuple[str, str, str | None]) -> tuple[int, bool, str]:
    state, why, run_id = judged
    return STATES.index(state), why == "recipe", run_id or ""
