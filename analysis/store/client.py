"""The connection to a tracking store: MLflow's client, and never a new database."""

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before mlflow is imported
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.rest_utils import http_request

from analysis.plan_record import plan_ids

_PAGE = 1000  # runs a query
_BATCH = 500  # runs a query of histories: below the variables that SQLite takes in one statement
_NO_LIMIT = 2**31 - 1
_HISTORIES = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
_SERVED, _MOST = 100, 25_000  # runs that a server answers for at once, and points
_OK = 200


class StoreError(ValueError):
    """The tracking store cannot be read; the message says what to do."""


@dataclass(frozen=True)
class Store:
    """A tracking store that is open. `database` is the file of an embedded one."""

    client: MlflowClient
    database: Path | None

    def experiments(self) -> list[Experiment]:
        """Return the experiments that hold a plan, by name."""
        found: list[Experiment] = []
        token: str | None = ""
        while token is not None:
            page = self.client.search_experiments(max_results=_PAGE, page_token=token or None)
            found += page
            token = page.token or None
        return sorted((e for e in found if plan_ids(e.tags)), key=lambda e: str(e.name))

    def search(
        self, experiment_ids: Sequence[str], condition: str = "", view: int = ViewType.ACTIVE_ONLY
    ) -> Iterator[Run]:
        """Give the runs of experiments that meet a condition, a page at a time: they take ten times their room."""
        token: str | None = "" if experiment_ids else None
        while token is not None:
            page = self.client.search_runs(
                list(experiment_ids), condition, view, max_results=_PAGE, page_token=token or None
            )
            yield from page
            token = page.token or None

    def histories(self, run_ids: Sequence[str], metric: str) -> Iterable[tuple[str, Any]]:
        """Give (run id, point) of one metric, ordered by time within a run."""
        # MLflow offers no public call for the histories of many runs, and one for each takes four times as long from a
        # database, and a request each from a server. Both answer for many, the server as its own page asks it.
        store = getattr(getattr(self.client, "_tracking_client", None), "store", None)
        bulk = getattr(store, "get_metric_history_bulk", None)
        credentials = getattr(store, "get_host_creds", None)
        if bulk is not None:
            for start in range(0, len(run_ids), _BATCH):
                for item in bulk(run_ids[start : start + _BATCH], metric, _NO_LIMIT):
                    yield item.run_id, item
        elif credentials is not None:
            for start in range(0, len(run_ids), _SERVED):
                yield from self._served(credentials(), run_ids[start : start + _SERVED], metric)
        else:
            yield from self._one_by_one(run_ids, metric)

    def _served(self, credentials: Any, run_ids: Sequence[str], metric: str) -> Iterable[tuple[str, Any]]:
        wanted = [*(("run_id", run_id) for run_id in run_ids), ("metric_key", metric), ("max_results", _MOST)]
        answer = http_request(credentials, _HISTORIES, "GET", params=wanted, raise_on_status=False)
        points = answer.json()["metrics"] if answer.status_code == _OK else None
        if points is not None and len(points) < _MOST:
            for point in points:
                yield point["run_id"], Metric(metric, point["value"], point["timestamp"], point["step"])
        elif points is not None and len(run_ids) > 1:  # cut off
            half = len(run_ids) // 2
            yield from self._served(credentials, run_ids[:half], metric)
            yield from self._served(credentials, run_ids[half:], metric)
        else:
            yield from self._one_by_one(run_ids, metric)

    def _one_by_one(self, run_ids: Sequence[str], metric: str) -> Iterable[tuple[str, Any]]:
        for run_id in run_ids:
            points = self.client.get_metric_history(run_id, metric)
            for point in sorted(points, key=lambda point: int(point.timestamp)):
                yield run_id, point


@contextlib.contextmanager
def opened(uri: str) -> Iterator[Store]:
    """Open a store, and never a new database: MLflow would make one where none is. StoreError where it cannot."""
    path = Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None
    if path is not None and not _has_tables(path):
        raise StoreError(
            f"no tracking store at {path}. Run a grid first, as in `python -m experiments.run "
            "grid=branch_positions`, or name another store (--store or store=DIR)."
        )
    if path is not None:
        # MLflow keeps what it opened by its URI: a relative one would mean another database after a change of folder.
        uri = uri.replace(str(path), str(path.absolute()), 1)
    # Opening a database, MLflow speaks of migrations at level INFO; a reader has no use for it.
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield Store(MlflowClient(tracking_uri=uri), None if path is None else path.resolve())
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
