"""The only reader of the tracking store: plans, a tidy frame with a row a record, and one of curves."""

import contextlib
import json
import logging
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before mlflow is imported
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run, ViewType
from mlflow.exceptions import MlflowException

from analysis import schema
from analysis.plan import Plan
from analysis.plan_record import decode_plan, plan_ids
from analysis.rows import COLUMNS, FACTOR, TAGS, TRIAL_TAGS, cell_row, trial_row

_PAGE = 1000  # runs a query
_BATCH = 500  # runs a query of histories: below the variables that SQLite takes in one statement
_NO_LIMIT = 2**31 - 1


class StoreError(ValueError):
    """The tracking store cannot be read; the message says what to do."""


def plans(uri: str) -> list[Plan]:
    """Return the plans of all experiments, by experiment and plan id. StoreError where there is no store."""
    with _readable(uri) as client:
        return [plan for experiment in _experiments(client) for plan in _plans_of(experiment)]


def runs(uri: str, plan: Plan | None = None, cell_id: str | None = None) -> pd.DataFrame:
    """Return one row a cell record, of one plan or of all of them, of one cell or of all of them.

    Columns: COLUMNS, `epochs`, metrics by their own names, and a plan's factors as `factor.NAME` with the
    levels' own types. `seed` is an int, `dirty` a bool, times are UTC; a tag that a record lacks is None.
    """
    with _readable(uri) as client:
        experiments = [e for e in _experiments(client) if plan is None or e.experiment_id == plan.experiment_id]
        known = [plan] if plan else [p for experiment in experiments for p in _plans_of(experiment)]
        names = {experiment.experiment_id: experiment.name for experiment in experiments}
        variants = {(p.plan_id, variant.name): variant for p in known for variant in p.variants}
        wanted = {schema.PLAN: plan.plan_id if plan else None, schema.CELL_ID: cell_id}
        condition = " and ".join(f"tags.{tag} = '{value}'" for tag, value in wanted.items() if value is not None)
        found = _search(client, list(names), condition)
    rows = [cell_row(run, names[run.info.experiment_id], variants) for run in found if schema.CELL_ID in run.data.tags]
    factors = dict.fromkeys(FACTOR + name for p in known for name in p.factors)
    metrics = sorted({name for run in found for name in run.data.metrics})
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
    with _readable(uri) as client:
        found = _search(
            client, [e.experiment_id for e in _experiments(client)], f"tags.{schema.SEARCH} = '{search_id}'"
        )
    columns = ["run_id", "status", "state", *TRIAL_TAGS, schema.EPOCHS, schema.VAL_TOP1, *paths]
    frame = pd.DataFrame([trial_row(run, paths) for run in found], columns=columns)
    return frame.sort_values([schema.TRIAL_NUMBER, "run_id"], ignore_index=True)


