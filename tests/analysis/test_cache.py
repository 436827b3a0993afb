"""What was read is kept beside the store: after any change a reading is what it would be without that."""

import logging
import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from analysis import schema, store
from analysis.store import changes
from analysis.store.cache import Cache
from tests.analysis import synthetic

CURVES = (schema.TEST_TOP1, "added")
SETTLED = 0.05  # seconds; far above a tick of the clock of a file system


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_SETTLED", SETTLED)


class Place:
    """A small store of two grids and a search, and what may happen to it."""

    def __init__(self, folder: Path, database: Path) -> None:
        folder.mkdir()
        shutil.copy(database, folder / "mlflow.db")
        self.database = folder / "mlflow.db"
        self.uri = f"sqlite:///{self.database}"
        self.client = MlflowClient(tracking_uri=self.uri)
        self.cache = folder / "cache"
        self.plans = [synthetic.plan_record("methods", plan_id=f"p{number}", seeds=2) for number in range(2)]
        self.plans[1]["grid"] = "others"
        for plan in self.plans:
            synthetic.write_grid(self.client, plan, epochs=3)
        self.trial(0)

    def trial(self, number: int) -> str:
        experiment = synthetic.experiment_id(self.client, "digits/methods")
        tags = {schema.SEARCH: "s1", schema.TRIAL_NUMBER: str(number), schema.ATTEMPTS: "1", schema.SEED: "1000"}
        run = self.client.create_run(experiment, tags=tags)
        self.client.log_param(run.info.run_id, schema.EPOCHS, 3)
        return str(run.info.run_id)

    def cell(self, **changes: Any) -> str:
        plan = random.choice(self.plans)
        return synthetic.write_cell(self.client, plan, plan["variants"][1], random.randrange(9), epochs=3, **changes)

    def ids(self) -> list[str]:
        return sorted(store.runs(self.uri)["run_id"])

    def one(self) -> str:
        return random.choice(self.ids())

    def kept(self) -> list[Path]:
        return sorted(path for path in self.cache.rglob("*") if path.is_file())

    def back_up(self, target: Path) -> None:
        with closing(sqlite3.connect(self.database)) as source, closing(sqlite3.connect(target)) as copy:
            source.backup(copy)

    def restore(self, source: Path) -> None:
        with closing(sqlite3.connect(source)) as copy, closing(sqlite3.connect(self.database)) as target:
            copy.backup(target)


def readings(uri: str) -> dict[str, pd.DataFrame]:
    everything = store.runs(uri)
    found = {plan.plan_id: store.runs(uri, plan) for plan in store.plans(uri)}
    found |= {"all": everything, "bin": store.discarded(uri), "trials": store.trials(uri, "s1", [])}
    found |= {"plans": pd.DataFrame([repr(plan) for plan in store.plans(uri)])}
    return found | {"curves": store.curves(uri, everything, CURVES)}


def directly(uri: str) -> dict[str, pd.DataFrame]:
    """All readings with nothing kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cache, "read", lambda _self, _kind, _experiment, columns: columns.empty_table())
        patch.setattr(Cache, "write", lambda *_: None)
        return readings(uri)


def assert_equal(found: dict[str, pd.DataFrame], expected: dict[str, pd.DataFrame], told: str = "") -> None:
    assert found.keys() == expected.keys(), told
    for name, frame in expected.items():
        pd.testing.assert_frame_equal(found[name], frame, check_exact=True, obj=f"{told} {name}")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Place:
    return Place(tmp_path_factory.mktemp("template") / "store", empty_database)


@pytest.fixture
def place(template: Place, tmp_path: Path) -> Iterator[Place]:
    """The store of the template as it was at first, nothing kept."""
    before = tmp_path / "before.db"
    template.back_up(before)
    shutil.rmtree(template.cache, ignore_errors=True)
    yield template
    template.restore(before)


class Calls:
    """What MLflow was asked for."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.runs = self.points = 0
        search, histories = MlflowClient.search_runs, store.client.Store.histories

        def counted_search(*args: Any, **options: Any) -> Any:
            found = search(*args, **options)
            self.runs += len(found)
            return found

        def counted_histories(*args: Any) -> Any:
            found = list(histories(*args))
            self.points += len(found)
            return found

        patch.setattr(MlflowClient, "search_runs", counted_search)
        patch.setattr(store.client.Store, "histories", counted_histories)

    def taken(self) -> tuple[int, int]:
        found, self.runs, self.points = (self.runs, self.points), 0, 0
        return found


