"""A row of a frame from an MLflow run: a cell's, or that of a trial of a search."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from analysis import coverage, liveness, schema
from analysis.plan import VariantRecord
from analysis.store.records import Record

T = TypeVar("T")

TAGS = (
    schema.CELL_ID,
    schema.RECIPE_ID,
    schema.PLAN,
    schema.GRID,
    schema.BENCHMARK,
    schema.VARIANT,
    schema.ROLE,
    schema.SEED,
    schema.METHOD,
    schema.ARCH,
    schema.COMMIT,
    schema.DIRTY,
    schema.CODE,
    schema.DATA,
    schema.ATTEMPTS,
    schema.SOURCE_RUN,
    schema.FAILURE,
    schema.FAILURE_MESSAGE,
)
TRIAL_TAGS = (
    schema.TRIAL_ID,
    schema.TRIAL_NUMBER,
    schema.SEED,
    schema.COMMIT,
    schema.DIRTY,
    schema.CODE,
    schema.ATTEMPTS,
    schema.FAILURE_MESSAGE,
)
COLUMNS = ("run_id", "experiment", "status", "start_time", "end_time", "artifact_uri", *TAGS)
_STATES = {
    "FINISHED": coverage.DONE,
    "RUNNING": coverage.RUNNING,
    "SCHEDULED": coverage.RUNNING,
    "KILLED": coverage.MISSING,
    liveness.ORPHANED: coverage.MISSING,
}  # of a trial, by MLflow's words
FACTOR = "factor."  # prefix of the columns that hold a plan's factors


def cell_row(run: Record, experiment: str, variants: dict[tuple[str, str], VariantRecord]) -> dict[str, Any]:
    """Return the row of a cell's run, see `store.runs`. ValueError where its record is damaged.

    What a variant is called follows from its plan's factors, so it may have been recorded under an earlier name: by its
    recipe it is known for what it is, and has the name that the plan has for it now.

    Args:
        variants: by plan and recipe id, and by plan and name.
    """
    tags = run.tags
    plan = tags.get(schema.PLAN, "")
    variant = variants.get((plan, tags.get(schema.RECIPE_ID, ""))) or variants.get((plan, tags.get(schema.VARIANT, "")))
    epochs = run.params.get(schema.EPOCHS)
    row: dict[str, Any] = {name: tags.get(name) for name in TAGS}
    if variant is not None:
        row |= {schema.VARIANT: variant.name, schema.ROLE: variant.role}
    row[schema.SEED] = _read(run, tags, schema.SEED, int)
    row[schema.DIRTY] = tags.get(schema.DIRTY) == "true"
    row[schema.ATTEMPTS] = _read(run, tags, schema.ATTEMPTS, int) if schema.ATTEMPTS in tags else None
    row |= {
        "run_id": run.run_id,
        "experiment": experiment,
        "status": liveness.status(run.status, run.tags),
        "start_time": run.start_time,
        "end_time": run.end_time,
        "artifact_uri": run.artifact_uri,
        schema.EPOCHS: _read(run, run.params, schema.EPOCHS, int) if epochs else None,
    }
    # Params are strings; the plan knows the levels' own types. A variant that left the plan keeps no factors.
    row |= {FACTOR + name: level for name, level in (variant.factors if variant else {}).items()}
    return {**row, **run.metrics}


def trial_row(run: Record, paths: Sequence[str]) -> dict[str, Any]:
    """Return the row of a trial's run, see `store.trials`. ValueError where its record is damaged."""
    tags, params = run.tags, run.params
    row: dict[str, Any] = {name: tags.get(name) for name in TRIAL_TAGS}
    pruned = tags.get(schema.PRUNED)
    status = liveness.status(run.status, tags)
    row |= {
        "run_id": run.run_id,
        "status": status,
        "state": coverage.PRUNED if pruned else _STATES.get(status, coverage.FAILED),
        schema.TRIAL_NUMBER: _read(run, tags, schema.TRIAL_NUMBER, int),
        schema.ATTEMPTS: _read(run, tags, schema.ATTEMPTS, int),
        schema.DIRTY: tags.get(schema.DIRTY) == "true",
        schema.EPOCHS: _read(run, tags, schema.PRUNED, int) if pruned else _read(run, params, schema.EPOCHS, int),
        schema.VAL_TOP1: run.metrics.get(schema.VAL_TOP1, math.nan),
    }
    return row | {path: _read(run, params, path, float) for path in paths}


def _read(run: Record, values: Mapping[str, str], name: str, convert: Callable[[str], T]) -> T:
    """A tag or a param as what it must be. ValueError names the run where it was damaged or made by somebody else."""
    try:
        return convert(values[name])
    except (KeyError, ValueError, OverflowError) as error:
        raise ValueError(
            f"the record of run {run.run_id} ({run.name}) is damaged: {name} is "
            f"{values.get(name, 'missing')!r}. Delete this run in MLflow; its grid trains the cell again"
        ) from error
