"""What changes between two commands: the grid, the code, what is asked to be made again."""

import sqlite3
from pathlib import Path

from mlflow.tracking import MlflowClient

from analysis import schema
from analysis import store as reader
from tests.faults.conftest import Study, until
from tests.faults.sabotage import SLOW

GRID = "question: How large?\nfactors: {{optim.lr: {rates}, method: [plain, dsl]}}\nbaseline: {{method: plain}}\n"


def asked(study: Study, rates: str) -> tuple[str, ...]:
    folder = study.root / "grids"
    folder.mkdir(exist_ok=True)
    (folder / "rates.yaml").write_text(GRID.format(rates=rates))
    return ("grid=rates", f"grid_dir={folder}")


def test_a_grid_that_is_edited_runs_what_is_new_and_keeps_what_is_old(study: Study) -> None:
    study.run(*asked(study, "[0.05, 0.1]"))
    before = study.records().set_index("run_id")
    shown = study.run(*asked(study, "[0.1, 0.2]"))
    assert "4 of 4 cells done (2 trained now)" in shown
    after = study.records().set_index("run_id")
    assert len(after) == 6 and set(before.index) < set(after.index), "what was removed is kept"
    assert after.loc[before.index, "end_time"].equals(before["end_time"]), "what stays is not touched"
    (plan,) = reader.plans(study.uri)
    assert {variant.name for variant in plan.variants} == {f"lr {r} {m}" for r in (0.1, 0.2) for m in ("plain", "dsl")}
    (table,) = (study.root / "results").rglob("comparison.md")
    assert "lr 0.2 dsl" in table.read_text() and "0.05" not in table.read_text()
    assert "0 to run" in study.run(*asked(study, "[0.05, 0.1]")), "and comes back without training"


def test_a_change_to_one_arm_changes_no_other_arms_identity(study: Study) -> None:
    study.run()
    before = study.records().set_index(schema.VARIANT)[schema.CELL_ID]
    shown = study.run("mimic.temperature=3")
    assert "3 of 3 cells done (1 trained now, 2 copied from other plans)" in shown
    frame = study.records()
    after = frame[~frame[schema.CELL_ID].isin([before["dhm"]])].set_index(schema.VARIANT)[schema.CELL_ID]
    for method in ("plain", "dsl"):
        assert set(after.loc[[method]]) == {before[method]}
    assert after["dhm"] != before["dhm"]


def test_what_other_code_left_unfinished_is_made_anew(study: Study) -> None:
    started = study.start("epochs=40", fault=SLOW)
    until(lambda: len(study.checkpoints()) == 2, "two cells have a checkpoint")
    started.process.kill()
    started.process.wait()
    until(lambda: not started.members(), "its runs have left", 30)
    left = study.records()["run_id"]
    client = MlflowClient(study.uri)
    for run_id in left:
        client.set_tag(run_id, schema.CODE, "other")
    for path in study.checkpoints():
        path.rename(path.with_name(f"{path.name.partition('.')[0]}.other.ckpt"))
    study.run("epochs=40")
    for path in (study.store / "checkpoints").glob("*.previous"):
        path.unlink()  # of the renamed ones
    study.assert_as_if_undisturbed()
    assert not set(study.records()["run_id"]) & set(left), "no curve is half of other code"
    assert {client.get_run(run_id).info.lifecycle_stage for run_id in left} == {"deleted"}


def test_stale_trials_of_a_search_are_made_again_when_asked(study: Study) -> None:
    words = ("grid=mimicking_weight_search", "study.trials=3", "epochs=2")
    study.run(*words)
    search = ("search", "mimic.alpha", "mimic.temperature")
    before = _trials(study.uri, search)
    _of_other_code(study.store / "mlflow.db")
    shown = study.run(*words, "retry=stale")
    after = _trials(study.uri, search)
    assert "3 trained to the end now" in shown
    assert set(before) == set(after), "the same settings"
    assert not set(before.values()) & set(after.values()), "in new records"
    assert "0 to run" in study.run(*words)


def _trials(uri: str, names: tuple[str, ...]) -> dict[tuple[str, ...], str]:
    """Run ids of trials by what was tried."""
    client = MlflowClient(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.{schema.ROLE} = '{schema.TRIAL}'")
    return {
        tuple(run.data.tags.get(name) or run.data.params[name] for name in names): str(run.info.run_id) for run in found
    }


def _of_other_code(database: Path) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE tags SET value = 'other' WHERE key = ?", (schema.CODE,))


def test_a_factor_that_is_added_renames_what_is_recorded_and_loses_nothing(study: Study) -> None:
    folder = study.root / "grids"
    folder.mkdir()
    file = folder / "grown.yaml"
    text = "question: How large?\nfactors:\n  method: [plain, dhm]\n{}baseline: {{method: plain}}\n"
    file.write_text(text.format(""))
    study.run("grid=grown", f"grid_dir={folder}")
    before = set(study.records()["run_id"])
    file.write_text(text.format("  mimic.temperature: [1.0, 2.0]\n"))
    shown = study.run("grid=grown", f"grid_dir={folder}")
    assert "3 of 3 cells done (1 trained now)" in shown and "not built" not in shown
    frame = study.records().set_index("run_id")
    assert before < set(frame.index) and set(frame[schema.VARIANT]) == {"plain", "dhm T 1", "dhm T 2"}
    (table,) = (study.root / "results").rglob("comparison.md")
    assert "dhm T 1" in table.read_text()