def test_what_has_not_changed_is_not_asked_for_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = store.runs(place.uri)
    curves = store.curves(place.uri, frame, [schema.TEST_TOP1])
    time.sleep(2 * SETTLED)
    store.runs(place.uri)
    calls = Calls(monkeypatch)
    pd.testing.assert_frame_equal(store.runs(place.uri), frame)
    pd.testing.assert_frame_equal(store.curves(place.uri, frame, [schema.TEST_TOP1]), curves)
    assert calls.taken() == (0, 0)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "__init__", None)  # nor is it opened
        pd.testing.assert_frame_equal(store.runs(place.uri), frame)
        assert [plan.plan_id for plan in store.plans(place.uri)] == ["p0", "p1"]
    place.client.set_tag(frame["run_id"][3], schema.CODE, "another")
    again = store.runs(place.uri)
    assert list(again[schema.CODE]).count("another") == 1 and again[schema.CODE][3] == "another"
    assert calls.taken() == (1, 0)
    store.curves(place.uri, frame, [schema.TEST_TOP1])
    assert calls.taken() == (0, 3)
    new = place.cell()
    assert new in set(store.runs(place.uri)["run_id"])
    assert calls.taken() == (1, 0)


EDITS: dict[str, Callable[[Place], object]] = {
    "nothing": lambda p: None,
    "settle": lambda p: time.sleep(2 * SETTLED),
    "finish a new one": lambda p: p.cell(),
    "fail a new one": lambda p: p.cell(status="FAILED", failure="error"),
    "begin a new one": lambda p: p.cell(status="RUNNING"),
    "copy": lambda p: p.cell(source_run=p.one()),
    "propose a trial": lambda p: p.trial(random.randrange(9)),
    "end": lambda p: p.client.set_terminated(p.one(), random.choice(["FINISHED", "FAILED", "KILLED"])),
    "reopen": lambda p: p.client.update_run(p.one(), status="RUNNING"),
    "rename": lambda p: p.client.update_run(p.one(), name=f"name {random.random()}"),
    "tag": lambda p: p.client.set_tag(p.one(), random.choice([schema.CODE, schema.COMMIT]), str(random.random())),
    "move to another plan": lambda p: p.client.set_tag(p.one(), schema.PLAN, random.choice(["p0", "p1"])),
    "drop a tag": lambda p: p.client.delete_tag(p.one(), schema.DATA),
    "tag as no cell": lambda p: p.client.delete_tag(p.one(), schema.CELL_ID),
    "add a param": lambda p: p.client.log_param(p.one(), f"param {random.random()}", 1),
    "a point more": lambda p: p.client.log_metric(p.one(), schema.TEST_TOP1, random.random(), step=random.randrange(9)),
    "a point before": lambda p: p.client.log_metric(
        p.one(), schema.TEST_TOP1, random.random(), timestamp=2**41, step=1
    ),
    "a new curve": lambda p: p.client.log_metric(p.one(), "added", float("nan"), step=1),
    "a hair's breadth": lambda p: p.client.log_metric(
        p.one(), schema.FINAL_TOP1, 14.0 + random.random() * 1e-14, timestamp=2**41, step=9
    ),
    "discard": lambda p: p.client.delete_run(p.one()),
    "take out of the bin": lambda p: [p.client.restore_run(r) for r in store.discarded(p.uri)["run_id"].head(1)],
    "delete for good": lambda p: p.client._tracking_client.store._hard_delete_run(p.one()),
    "another plan": lambda p: synthetic.write_plan(
        p.client, {**synthetic.plan_record("methods", plan_id="p1", seeds=random.randrange(1, 9)), "grid": "others"}
    ),
    "discard a grid": lambda p: p.client.delete_experiment(synthetic.experiment_id(p.client, "digits/others")),
    "discard a grid and restore it": lambda p: [
        change(synthetic.experiment_id(p.client, "digits/others"))
        for change in (p.client.delete_experiment, p.client.restore_experiment)
    ],
}


