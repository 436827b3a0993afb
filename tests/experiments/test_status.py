"""What a store holds is told as it is; what nobody needs is removed, and a result only when it is named."""

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from analysis import build, schema
from analysis import store as reader
from experiments import clean, reproduce, run, status
from experiments.recording.tracking import Tracker
from experiments.stores import Stores
from tests.experiments.conftest import Workplace


@pytest.fixture
def place(methods: Workplace, tmp_path: Path) -> Workplace:
    """A store of `methods` of one's own: six cells, all done."""
    shutil.copytree(methods.store, tmp_path / "store")
    with sqlite3.connect(tmp_path / "store" / "mlflow.db") as database:
        change = "UPDATE {} SET {} = replace({}, ?, ?)"
        for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location")):
            database.execute(change.format(table, column, column), (str(methods.store), str(tmp_path / "store")))
    return Workplace(tmp_path)


def told(place: Workplace, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert status.main([f"store={place.store}", "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def changed(place: Workplace, variant: str, seed: int, **columns: str) -> tuple[str, str]:
    """Change what the database says of a run; returns its id and its cell's."""
    frame = place.records()
    row = frame[(frame[schema.VARIANT] == variant) & (frame[schema.SEED] == seed)].iloc[0]
    with sqlite3.connect(place.store / "mlflow.db") as database:
        for name, value in columns.items():
            if name == "status":
                database.execute("UPDATE runs SET status = ? WHERE run_uuid = ?", (value, row["run_id"]))
            else:
                where = (value, row["run_id"], name)
                database.execute("UPDATE tags SET value = ? WHERE run_uuid = ? AND key = ?", where)
    return str(row["run_id"]), str(row[schema.CELL_ID])


def test_every_state_is_told(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    changed(place, "plain", 0, status="RUNNING")
    _, running = changed(place, "plain", 1, status="RUNNING")
    changed(place, "dsl", 0, status="KILLED")
    changed(place, "dsl", 1, status="FAILED")
    changed(place, "dhm", 0, code="of-long-ago")
    with FileLock(place.store / "locks" / f"{running}.lock"):
        (plan,) = told(place, capsys)["plans"]
        assert status.main([f"store={place.store}"]) == 0
        shown = capsys.readouterr().out
    assert {state: count for state, count in plan["cells"].items() if count} == {
        "done": 1, "stale": 1, "running": 1, "orphaned": 1, "interrupted": 1, "failed": 1,
    }  # fmt: skip
    assert (plan["experiment"], plan["scheduler"]) == ("digits/methods", False)
    for word in (
        "digits/methods",
        "orphaned",
        "retry=failed",
        "retry=stale",
        f"store={place.store}",
        "disk: artifacts",
    ):
        assert word in shown
    assert told(place, capsys)["plans"][0]["cells"]["orphaned"] == 2, "whoever held the lock is gone"


def test_a_scheduler_at_work_is_seen(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    changed(place, "plain", 0, status="RUNNING")
    (plan,) = reader.plans(place.uri)
    with FileLock(place.store / "locks" / f"{plan.plan_id}.lock"):
        (found,) = told(place, capsys)["plans"]
    assert found["scheduler"] is True
    assert (found["cells"]["running"], found["cells"]["orphaned"]) == (1, 0), "its process is about to take the lock"


def test_looking_changes_nothing(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    def state() -> dict[Path, bytes]:
        kept = place.store / "cache" / "analysis"  # for the next reading; nobody's record
        files = (path for path in place.store.rglob("*") if path.is_file() and kept not in path.parents)
        return {path: path.read_bytes() for path in files}

    before = state()
    told(place, capsys)
    assert state() == before


def test_clean_removes_what_nobody_needs_and_asks_first(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    _, open_cell = changed(place, "plain", 0, status="KILLED")
    done = str(place.records().set_index("status").loc["FINISHED", schema.CELL_ID].iloc[0])
    folder = place.store / "checkpoints"
    needed = folder / f"{open_cell}.ckpt"
    useless = [folder / f"{done}.ckpt", folder / f"{done}.ckpt.previous", folder / f".{done}.ckpt.123"]
    useless += [folder / "unknown-s0.ckpt", place.store / "cache" / "images.pt"]
    useless += [place.store / "optuna.journal.damaged-1"]
    for path in (needed, *useless):
        path.write_bytes(b"x" * 1000)
    assert clean.main([f"store={place.store}"]) == 2
    caught = capsys.readouterr()
    assert "checkpoints: 4, 0.0 MB" in caught.out and "images.pt" in caught.out and "give --yes" in caught.err
    assert all(path.exists() for path in useless)
    with FileLock(place.store / "locks" / "unknown-s0.lock"):
        assert clean.main([f"store={place.store}", "--yes"]) == 0
    left = [path.name for path in useless if path.exists()]
    assert left == ["unknown-s0.ckpt", "images.pt"], "somebody is at work"
    assert clean.main([f"store={place.store}", "cache", "--yes"]) == 0
    assert [path.name for path in useless if path.exists()] == ["unknown-s0.ckpt"]
    assert needed.exists()
    assert len(place.records()) == 6
    capsys.readouterr()


def test_a_result_goes_only_where_its_run_is_named(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = changed(place, "plain", 0)
    other, _ = changed(place, "dsl", 0)
    tracker = Tracker(Stores(root=place.store))
    tracker.discard(run)
    tracker.discard(other)
    folder = place.store / "artifacts" / "digits" / "methods" / run
    assert clean.main([f"store={place.store}", "--yes"]) == 0
    shown = capsys.readouterr().out
    assert "kept: 2 discarded run(s) that hold a result" in shown and run in shown and "nothing to remove" in shown
    kept, _ = changed(place, "dhm", 0)
    for words, expected in (([f"runs={kept}"], "bin"), (["runs=abc"], "abc"), (["chekpoints"], "checkpoints")):
        assert clean.main([f"store={place.store}", "--yes", *words]) == 2
        assert expected in capsys.readouterr().err
    assert clean.main([f"store={place.store}", f"runs={run}", "--yes"]) == 0
    assert not list(folder.rglob("*.json"))
    assert list(reader.discarded(place.uri)["run_id"]) == [other]
    assert len(place.records()) == 4


def test_a_plan_that_is_not_wanted_is_forgotten(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.run("grid=methods", "seeds=1", "epochs=1") == 0
    (other,) = [plan for plan in reader.plans(place.uri) if plan.overrides == ("epochs=1",)]
    capsys.readouterr()
    with FileLock(place.store / "locks" / f"{other.plan_id}.lock"):
        assert clean.main([f"store={place.store}", f"plan={other.plan_id}", "--yes"]) == 2
        assert "a scheduler is at work on it" in capsys.readouterr().err
    assert clean.main([f"store={place.store}", "plan=abc", "--yes"]) == 2
    assert other.plan_id in capsys.readouterr().err, "those that there are"
    assert clean.main([f"store={place.store}", f"plan={other.plan_id}", "--yes"]) == 0
    shown = capsys.readouterr().out
    assert f"plan {other.plan_id}, digits/methods (epochs=1): 3 done" in shown and "3 run(s)" in shown
    assert other.plan_id not in {plan.plan_id for plan in reader.plans(place.uri)}
    assert len(place.records()) == 6 and len(reader.discarded(place.uri)) == 3
    assert place.run("grid=methods", "seeds=1", "epochs=1") == 0, "and can be wanted again"
    assert "3 of 3 cells done (3 trained now)" in capsys.readouterr().out


def test_artifacts_elsewhere_are_left_alone(
    place: Workplace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = changed(place, "plain", 0)
    Tracker(Stores(root=place.store)).discard(run)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years")
    with sqlite3.connect(place.store / "mlflow.db") as database:
        database.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", (precious.as_uri(), run))
    assert clean.main([f"store={place.store}", f"runs={run}", "--yes"]) == 2
    assert "not in this store" in capsys.readouterr().err
    assert (precious / "thesis.tex").read_text() == "years"


def in_one_line(folder: Path, capsys: pytest.CaptureFixture[str], told: str) -> None:
    """Every command says of a store that it cannot be read, and is not at a loss."""
    store = f"store={folder}"
    commands: list[tuple[Any, list[str]]] = [
        (status.main, [store]),
        (clean.main, [store]),
        (reproduce.main, ["0123", store]),
        (run.main, ["grid=methods", "plan=true", store]),
        (run.main, ["grid=methods", store, f"results={folder / 'results'}"]),
        (build.main, [store, f"out={folder / 'results'}"]),
    ]
    for command, words in commands:
        assert command(words) == 2, words
        shown = capsys.readouterr().err.strip().splitlines()
        assert len(shown) == 1 and told in shown[0], words


def test_a_store_that_is_half_made_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("CREATE TABLE experiments (experiment_id INTEGER)")
    in_one_line(tmp_path, capsys, "move the damaged file away")


MAKE = """
import sys
from pathlib import Path
from experiments.recording.tracking import Tracker
from experiments.stores import Stores
stores = Stores(root=Path(sys.argv[1]))
stores.prepare()
print("ready", flush=True)
sys.stdin.readline()
Tracker(stores)
"""


def test_two_commands_that_make_one_store_at_once_make_a_whole_one(tmp_path: Path) -> None:
    both = [
        subprocess.Popen([sys.executable, "-c", MAKE, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    for process in both:
        process.communicate(b"go\n")
    assert [process.returncode for process in both] == [0, 0]
    assert reader.plans(f"sqlite:///{tmp_path / 'mlflow.db'}") == []
    assert sorted(path.name for path in tmp_path.glob("mlflow*")) == ["mlflow.db", "mlflow.lock"]


@pytest.mark.parametrize("command", [status.main, clean.main])
def test_a_store_that_is_not_there(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command([f"store={tmp_path / 'nowhere'}"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "nowhere").exists()
