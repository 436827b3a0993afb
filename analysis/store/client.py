"""The connection to a tracking store: MLflow's client, and never a new database.

MLflow takes a second to import, and another one to open a database: both wait until something is asked of it.
"""

import contextlib
import logging
import os
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from analysis.plan_record import plan_ids

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before mlflow is imported
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

ACTIVE, DELETED, ALL = "active", "deleted", "all"  # MLflow's words
# Opening a database they speak of migrations, and of an error twice; a reader has no use for it.
_LOUD = {"mlflow": logging.WARNING, "alembic": logging.WARNING, "mlflow.store.db.utils": logging.CRITICAL}
_ERRORS = {
    "mlflow.exceptions": "MlflowException",
    "sqlalchemy.exc": "SQLAlchemyError",
    "alembic.util.exc": "CommandError",
}
_PAGE = 1000  # runs a query
_BATCH = 500  # runs a query of histories: below the variables that SQLite takes in one statement
_NO_LIMIT = 2**31 - 1
_HISTORIES = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
_SERVED, _MOST = 100, 25_000  # runs that a server answers for at once, and points
_OK = 200


class StoreError(ValueError):
    """The tracking store cannot be read; the message says what to do."""


class NoStoreError(StoreError):
    """There is no tracking store: nothing was run yet."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment as MLflow tells it."""

    experiment_id: str
    name: str
    tags: Mapping[str, str]


class Store:
    """A tracking store. `database` is the file of an embedded one."""

    def __init__(self, uri: str, database: Path | None) -> None:
        self._uri, self.database = uri, database

    @cached_property
    def client(self) -> "MlflowClient":
        """MLflow's client, which opens the store."""
        from mlflow import MlflowClient  # noqa: PLC0415  (see above)

        _quieten()  # anew: importing it has set them
        return MlflowClient(tracking_uri=self._uri)

    def experiments(self) -> list[Experiment]:
        """Return the experiments that hold a plan, by name."""
        found: list[Experiment] = []
        token: str | None = ""
        while token is not None:
            page = self.client.search_experiments(max_results=_PAGE, page_token=token or None)
            found += (Experiment(str(e.experiment_id), str(e.name), dict(e.tags)) for e in page if plan_ids(e.tags))
            token = page.token or None
        return sorted(found, key=lambda e: e.name)

    def search(self, experiment_ids: Sequence[str], condition: str = "", stage: str = ACTIVE) -> Iterator["Run"]:
        """Give the runs of experiments that meet a condition, a page at a time: they take ten times their room."""
        from mlflow.entities import ViewType  # noqa: PLC0415  (see above)

        view = ViewType.from_string(f"{stage}_only" if stage != ALL else stage)
        token: str | None = "" if experiment_ids else None
        while token is not None:
            page = self.client.search_runs(
                list(experiment_ids), condition, view, max_results=_PAGE, page_token=token or None
            )
            yield from page
            token = page.token or None

    def artifact(self, run_id: str, place: str, name: str) -> Path:
        """Return a file of a run, whose `artifact_uri` is the place. OSError where there is none."""
        if place.startswith("file://"):
            return Path(unquote(urlsplit(place).path)) / name
        from mlflow.exceptions import MlflowException  # noqa: PLC0415  (see above)

        try:
            return Path(self.client.download_artifacts(run_id, name))
        except MlflowException as error:
            raise FileNotFoundError(str(error)) from error

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
        from mlflow.entities import Metric  # noqa: PLC0415  (see above)
        from mlflow.utils.rest_utils import http_request  # noqa: PLC0415

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


def database_of(uri: str) -> Path | None:
    """Return the file of an embedded store; None where a server keeps it."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


@contextlib.contextmanager
def opened(uri: str) -> Iterator[Store]:
    """Open a store, and never a new database: MLflow would make one where none is. StoreError where it cannot."""
    path = database_of(uri)
    if path is not None and not _has_tables(path):
        raise NoStoreError(
            f"no tracking store at {path}. Run a grid first, as in `python -m experiments.run "
            "grid=branch_positions`, or name another store (--store or store=DIR)."
        )
    if path is not None:
        # MLflow keeps what it opened by its URI: a relative one would mean another database after a change of folder.
        uri = uri.replace(str(path), str(path.absolute()), 1)
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    _quieten()
    try:
        yield Store(uri, None if path is None else path.resolve())
    except Exception as error:
        if not isinstance(error, tuple(_errors())):
            raise
        said = str(error).strip().splitlines()[0]
        raise StoreError(
            f"the tracking store {uri} cannot be read ({said}): name another (--store or store=DIR), or move the "
            "damaged file away"
            if path is not None
            else f"the tracking store {uri} cannot be read: {error}"
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _errors() -> Iterator[type[Exception]]:
    """What MLflow and what it is made of raise, as far as it is loaded: before that nothing was asked of it."""
    for module, name in _ERRORS.items():
        if module in sys.modules:
            yield getattr(sys.modules[module], name)


def _quieten() -> None:
    for name, level in _LOUD.items():
        logging.getLogger(name).setLevel(level)


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