def find(uri: str, word: str) -> dict[str, Any]:
    """Return the run that a word means: its id, the beginning of it, or its name, where one run alone has that.

    Keys: run_id, name, experiment, status, `tags`, and `metrics`, the names of those that it has. StoreError where
    there is no such run, or several.
    """
    with _readable(uri) as client:
        names = {experiment.experiment_id: experiment.name for experiment in _experiments(client)}
        found: list[Run] = []
        if re.fullmatch(r"[0-9a-f]{2,32}", word):
            found = _search(client, list(names), f"attributes.run_id LIKE '{word}%'")
        if not found and "'" not in word:
            found = _search(client, list(names), f"attributes.run_name = '{word}'")
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
    with _readable(uri) as client:
        names = {experiment.experiment_id: experiment.name for experiment in _experiments(client)}
        found = _search(client, list(names), "", ViewType.DELETED_ONLY)
    rows = [
        (run.info.run_id, run.info.run_name, names[run.info.experiment_id], run.info.status, run.info.artifact_uri)
        for run in found
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
    ids = list(dict.fromkeys(runs["run_id"]))
    with _readable(uri) as client:
        points = [
            (run_id, metric, point.step, point.value, point.timestamp)
            for metric in metrics
            for run_id, point in _histories(client, ids, metric)
        ]
    keys = ["run_id", "metric", "epoch"]
    frame = pd.DataFrame(points, columns=[*keys, "value", "timestamp"])
    frame = frame.sort_values([*keys, "timestamp"], kind="stable").drop_duplicates(keys, keep="last")
    return frame.drop(columns="timestamp").reset_index(drop=True)


def topologies(uri: str, runs: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the networks of the runs in a frame, as they were recorded: {run_id: topology}.

    A run whose file is not there (moved, or of another version) is left out.
    """
    found = {}
    with _readable(uri) as client:
        for run_id in dict.fromkeys(runs["run_id"]):
            with contextlib.suppress(MlflowException, OSError):
                path = client.download_artifacts(run_id, schema.TOPOLOGY_FILE)
                found[str(run_id)] = json.loads(Path(path).read_text())
    return found


@contextlib.contextmanager
def _readable(uri: str) -> Iterator[MlflowClient]:
    """Give a client, and never a new database: MLflow would make one where none is."""
    path = uri.removeprefix("sqlite:///").partition("?")[0] if uri.startswith("sqlite:///") else None
    if path is not None and not _has_tables(Path(path)):
        raise StoreError(
            f"no tracking store at {path}. Run a grid first, as in `python -m experiments.run "
            "grid=branch_positions`, or name another store (--store or store=DIR)."
        )
    if path is not None:
        # MLflow keeps what it opened by its URI: a relative one would mean another database after a change of folder.
        uri = uri.replace(path, str(Path(path).absolute()), 1)
    # Opening a database, MLflow speaks of migrations at level INFO; a reader has no use for it.
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield MlflowClient(tracking_uri=uri)
    except MlflowException as error:
        raise StoreError(f"the tracking store {uri} cannot be read: {error}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _has_tables(path: Path) -> bool:
    if not path.is_file():
        return False
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone()
        except sqlite3.OperationalError as error:
            raise StoreError(f"the tracking store {path} cannot be read now: {error}.") from None
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{path} is no tracking store ({error}). Name another (--store or store=DIR).") from None
    return found is not None


def _experiments(client: MlflowClient) -> list[Experiment]:
    """Return the experiments that hold a plan, by name."""
    found: list[Experiment] = []
    token: str | None = ""
    while token is not None:
        page = client.search_experiments(max_results=_PAGE, page_token=token or None)
        found += page
        token = page.token or None
    return sorted((e for e in found if plan_ids(e.tags)), key=lambda e: e.name)


def _plans_of(experiment: Experiment) -> list[Plan]:
    return [
        Plan.from_record(
            decode_plan(experiment.tags, plan_id),
            experiment=experiment.name,
            experiment_id=experiment.experiment_id,
        )
        for plan_id in plan_ids(experiment.tags)
    ]


def _search(
    client: MlflowClient, experiment_ids: list[str], condition: str, view: int = ViewType.ACTIVE_ONLY
) -> list[Run]:
    found: list[Run] = []
    token: str | None = "" if experiment_ids else None
    while token is not None:
        page = client.search_runs(experiment_ids, condition, view, max_results=_PAGE, page_token=token or None)
        found += page
        token = page.token or None
    return found


def _histories(client: MlflowClient, run_ids: list[str], metric: str) -> Iterable[tuple[str, Any]]:
    """Give (run id, point) of one metric, ordered by time within a run."""
    # MLflow offers no public call for the histories of many runs. A database store has this one, four times
    # as fast as a call a run; a server's client has not.
    store = getattr(getattr(client, "_tracking_client", None), "store", None)
    bulk = getattr(store, "get_metric_history_bulk", None)
    if bulk is None:
        for run_id in run_ids:
            for point in sorted(client.get_metric_history(run_id, metric), key=lambda point: point.timestamp):
                yield run_id, point
        return
    for start in range(0, len(run_ids), _BATCH):
        for item in bulk(run_ids[start : start + _BATCH], metric, _NO_LIMIT):
            yield item.run_id, item
