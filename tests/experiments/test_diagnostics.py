"""Diagnostics from the command line to the figures, with real processes and a real store."""

import dataclasses
import re
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from analysis import agreement, catalogue, reading, schema
from analysis import store as reader
from experiments import config
from experiments.grid import GRIDS
from experiments.run import main
from experiments.session import Session, _diagnostics
from experiments.stores import Stores
from experiments.study import make_plan
from tests.experiments.conftest import Workplace

HEADS = ("main", "side1", "side2")
KINDS = (
    schema.KL,
    schema.INITIAL_KL,
    schema.AGREEMENT,
    schema.GRADIENT_COSINE,
    schema.GRADIENT_COSINE_CE,
    schema.GRADIENT_COSINE_VARIANCE,
    schema.GRADIENT_COSINE_CE_VARIANCE,
)


def copied(methods: Workplace, folder: Path) -> Workplace:
    """A workplace with the record of `methods`, which knows nothing of diagnostics."""
    place = Workplace(folder)
    place.store.mkdir()
    (place.store / "mlflow.db").write_bytes((methods.store / "mlflow.db").read_bytes())
    return place


def test_a_grid_that_asks_for_diagnostics_has_them_in_its_record_and_figures(
    workplace: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert workplace.run("grid=gradient_agreement", "diagnostics.batches=3") == 0
    assert "how arms differ in it, is in `agreement`." in " ".join(capsys.readouterr().out.split())
    (plan,) = reader.plans(workplace.uri)
    grid = reading.load(workplace.uri, plan)
    written = {str(name) for name in grid.runs.columns if str(name).startswith("diagnostics/")}
    assert {name.rpartition("/")[0] for name in written} == set(KINDS), "the names of schema are those that are written"
    assert agreement.heads(grid) == {"dsl": HEADS, "dhm": HEADS}
    client = MlflowClient(workplace.uri)
    for run_id in grid.runs["run_id"]:
        for name in written:
            steps = [point.step for point in client.get_metric_history(run_id, name)]
            assert steps == ([0] if name.startswith(schema.INITIAL_KL) else [0, 1]), name
    drawn = {name.rpartition("/")[0] for name in grid.curves["metric"]} - {"test"}
    assert drawn == {schema.GRADIENT_COSINE, schema.GRADIENT_COSINE_CE}
    (folder,) = (workplace.root / "results" / "digits").glob("gradient_agreement*")
    assert all((folder / f"{name}.png").is_file() for name in ("gradient_agreement", "mimicking_matrix"))
    assert (folder / "agreement.md").is_file()
    # No result is changed by them, and a cell that is done with them serves a grid that does not ask.
    errors = grid.runs.set_index([schema.VARIANT, schema.SEED])[schema.FINAL_TOP1]
    assert workplace.run("grid=methods") == 0
    both = workplace.records()
    copies = both[both[schema.GRID] == "methods"].set_index([schema.VARIANT, schema.SEED])
    assert copies.loc[errors.index, schema.FINAL_TOP1].equals(errors)
    assert copies.loc["dhm", schema.SOURCE_RUN].notna().all()


def test_cells_that_other_plans_trained_without_are_trained_for_a_plan_that_measures(
    methods: Workplace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = copied(methods, tmp_path)
    assert place.run("grid=gradient_agreement") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "4 of 4 cells done (4 trained now)." in told
    assert "its record elsewhere lacks what is measured here" in told and "another study has it" not in told
    assert place.run("grid=gradient_agreement") == 0
    assert "4 done, 0 to run" in " ".join(capsys.readouterr().out.split())


def test_a_plan_counts_what_lacks_its_measurements_as_missing(
    methods: Workplace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = copied(methods, tmp_path)
    assert place.run("grid=gradient_agreement", "plan=true") == 0
    assert "4 cells: 0 done, 0 failed, 4 missing." in " ".join(capsys.readouterr().out.split())
    assert place.run("grid=gradient_agreement", "diagnostics.every=0", "plan=true") == 0
    assert "4 trained for other plans, to be copied" in " ".join(capsys.readouterr().out.split())


def test_the_command_that_goes_on_measures_the_same(tmp_path: Path) -> None:
    request = Session(config.read(["grid=methods", "diagnostics.every=2", "diagnostics.ensembles=true"])).request
    plan, _ = make_plan(request, Stores(root=tmp_path))
    assert plan.extent == ["diagnostics.every=2", "diagnostics.ensembles=true"]
    assert plan.plan_id == make_plan(dataclasses.replace(request, diagnostics={}), Stores(root=tmp_path))[0].plan_id


def test_figures_without_diagnostics_say_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Workplace(tmp_path).run("grid=gradient_agreement", "diagnostics.every=0", "seeds=1") == 1
    told = " ".join(capsys.readouterr().out.split())
    assert len(re.findall("no diagnostics are recorded for", told)) == 3
    assert "diagnostics.every=1 store=results/diagnostics" in told


@pytest.mark.parametrize(
    ("words", "every"),
    [
        (["grid=methods"], 0),
        (["grid=methods", "diagnostics.every=3"], 3),
        (["grid=gradient_agreement"], 1),
        (["grid=gradient_agreement", "diagnostics.every=0"], 0),
    ],
)
def test_the_command_says_more_than_the_grid(words: list[str], every: int) -> None:
    found = _diagnostics(config.read(words))
    assert [callback._every for callback in found] == ([every] if every else [])


@pytest.mark.parametrize("word", ["diagnostics.every=-1", "diagnostics.batches=0"])
def test_mistakes(word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grid=methods", word, f"store={tmp_path / 'store'}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {word}: must be at least")
    assert not (tmp_path / "store").exists()


def test_the_figures_of_the_grid_exist() -> None:
    assert set(GRIDS.get("gradient_agreement").figures) <= set(catalogue.figure_names())


def test_ensembles_are_recorded_beside_the_heads_and_shown_with_them(
    methods: Workplace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = copied(methods, tmp_path)
    plain = methods.records().set_index([schema.VARIANT, schema.SEED])[schema.FINAL_TOP1]
    words = ("grid=branch_positions", "factors.positions=['1+2']", "diagnostics.ensembles=true")
    assert place.run(*words) == 0
    # What another plan trained is without them: plain training, which has one head, is copied, and no more.
    assert "6 of 6 cells done (4 trained now, 2 copied from other plans)." in " ".join(capsys.readouterr().out.split())
    (plan,) = (plan for plan in reader.plans(place.uri) if plan.grid == "branch_positions")
    frame = reader.runs(place.uri, plan).set_index([schema.VARIANT, schema.SEED]).sort_index()
    for name in (schema.ENSEMBLE, schema.ENSEMBLE_SOFTMAX):
        for figure in ("final/top1_error", "final/top5_error", "best/top1_error", "test/loss", "test/top1_error"):
            recorded = frame[f"{figure}/{name}"].notna()
            assert list(recorded) == [not variant.startswith("plain") for variant, _ in frame.index], figure
    assert list(frame[schema.FINAL_TOP1]) == [plain[(variant.split()[0], seed)] for variant, seed in frame.index], (
        "no result is changed by them"
    )
    (folder,) = (place.root / "results" / "digits").glob("branch_positions*")
    head, _, *rows = (folder / "heads.md").read_text().splitlines()
    assert [title.strip() for title in head.split("|")[1:-1]] == [
        "variant", "main", "side1", "side2", "ensemble (logits)", "ensemble (softmax)",
    ]  # fmt: skip
    assert [title.strip() for title in rows[0].split("|")[3:-1]] == ["–"] * 4
    assert "–" not in rows[1]