@pytest.mark.parametrize("edit", EDITS)
def test_after_a_change_a_reading_is_that_without_a_cache(place: Place, edit: str) -> None:
    random.seed(edit)
    readings(place.uri)
    time.sleep(2 * SETTLED)
    readings(place.uri)
    EDITS[edit](place)
    time.sleep(2 * SETTLED)
    assert_equal(readings(place.uri), directly(place.uri), edit)


@pytest.mark.parametrize("seed", range(2))
def test_after_changes_of_all_kinds_a_reading_is_that_without_a_cache(place: Place, tmp_path: Path, seed: int) -> None:
    random.seed(seed)
    edits = {**EDITS, "back to a copy of before": lambda p: p.restore(tmp_path / "before.db")}
    told = []
    for number in range(20):
        told.append("discard a grid" if number == 15 else random.choice([name for name in edits if "grid" not in name]))
        edits[told[-1]](place)
        if random.random() < 0.8:
            assert_equal(readings(place.uri), directly(place.uri), f"seed {seed}: {', '.join(told)}")
            told.append("read")


def test_what_changed_while_it_was_read_is_not_kept(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (changed, *_) = place.ids()
    shutil.rmtree(place.cache)
    search = MlflowClient.search_runs

    def disturbed(*args: Any, **options: Any) -> Any:
        place.client.set_tag(changed, schema.CODE, "for a moment")
        return search(*args, **options)

    monkeypatch.setattr(MlflowClient, "search_runs", disturbed)
    assert "for a moment" in set(store.runs(place.uri)[schema.CODE])
    monkeypatch.undo()
    monkeypatch.setattr(changes, "_SETTLED", SETTLED)
    place.client.set_tag(changed, schema.CODE, synthetic.CODE)
    assert_equal(readings(place.uri), directly(place.uri))
    assert set(store.runs(place.uri)[schema.CODE]) == {synthetic.CODE}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in range(100, len(content) // 2, 97):
        content[place] ^= 0xFF
    path.write_bytes(content)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [_cut, _empty, _flip, _folder])
def test_a_damaged_file_is_told_in_a_line_and_made_again(
    place: Place, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    readings(place.uri)
    time.sleep(2 * SETTLED)
    readings(place.uri)
    for path in place.kept():
        damage(path)
    expected = directly(place.uri)
    with caplog.at_level(logging.WARNING):
        store.curves(place.uri, store.runs(place.uri), CURVES)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 5 and all("\n" not in line for line in told)  # experiments; two kinds of two grids
    assert all(" is damaged " in line and line.endswith("it is made again") for line in told)
    assert_equal(readings(place.uri), expected)
    caplog.clear()
    if damage is not _folder:
        assert_equal(readings(place.uri), expected)
        assert not caplog.records


def test_no_bit_that_is_wrong_is_taken_for_right(place: Place) -> None:
    readings(place.uri)
    cache = Cache(place.database)
    (path, _) = (path for path in place.kept() if path.name.startswith("curves-"))
    columns, content = pq.read_schema(path).remove_metadata(), path.read_bytes()
    whole = cache.read("curves", path.stem.removeprefix("curves-"), columns)
    assert len(whole)
    for position in range(0, len(content), max(1, len(content) // 300)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        found = cache.read("curves", path.stem.removeprefix("curves-"), columns)
        assert not len(found) or found.equals(whole), position
    path.write_bytes(content)


def test_a_file_of_another_version_or_of_something_else_is_silently_made_again(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    expected = directly(place.uri)
    readings(place.uri)
    time.sleep(2 * SETTLED)
    readings(place.uri)
    runs, other = (path for path in place.kept() if path.name.startswith("runs-"))
    table = pq.read_table(runs)
    wrong = table.set_column(table.schema.get_field_index("status"), "status", pa.array(["FAILED"] * len(table)))
    pq.write_table(wrong.replace_schema_metadata({**table.schema.metadata, b"analysis.version": b"0"}), runs)
    pq.write_table(pa.table({"run_id": ["a"]}).replace_schema_metadata(table.schema.metadata), other)
    assert_equal(readings(place.uri), expected)
    assert not caplog.records


def test_another_store_s_files_are_not_taken_for_one_s_own(
    place: Place, template: Place, tmp_path: Path, empty_database: Path
) -> None:
    other = Place(tmp_path / "other", empty_database)
    for run_id in other.ids():
        other.client.set_tag(run_id, schema.CODE, "foreign")
    for uri in (other.uri, place.uri):
        readings(uri)
        time.sleep(2 * SETTLED)
        readings(uri)
    expected = directly(place.uri)
    for own, foreign in zip(place.kept(), other.kept(), strict=True):
        shutil.copy(foreign, own)
    assert_equal(readings(place.uri), expected)
    # And a database put in the place of the other's, with what was kept of that.
    shutil.copy(place.database, tmp_path / "mlflow.db")
    shutil.copytree(other.cache, tmp_path / "cache")
    expected = {name: frame for name, frame in expected.items() if name != "curves"}
    found = readings(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert_equal({name: found[name] for name in expected}, expected)


def test_where_nothing_can_be_kept_reading_works_silently(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.cache.write_text("no folder")  # as root writes into folders that are read-only
    try:
        assert_equal(readings(place.uri), directly(place.uri))
        assert not caplog.records
    finally:
        place.cache.unlink()


def test_tables_that_are_not_known_are_read_whole(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = directly(place.uri)
    changes._marks_at.cache_clear()
    monkeypatch.setattr(changes, "_KNOWN", {"a table of a later MLflow"})
    assert_equal(readings(place.uri), expected)
    assert {path.name for path in place.kept()} <= {"experiments-all.parquet"}


def test_several_read_and_keep_at_once_while_the_store_changes(place: Place) -> None:
    failures: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(5):
                readings(place.uri)
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(5):
        place.client.set_tag(place.one(), schema.CODE, str(random.random()))
        place.cell()
    for reader in readers:
        reader.join()
    assert not failures
    assert_equal(readings(place.uri), directly(place.uri))
    assert all(path.suffix == ".parquet" and not path.name.startswith(".") for path in place.kept())


def test_a_reading_from_a_log_beside_the_database_is_up_to_date(place: Place, tmp_path: Path) -> None:
    """SQLite may keep what was written in a file of its own until it has time (journal_mode=WAL)."""
    shutil.copy(place.database, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        readings(uri)
        for code in ("in the log", "and again"):
            time.sleep(2 * SETTLED)
            readings(uri)
            MlflowClient(tracking_uri=uri).set_tag(place.one(), schema.CODE, code)
            assert (tmp_path / "mlflow.db-wal").stat().st_size
            assert code in set(store.runs(uri)[schema.CODE])
            assert_equal(readings(uri), directly(uri))


def test_metrics_that_were_written_last_are_told_to_the_last_bit(place: Place) -> None:
    run_id = place.one()
    values = {"pi": 3.141592653589793, "least": 5e-324, "nan": float("nan"), "infinite": float("inf")}
    place.client.log_batch(run_id, [Metric(name, value, 1, 0) for name, value in values.items()])
    readings(place.uri)
    assert_equal(readings(place.uri), directly(place.uri))
    assert store.runs(place.uri).set_index("run_id").loc[run_id, "pi"] == values["pi"]
