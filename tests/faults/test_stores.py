"""Where the record cannot be written for a while, or for good: nothing is lost, and somebody says what to do."""

import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from analysis import schema
from analysis import store as reader
from tests.faults.conftest import PATIENCE, Study, make_study, until
from tests.faults.sabotage import SLOW


def mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this test needs to mount a file system, which is not permitted here: {done.stderr.strip()}")


@pytest.fixture
def small(tmp_path: Path, empty_database: Path) -> Iterator[Study]:
    """A study whose store is a small disk of its own."""
    store = tmp_path / "place" / "store"
    store.mkdir(parents=True)
    mount("-t", "tmpfs", "-o", "size=24m", "tmpfs", str(store))
    try:
        study = Study(tmp_path / "place")
        (store / "mlflow.db").write_bytes(empty_database.read_bytes())
        yield study
        study.end()
    finally:
        subprocess.run(["umount", "--lazy", str(store)], check=True)


def fill(folder: Path) -> Path:
    """Take all room but a little."""
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast


def test_a_full_disk_stops_the_study_in_order_and_no_cell_has_failed(small: Study) -> None:
    started = small.start("epochs=40", fault=SLOW)
    until(lambda: len(small.checkpoints()) == 2, "two cells have a checkpoint")
    ballast = fill(small.store)
    shown = started.ends(1)
    assert "the disk is full: make room, then give the same command again" in " ".join(shown.split())
    assert "Traceback" not in shown and "failed" not in shown
    assert "3 cells are missing; the same command goes on" in shown
    until(lambda: not started.members(), "no process is left", 30)
    again = small.start("epochs=40", fault=SLOW)
    assert again.process.wait(PATIENCE) in (1, 2), "by whether there is room for a byte"
    assert again.shown.startswith("error: ") and len(again.shown.splitlines()) == 1
    assert "the disk is full: make room" in again.shown or "(No space left on device)" in again.shown
    ballast.unlink()
    small.run("epochs=40")
    small.assert_as_if_undisturbed()
    resumed = [small.environment_of(name).get("resumed_at_epoch") for name in ("plain", "dsl", "dhm")]
    assert len([epoch for epoch in resumed if epoch]) >= 1, "they went on from their checkpoints"


def test_a_store_that_becomes_read_only_stops_the_study_in_order(small: Study) -> None:
    started = small.start("epochs=40", fault=SLOW)
    until(lambda: len(small.checkpoints()) == 2, "two cells have a checkpoint")
    folder = small.store / "checkpoints"
    mount("-t", "tmpfs", "-o", "ro", "tmpfs", str(folder))
    try:
        shown = started.ends(1)
        assert "the disk is read-only: make it writable, then give the same command again" in " ".join(shown.split())
        assert "Traceback" not in shown and "RUNNING" not in small.statuses()
        until(lambda: not started.members(), "no process is left", 30)
        refused = small.run("epochs=40", code=2)
        assert "cannot be written (Read-only file system)" in refused and "Traceback" not in refused
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    small.run("epochs=40")
    small.assert_as_if_undisturbed()


def test_a_journal_whose_last_line_is_cut_short_is_mended(study: Study) -> None:
    study.run()
    journal = study.store / "optuna.journal"
    journal.write_bytes(journal.read_bytes()[:-9])
    shown = study.run("seeds=2")
    assert "ended in the middle of a line" in shown and "6 of 6 cells done (3 trained now)" in shown
    assert "0 to run" in study.run("seeds=2")
    study.assert_as_if_undisturbed(6)


@contextlib.contextmanager
def locked(database: Path) -> Iterator[None]:
    """As a program that browses databases may do it."""
    with contextlib.closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


def test_a_database_that_another_program_locks_is_waited_for(study: Study) -> None:
    started = study.start("epochs=40", fault=SLOW)
    until(lambda: len(study.checkpoints()) == 2, "two cells have a checkpoint")
    with locked(study.store / "mlflow.db"):
        until(lambda: "training goes on, and is recorded later" in started.shown, "a run has noticed")
    shown = started.ends(0)
    assert "Traceback" not in shown
    study.assert_as_if_undisturbed()
    assert set(study.attempts().values()) == {1}


class Server:
    """An MLflow server on this machine."""

    def __init__(self, folder: Path, database: Path) -> None:
        folder.mkdir()
        (folder / "mlflow.db").write_bytes(database.read_bytes())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._folder = folder
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = ["--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}", "--workers", "1"]
        words += ["--artifacts-destination", str(self._folder / "artifacts")]
        words += ["--host", "127.0.0.1", "--port", str(self._port)]
        with (self._folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *words],
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(self._answers, f"the server answers; {self._folder / 'log'}")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1) as connection:
            connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            return b"200" in connection.recv(64)
        return False

    def stop(self) -> None:
        """At once, as if its machine had lost power."""
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path: Path, empty_database: Path) -> Iterator[Server]:
    made = Server(tmp_path / "server", empty_database)
    made.start()
    yield made
    made.stop()


def test_a_server_that_goes_away_and_comes_back_costs_no_run(
    tmp_path: Path, empty_database: Path, server: Server
) -> None:
    study = make_study(tmp_path / "place", empty_database)
    words = (f"tracking={server.uri}", "epochs=30", "seeds=2")
    started = study.start(*words, fault=SLOW)
    until(lambda: len(study.checkpoints()) == 2, "two cells have a checkpoint")
    server.stop()
    away = time.monotonic()
    until(lambda: "training goes on, and is recorded later" in started.shown, "a run has noticed")
    until(lambda: time.monotonic() - away > 12, "the outage is over")
    assert started.process.poll() is None, started.shown
    server.start()
    shown = started.ends(0)
    assert "Traceback" not in shown and "6 of 6 cells done (6 trained now)" in shown
    assert "the tracking store answers again" in shown
    client = MlflowClient(server.uri)
    frame = reader.runs(server.uri)
    assert list(frame["status"]) == ["FINISHED"] * 6 and set(frame[schema.ATTEMPTS].astype(int)) == {1}
    for run_id in frame["run_id"]:
        points = client.get_metric_history(run_id, schema.TEST_TOP1)
        assert [point.step for point in points] == list(range(30)), "no point is lost, none stands twice"
        assert {found.path for found in client.list_artifacts(run_id)} >= {schema.RECIPE_FILE, schema.WEIGHTS_FILE}
    assert "6 cells: 6 done, 0 failed, 0 missing" in " ".join(study.run(*words, "plan=true").split())


def test_a_server_that_stays_away_ends_the_study_in_order(tmp_path: Path, empty_database: Path, server: Server) -> None:
    study = make_study(tmp_path / "place", empty_database)
    words = (f"tracking={server.uri}", "epochs=30")
    started = study.start(*words, "study.patience=4", fault=SLOW)
    until(lambda: len(study.checkpoints()) == 2, "two cells have a checkpoint")
    server.stop()
    shown = started.ends(1)
    told = " ".join(shown.split())
    assert "the tracking store does not answer: bring it back, then give the same command again" in told
    assert "Traceback" not in shown
    refused = study.run(*words, code=2)
    assert "see that it runs, or name another with tracking=URI" in refused and "Traceback" not in refused
    server.start()
    assert "3 of 3 cells done" in study.run(*words)
