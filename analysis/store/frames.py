"""What is read of a store, as frames."""

import contextlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pandas as pd

from analysis import schema
from analysis.plan import Plan
from analysis.plan_record import decode_plan, plan_ids
from analysis.store import histories
from analysis.store.cache import Cache
from analysis.store.client import DELETED, Experiment, StoreError, database_of, opened
from analysis.store.experiments import experiments
from analysis.store.records import records
from analysis.store.rows import COLUMNS, FACTOR, TAGS, TRIAL_TAGS, cell_row, trial_row

USUAL = Path("results/store/mlflow.db")  # where a study is recorded unless it is told otherwise

if TYPE_CHECKING:
    from mlflow.entities import Run


def plans(uri: str) -> list[Plan]:
    """Return the plans of all experiments, by experiment and plan id. StoreError where there is no store."""
    with opened(uri) as store:
        return [plan for experiment in experiments(store) for plan in _plans_of(experiment, uri)]


def runs(uri: str, plan: Plan | None = None, cell_id: str | None = None) -> pd.DataFrame:
    """Return one row a cell record, of one plan or of all of them, of one cell or of all of them.

    Columns: COLUMNS, `epochs`, metrics by their own names, and a plan's factors as `factor.NAME` with the
    levels' own types. `seed` is an int, `dirty` a bool, times are UTC; a tag that a record lacks is None.
    """
    with opened(uri) as store:
        own = [e for e in experiments(store) if plan is None or e.experiment_id == plan.experiment_id]
        known = [plan] if plan else [p for experiment in own for p in _plans_of(experiment, uri)]
        names = {experiment.experiment_id: experiment.name for experiment in own}
        variants = {
            (p.plan_id, key): variant
            for p in known
            for variant in p.variants
            for key in (variant.name, variant.recipe_id)
        }
        tags = {schema.PLAN: plan.plan_id if plan else None, schema.CELL_ID: cell_id}
        wanted = {tag: value for tag, value in tags.items() if value is not None}
        found = records(store, list(names), wanted, few=cell_id is not None)
    rows = [cell_row(run, names[run.experiment_id], variants) for run in found if schema.CELL_ID in run.tags]
    factors = dict.fromkeys(FACTOR + name for p in known for name in p.factors)
    metrics = sorted({name for run in found for name in run.metrics})
    frame = pd.DataFrame(rows, columns=[*COLUMNS, schema.EPOCHS, *factors, *metrics])
    for name in (*TAGS, *factors):
        frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    frame[schema.SEED] = frame[schema.SEED].astype(int)
    frame[schema.DIRTY] = frame[schema.DIRTY].astype(bool)
    for name in ("start_time", "end_time"):
        frame[name] = pd.to_datetime(frame[name], unit="ms", utc=True)
    order = [schema.BENCHMARK, schema.GRID, schema.PLAN, schema.VARIANT, schema.SEED, "run_id"]
    return frame.sort_values(order, ignore_index=True)


def trials(uri: str, search_id: str, paths: Sequence[str]) -> pd.DataFrame:
    """Return one row a trial of a search, in the order of their numbers.

    Columns: run_id, status, `state` (of `analysis.coverage`; an interrupted trial is missing), the tags of TRIAL_TAGS,
    `epochs` that were done of those that were asked for, the last error on held-out training images, and the
    setting, a column for each of `paths`.
    """
    with opened(uri) as store:
        found = records(store, [e.experiment_id for e in experiments(store)], {schema.SEARCH: search_id})
    columns = ["run_id", "status", "state", *TRIAL_TAGS, schema.EPOCHS, schema.VAL_TOP1, *paths]
    frame = pd.DataFrame([trial_row(run, paths) for run in found], columns=columns)
    return frame.sort_values([schema.TRIAL_NUMBER, "run_id"], ignore_index=True)


