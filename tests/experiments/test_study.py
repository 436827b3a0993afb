"""A study from the command line to the record, with real processes and a real store."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
import torch
from mlflow.tracking import MlflowClient

from analysis import results, schema
from analysis import store as reader
from dhm.backbones import ARCHITECTURES
from dhm.engine import fit
from dhm.fields import from_dict
from dhm.recipe import Recipe
from dhm.training import Runtime
from experiments.run import main
from tests.experiments.conftest import Workplace

ROOT = Path(__file__).parents[2]


def artifacts(row: dict) -> Path:
    return Path(unquote(urlparse(row["artifact_uri"]).path))


def test_every_cell_is_one_flat_finished_run_named_by_what_differs(methods: Workplace) -> None:
    frame = methods.records()
    assert set(frame["status"]) == {"FINISHED"}
    assert set(frame["experiment"]) == {"digits/methods"}
    assert sorted(zip(frame[schema.VARIANT], frame[schema.SEED], strict=True)) == [
        (method, seed) for method in ("dhm", "dsl", "plain") for seed in (0, 1)
    ]
    client = MlflowClient(methods.uri)
    for run_id in frame["run_id"]:
        run = client.get_run(run_id)
        assert "mlflow.parentRunId" not in run.data.tags
        assert run.info.run_name == f"{run.data.tags[schema.VARIANT]} s{run.data.tags[schema.SEED]}"
        assert run.data.params == {
            "variant": run.data.tags[schema.VARIANT],
            "method": run.data.tags[schema.METHOD],
            "arch": "resnet8",
            "epochs": "2",
            "seed": run.data.tags[schema.SEED],
        }
        (dataset,) = run.inputs.dataset_inputs
        assert (dataset.dataset.name, dataset.dataset.digest) == ("digits", run.data.tags[schema.DATA])


def test_a_record_has_its_curves_once_an_epoch_and_both_readings(methods: Workplace) -> None:
    client = MlflowClient(methods.uri)
    for row in methods.records().to_dict("records"):
        heads = ("",) if row[schema.METHOD] == "plain" else ("", "/side1", "/side2")
        for head in heads:
            points = client.get_metric_history(row["run_id"], schema.TEST_TOP1 + head)
            assert [point.step for point in points] == [0, 1]
            assert row[schema.FINAL_TOP1 + head] == points[-1].value
        errors = [point.value for point in client.get_metric_history(row["run_id"], schema.TEST_TOP1)]
        assert row[schema.BEST_TOP1] == min(errors)
        assert row[schema.BEST_EPOCH] == errors.index(min(errors))
        names = {f"{schema.LOSS_CE}/main", schema.TRAIN_LOSS, schema.TRAIN_TOP1, schema.LR, schema.TEST_LOSS}
        assert all(not math.isnan(row[name]) for name in names)
        mimics = not math.isnan(row.get(f"{schema.LOSS_MIMIC}/main.side1", math.nan))
        assert mimics == (row[schema.METHOD] == "dhm")
        assert row[schema.PARAMETERS_MAIN] == 75_002
        assert row[schema.SECONDS] > 0 and row[schema.STEP_MS] > 0


def test_a_record_has_what_is_needed_to_do_it_again(methods: Workplace) -> None:
    row = methods.records().to_dict("records")[0]
    folder = artifacts(row)
    document = json.loads((folder / schema.RECIPE_FILE).read_text())
    assert document["cell_id"] == row[schema.CELL_ID]
    recipe = from_dict(Recipe, document["recipe"])
    result = fit(recipe, document["seed"], Runtime())
    assert result.final["top1_error"] == row[schema.FINAL_TOP1], "the same numbers, bit for bit"
    weights = torch.load(folder / schema.WEIGHTS_FILE, weights_only=True)
    assert all(torch.equal(weights[name], value) for name, value in result.network.main_only().state_dict().items())
    plain = ARCHITECTURES.get(recipe.arch).build(in_channels=1, num_classes=10)
    plain.load_state_dict(weights)
    errors = json.loads((folder / schema.CLASS_ERRORS_FILE).read_text())
    assert set(errors) == set(recipe.heads) and len(errors["main"]) == 10
    topology = json.loads((folder / schema.TOPOLOGY_FILE).read_text())
    assert topology["heads"] == list(recipe.heads)
    environment = json.loads((folder / schema.ENVIRONMENT_FILE).read_text())
    assert environment["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert environment["threads"] == 1


def test_the_plan_is_stored_with_the_experiment(methods: Workplace) -> None:
    (plan,) = reader.plans(methods.uri)
    assert (plan.grid, plan.benchmark, plan.seeds, plan.baseline) == ("methods", "digits", (0, 1), "plain")
    assert plan.overrides == ("epochs=2",)
    frame = methods.records()
    assert set(frame[schema.PLAN]) == {plan.plan_id}
    assert {v.recipe_id for v in plan.variants} == set(frame[schema.RECIPE_ID])
    note = MlflowClient(methods.uri).get_experiment(plan.experiment_id).tags[schema.NOTE_TAG]
    assert plan.question in note and "group the runs by `variant`" in note


def test_tables_and_figures_are_built(methods: Workplace) -> None:
    (folder,) = (methods.root / "results" / "digits").iterdir()
    assert folder.name.startswith("methods-"), "a plan with overrides has its id in the folder's name"
    for name in ("comparison.md", "comparison.csv", "comparison.tex", "comparison.json", "methods.png", "methods.pdf"):
        assert (folder / name).stat().st_size > 0


def test_nothing_is_left_behind(methods: Workplace) -> None:
    assert not list((methods.store / "checkpoints").iterdir())
    assert not list((methods.store / "locks").glob("*.owner"))


def test_the_same_command_again_trains_nothing(
    workplace: Workplace, methods: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    before = methods.records().set_index("run_id")
    assert methods.run("grid=methods") == 0
    shown = capsys.readouterr().out
    assert "6 cells, 6 done, 0 to run" in shown
    assert "trained now" not in shown
    after = methods.records().set_index("run_id")
    assert after["end_time"].equals(before["end_time"])


def test_more_seeds_run_only_what_is_missing(workplace: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    assert workplace.run("grid=methods", "seeds=1") == 0
    first = set(workplace.records()["run_id"])
    assert workplace.run("grid=methods", "seeds=2") == 0
    assert "6 cells, 3 done, 3 to run" in capsys.readouterr().out
    assert first < set(workplace.records()["run_id"])
    assert len(workplace.records()) == 6


def test_a_cell_that_another_grid_trained_is_copied_and_counted_once(
    workplace: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert workplace.run("grid=methods", "seeds=1") == 0
    assert workplace.run("grid=branch_positions", "seeds=1") == 0
    assert "7 of 7 cells done (4 trained now, 3 copied from other plans)" in capsys.readouterr().out
    frame = workplace.records()
    assert len(frame) == 10
    assert len(reader.unique_cells(frame)) == 7
    rows = {row["run_id"]: row for row in frame.to_dict("records")}
    copies = [row for row in rows.values() if row[schema.SOURCE_RUN] is not None]
    assert {row[schema.VARIANT] for row in copies} == {"plain", "dsl at 1+2", "dhm at 1+2"}
    client = MlflowClient(workplace.uri)
    for copy in copies:
        original = rows[copy[schema.SOURCE_RUN]]
        assert copy[schema.CELL_ID] == original[schema.CELL_ID]
        assert copy[schema.FINAL_TOP1] == original[schema.FINAL_TOP1]
        assert copy["experiment"] == "digits/branch_positions"
        histories = [client.get_metric_history(row["run_id"], schema.TEST_TOP1) for row in (copy, original)]
        assert [(p.step, p.value, p.timestamp) for p in histories[0]] == [
            (p.step, p.value, p.timestamp) for p in histories[1]
        ]
        assert {path.name for path in artifacts(copy).iterdir()} == {
            path.name for path in artifacts(original).iterdir()
        }


def diverging(folder: Path, rates: str) -> Path:
    """A grid whose large learning rates end in a loss that is no number."""
    folder.mkdir(exist_ok=True)
    (folder / "rates.yaml").write_text(
        f"question: How large?\nfactors: {{optim.lr: {rates}, method: [plain, dsl]}}\nbaseline: {{method: plain}}\n"
    )
    return folder


def test_a_failed_cell_is_named_and_the_others_go_on(
    workplace: Workplace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments.grid import GRIDS

    folder = diverging(workplace.root / "grids", "[0.1, 1.0e+30]")
    words = ("grid=rates", f"grid_dir={folder}", "seeds=1")
    assert workplace.run(*words) == 1
    shown = capsys.readouterr().out
    assert "2 of 4 cells done" in shown
    assert "failed plain" not in shown.replace("failed lr 1e+30 plain s0", "")
    assert "NotFiniteError: the loss is not finite in epoch 0" in " ".join(shown.split())
    assert "retry=failed" in shown
    frame = workplace.records().set_index(schema.VARIANT)
    failed = frame.loc["lr 1e+30 plain"]
    assert (failed["status"], failed[schema.FAILURE]) == ("FAILED", schema.NOT_FINITE)
    assert "Traceback" in (artifacts(failed.to_dict()) / schema.ERROR_FILE).read_text()
    assert "not built" in shown and "absent" in shown, "no table averages over what is missing"

    monkeypatch.delitem(GRIDS._values, "rates")
    assert workplace.run(*words) == 1, "a failed cell is not done"
    assert "2 done, 0 to run" in capsys.readouterr().out

    monkeypatch.delitem(GRIDS._values, "rates")
    assert workplace.run(*words, "retry=failed") == 1
    assert "2 done, 2 to run" in capsys.readouterr().out
    again = workplace.records().set_index(schema.VARIANT)
    assert again.loc["lr 1e+30 plain", "run_id"] == failed["run_id"], "the same record, not a second one"
    assert int(again.loc["lr 1e+30 plain", schema.ATTEMPTS]) == 2


def test_settings_that_change_the_recipe_make_another_plan(workplace: Workplace) -> None:
    assert workplace.run("grid=methods", "seeds=1") == 0
    assert workplace.run("grid=methods", "seeds=1", "mimic.alpha=0.5") == 0
    plans = reader.plans(workplace.uri)
    assert len({plan.plan_id for plan in plans}) == 2
    frame = workplace.records()
    trained = frame[frame[schema.SOURCE_RUN].isna()]
    assert len(trained) == 4, "plain and DSL know nothing of alpha and are not trained again"


def test_interrupted_once_it_leaves_cleanly_and_goes_on_where_it_was(workplace: Workplace) -> None:
    words = ["grid=methods", "epochs=60", "seeds=1", "pool.cpu_slots=1", "pool.gpus=none"]
    places = [f"store={workplace.store}", f"results={workplace.root / 'results'}"]
    command = [sys.executable, "-m", "experiments.run", *words, *places]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while not list((workplace.store / "checkpoints").glob("*.ckpt")) if workplace.store.exists() else True:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    shown, _ = process.communicate(timeout=120)
    assert process.returncode == 130, shown
    assert "the same command goes on" in shown
    assert "Traceback" not in shown
    open_runs = workplace.records()
    assert "RUNNING" not in set(open_runs["status"])
    (interrupted,) = open_runs[open_runs["status"] == "KILLED"]["run_id"]
    (checkpoint,) = (workplace.store / "checkpoints").glob("*.ckpt")
    assert checkpoint.exists()

    assert main([*words, *places]) == 0
    frame = workplace.records()
    assert set(frame["status"]) == {"FINISHED"}
    assert len(frame) == 3
    assert interrupted in set(frame["run_id"]), "the cell went on in its own record"
    points = MlflowClient(workplace.uri).get_metric_history(interrupted, schema.TEST_TOP1)
    assert [point.step for point in points] == list(range(60)), "no point of the curve twice"
    row = frame.set_index("run_id").loc[interrupted]
    document = json.loads((artifacts(row.to_dict()) / schema.RECIPE_FILE).read_text())
    undisturbed = fit(from_dict(Recipe, document["recipe"]), document["seed"], Runtime())
    assert [point.value for point in points] == [record.metrics["test/top1_error"] for record in undisturbed.history]


def test_a_second_scheduler_says_who_has_the_study(workplace: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    from filelock import FileLock

    assert workplace.run("grid=methods", "plan=true") == 0
    plan_id = capsys.readouterr().out.partition("plan ")[2][:8]
    lock = workplace.store / "locks" / f"{plan_id}.lock"
    lock.parent.mkdir(exist_ok=True)
    with FileLock(lock):
        lock.with_suffix(".owner").write_text(f"process {os.getpid()} on here since now")
        assert workplace.run("grid=methods") == 2
    assert f"process {os.getpid()} on here" in capsys.readouterr().err
    assert workplace.records().empty


def test_the_plan_shows_cells_and_cost_and_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grid=branch_positions", "plan=true", f"store={tmp_path / 'store'}"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "35 cells: 0 done, 0 failed, 35 missing" in shown
    assert "dhm at 1+2 0 0 5 331,278" in shown
    assert "Nothing was started" in shown
    assert not (tmp_path / "store").exists()


def test_the_plan_of_a_study_that_is_done_knows_it(methods: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    assert methods.run("grid=methods", "plan=true", "seeds=3") == 0
    assert "9 cells: 6 done, 0 failed, 3 missing" in " ".join(capsys.readouterr().out.split())


def test_without_a_grid_it_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    for name in ("methods", "branch_positions", "mimicking_weights", "depths", "digits", "cifar10", "cifar100"):
        assert name in shown


def test_mlflow_shows_a_plan_grouped_by_variant(methods: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    (plan,) = reader.plans(methods.uri)
    tags = MlflowClient(methods.uri).get_experiment(plan.experiment_id).tags
    view = json.loads(tags[schema.VIEW_TAG + plan.plan_id])
    assert view["groupBy"]["groupByKeys"] == [{"mode": "param", "groupByData": schema.VARIANT}]
    found = MlflowClient(methods.uri).search_runs([plan.experiment_id], view["searchFilter"], order_by=[])
    assert len(found) == 6
    assert methods.run("grid=methods") == 0
    assert f"viewStateShareKey={plan.plan_id}" in capsys.readouterr().out


def test_another_baseline_is_what_tables_hold_arms_against(
    workplace: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert workplace.run("grid=methods", "seeds=1") == 0
    assert workplace.run("grid=methods", "seeds=1", "baseline.method=dsl") == 0
    shown = capsys.readouterr().out
    assert "3 of 3 cells done (3 copied from other plans)" in shown and "Baseline dsl: " in shown
    (plan,) = [plan for plan in reader.plans(workplace.uri) if plan.baseline == "dsl"]
    assert plan.overrides[-1] == "baseline.method=dsl"
    assert [plan.baseline_of(name) for name in ("plain", "dhm")] == ["dsl", "dsl"]
    for other in reader.plans(workplace.uri):
        found = results.load("methods", plan_id=other.plan_id, uri=workplace.uri)
        assert isinstance(found, results.Result) and found.plan.plan_id == other.plan_id
    for words, told in (("baseline.methid=dsl", "'method'"), ("baseline.method=dls", "method=dls")):
        assert workplace.run("grid=methods", "seeds=1", words) == 2
        assert told in capsys.readouterr().err


def test_cells_that_other_code_made_are_refused_a_table_and_made_again_when_asked(
    workplace: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert workplace.run("grid=methods", "seeds=1") == 0
    client = MlflowClient(workplace.uri)
    (old,) = workplace.records().set_index(schema.VARIANT).loc[["dsl"], "run_id"]
    client.set_tag(old, schema.CODE, "other")
    assert workplace.run("grid=methods", "seeds=1", "plan=true") == 0
    assert "2 done, 0 failed, 1 done by other code (retry=stale" in capsys.readouterr().out
    assert workplace.run("grid=methods", "seeds=1", "plan=true", "retry=stale") == 0
    assert "2 done, 0 failed, 1 missing" in capsys.readouterr().out
    assert workplace.run("grid=methods", "seeds=1") == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 codes" in shown and "1 of the cells that are done were trained by other code" in shown
    assert "retry=stale trains them again" in shown
    assert workplace.run("grid=methods", "seeds=1", "retry=stale") == 0
    assert "3 of 3 cells done (1 trained now)" in capsys.readouterr().out
    frame = workplace.records()
    assert len(frame) == 3 and old not in set(frame["run_id"])
    assert client.get_run(old).info.lifecycle_stage == "deleted", "it can be restored"
