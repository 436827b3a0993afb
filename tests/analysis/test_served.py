"""Reading from a server gives what reading from its database gives, in few requests."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from werkzeug.serving import make_server

from analysis import schema, store
from analysis.store import client


class Served:
    """A server of MLflow in this process, over a copy of a database."""

    def __init__(self, database: Path, folder: Path) -> None:
        shutil.copy(database, folder / "mlflow.db")
        self.database = f"sqlite:///{folder / 'mlflow.db'}"
        self.asked: list[str] = []
        self.missing: set[str] = set()

    def start(self, patch: pytest.MonkeyPatch) -> None:
        from mlflow.server import app, handlers
        from mlflow.server.constants import BACKEND_STORE_URI_ENV_VAR

        patch.setenv(BACKEND_STORE_URI_ENV_VAR, self.database)
        patch.setattr(handlers, "_tracking_store", None)
        # A server makes its database that of its whole process, and so of the tests that come after.
        patch.setattr(handlers.utils, "set_tracking_uri", lambda uri: None)

        def answered(environ: dict[str, str], start: object) -> object:
            self.asked.append(environ["PATH_INFO"])
            if environ["PATH_INFO"] in self.missing:
                environ["PATH_INFO"] = "/not/there"
            return app(environ, start)

        self.server = make_server("127.0.0.1", 0, answered, threaded=True)
        self.uri = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def served(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    found = Served(Path(uri.removeprefix("sqlite:///")), tmp_path_factory.mktemp("served"))
    with pytest.MonkeyPatch.context() as patch:
        found.start(patch)
        yield found
        found.server.shutdown()


def test_a_server_s_records_and_curves_are_those_of_its_database(served: Served) -> None:
    frame = store.runs(served.uri)
    pd.testing.assert_frame_equal(frame, store.runs(served.database))
    names = [schema.TEST_TOP1, schema.FINAL_TOP1, "no/such/metric"]
    expected = store.curves(served.database, frame, names)
    served.asked.clear()
    pd.testing.assert_frame_equal(store.curves(served.uri, frame, names), expected)
    assert len(frame) > client._SERVED and served.asked.count(client._HISTORIES) == 3 * (1 + len(frame) // 100)
    assert not any(path.endswith("get-history") for path in served.asked)


def test_what_a_server_cuts_off_is_asked_for_in_parts(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = store.runs(served.uri).head(20)
    expected = store.curves(served.database, frame, [schema.TEST_TOP1])
    for most in (300, 40, 15, 4):  # all 300 points, two runs, one, less than one
        monkeypatch.setattr(client, "_MOST", most)
        pd.testing.assert_frame_equal(store.curves(served.uri, frame, [schema.TEST_TOP1]), expected)


def test_a_server_without_an_answer_for_many_is_asked_run_by_run(served: Served) -> None:
    frame = store.runs(served.uri).head(4)
    expected = store.curves(served.database, frame, [schema.TEST_TOP1])
    served.missing.add(client._HISTORIES)
    served.asked.clear()
    try:
        pd.testing.assert_frame_equal(store.curves(served.uri, frame, [schema.TEST_TOP1]), expected)
        assert sum(path.endswith("get-history") for path in served.asked) == 4
    finally:
        served.missing.clear()


def test_a_change_on_a_server_is_seen_at_once(served: Served) -> None:
    frame = store.runs(served.uri)
    run_id = frame["run_id"][0]
    owner = MlflowClient(tracking_uri=served.uri)
    owner.set_tag(run_id, schema.COMMIT, "changed")
    owner.log_batch(run_id, [Metric(schema.TEST_TOP1, float("nan"), 2**41, 99), Metric("m", 1e308, 1, 0)])
    found = store.runs(served.uri)
    assert found[schema.COMMIT][0] == "changed"
    last = store.curves(served.uri, found.head(1), [schema.TEST_TOP1]).iloc[-1]
    assert last["epoch"] == 99 and pd.isna(last["value"])
    assert list(store.curves(served.uri, found.head(1), ["m"])["value"]) == [1e308]