def find(uri: str, word: str) -> dict[str, Any]:
    """Return the run that a word means: its id, the beginning of it, or its name, where one run alone has that.

    Keys: run_id, name, experiment, status, `tags`, and `metrics`, the names of those that it has. StoreError where
    there is no such run, or several.
    """
    with opened(uri) as store:
        names = {experiment.experiment_id: experiment.name for experiment in experiments(store)}
        found: list[Run] = []
        if re.fullmatch(r"[0-9a-f]{1,32}", word):
            found = list(store.search(list(names), f"attributes.run_id LIKE '{word}%'"))
        if not found and "'" not in word:
            found = list(store.search(list(names), f"attributes.run_name = '{word}'"))
    if len(found) != 1:
        what = "no run" if not found else f"{len(found)} runs"
        named = sorted(f"{run.info.run_id} ({names[run.info.experiment_id]} {run.info.run_name})" for run in found)
        which = f": {', '.join(named[:5])}{', ...' if len(named) > 5 else ''}" if found else ""
        raise StoreError(
            f"{what} of {uri} {'has the id or the name' if not found else 'are meant by'} {word!r}{which}. Give a "
            "whole run id; the JSON beside every table names them, and so does MLflow's page of a run"
        )
    (run,) = found
    return {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "experiment": names[run.info.experiment_id],
        "status": run.info.status,
        "tags": run.data.tags,
        "metrics": sorted(run.data.metrics),
    }


def discarded(uri: str) -> pd.DataFrame:
    """Return one row a run in MLflow's bin: run_id, name, experiment, status, artifact_uri."""
    with opened(uri) as store:
        names = {experiment.experiment_id: experiment.name for experiment in experiments(store)}
        found = records(store, list(names), stage=DELETED)
    rows = [
        (run.run_id, run.name, names[run.experiment_id], run.status, run.artifact_uri)
        for run in sorted(found, key=lambda run: (-(run.start_time or 0), run.run_id))
    ]
    return pd.DataFrame(rows, columns=["run_id", "name", "experiment", "status", "artifact_uri"])


def unique_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame without copies of records that it has: a cell of several plans counts once."""
    origin = frame[schema.SOURCE_RUN].where(frame[schema.SOURCE_RUN].notna(), frame["run_id"])
    copied_last = frame.assign(_origin=origin).sort_values(schema.SOURCE_RUN, na_position="first", kind="stable")
    kept = copied_last.drop_duplicates("_origin").index
    return frame.loc[frame.index.isin(kept)].reset_index(drop=True)


def curves(uri: str, runs: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Return the histories of `metrics` of the runs in a frame: run_id, metric, epoch, value, sorted.

    Where a step was written twice the last one by time stays.
    """
    with opened(uri) as store:
        return histories.read(store, list(dict.fromkeys(runs["run_id"])), metrics)


def kept_beside(uri: str) -> Path | None:
    """Return the folder for what may be lost, beside an embedded store; None where there is none."""
    database = database_of(uri)
    return None if database is None else Cache(database.resolve()).folder


def topologies(uri: str, runs: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the networks of the runs in a frame, as they were recorded: {run_id: topology}.

    A run whose file is not there (moved, or of another version) is left out.
    """
    found = {}
    with opened(uri) as store:
        for run_id, place in dict(zip(runs["run_id"], runs["artifact_uri"], strict=True)).items():
            with contextlib.suppress(OSError):
                found[str(run_id)] = json.loads(store.artifact(run_id, place, schema.TOPOLOGY_FILE).read_text())
    return found


def _plans_of(experiment: Experiment, uri: str) -> list[Plan]:
    return [
        Plan.from_record(
            decode_plan(experiment.tags, plan_id),
            experiment=experiment.name,
            experiment_id=experiment.experiment_id,
            place=place(uri),
        )
        for plan_id in plan_ids(experiment.tags)
    ]


def place(uri: str) -> list[str]:
    """Return what a command says to find a store; nothing where it finds it by itself, and no password."""
    if os.environ.get("MLFLOW_TRACKING_URI") == uri or urlsplit(uri).password is not None:
        return []
    database = database_of(uri)
    if database is None or database.name != USUAL.name:
        return [f"tracking={uri}"]
    folder = database.parent.resolve()
    if folder == USUAL.parent.resolve():
        return []
    here = Path.cwd()
    return [f"store={folder.relative_to(here) if folder.is_relative_to(here) else folder}"]
