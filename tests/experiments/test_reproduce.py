"""A recorded run is run again, and what came out otherwise is named."""

import difflib
import json
import math
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from analysis import schema
from experiments.recording.provenance import ROOT
from experiments.reproduce import main
from experiments.reproduction.comparison import DIFFERENT, IDENTICAL, WITHIN, compare
from tests.experiments.conftest import Workplace


def run_id(place: Workplace, variant: str = "dhm", seed: int = 0) -> str:
    frame = place.records()
    return str(frame[(frame[schema.VARIANT] == variant) & (frame[schema.SEED] == seed)]["run_id"].iloc[0])


def copied(methods: Workplace, folder: Path) -> Workplace:
    """The store of `methods`, moved: its artifacts are found where they lie now."""
    shutil.copytree(methods.store, folder / "store")
    return Workplace(folder)


def artifact(place: Workplace, run: str, name: str) -> Path:
    return place.store / "artifacts" / "digits" / "methods" / run / "artifacts" / name


def test_it_comes_out_identical(methods: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    before = methods.records()
    assert main([run_id(methods)[:8], f"store={methods.store}"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "as recorded" in shown and "epoch 2/2" in shown
    assert "identical to the bit: 21 curves (42 values), and so are the main branch's weights" in shown
    assert methods.records().equals(before), "nothing is written"


def test_what_parts_is_named(methods: Workplace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = copied(methods, tmp_path)
    run = run_id(place, "plain")
    with sqlite3.connect(place.store / "mlflow.db") as database:
        change = "UPDATE metrics SET value = value + ? WHERE run_uuid = ? AND key = ? AND step = ?"
        database.execute(change, (1e-9, run, "loss/ce/main", 0))
        database.execute(change, (2.0, run, schema.TEST_TOP1, 1))
    assert main([run, f"store={place.store}", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == DIFFERENT
    assert [(part["metric"], part["epoch"]) for part in found["partings"]] == [
        ("loss/ce/main", 0),
        (schema.TEST_TOP1, 1),
    ]
    part = found["partings"][1]
    assert part["recorded"] == pytest.approx(part["now"] + 2.0)
    assert found["weights_identical"] is True


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_the_recorded_changes_are_run(methods: Workplace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = copied(methods, tmp_path)
    run = run_id(place)
    source = subprocess.run(["git", "show", "HEAD:dhm/optim.py"], cwd=ROOT, check=True, capture_output=True, text=True)
    lines = source.stdout.splitlines(keepends=True)
    changed = [*lines, "torch.optim.SGD.step = lambda *given, **named: None\n"]
    names = ("a/dhm/optim.py", "b/dhm/optim.py")
    artifact(place, run, schema.PATCH_FILE).write_text("".join(difflib.unified_diff(lines, changed, *names)))
    assert main([run, f"store={place.store}", "--checkout"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "with the recorded changes to dhm/optim.py" in shown
    assert "code: dhm/ was" in shown, "it is other code than the record's"
    assert "different (tolerance 0.01)" in shown and "the first in epoch 0" in shown


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["RUN_ID"]),
        (["ffffffff"], ["no run", "'ffffffff'", "whole run id"]),
        (["nothing s0"], ["no run", "'nothing s0'"]),
        (["x' OR name LIKE '%"], ["no run"]),
        (["dhm s0", "stor=x"], ["'stor'", "Did you mean 'store'"]),
        (["dhm s0", "--chekout"], ["--chekout", "Did you mean '--checkout'"]),
        (["dhm s0", "tolerance=much"], ["tolerance=much", "between 0 and 1"]),
        (["dhm s0", "device=cuda"], ["device=cpu"]),
        (["dhm s0", "device=gpu"], ["device=gpu", "cpu or cuda"]),
    ],
)
def test_mistakes(
    methods: Workplace, capsys: pytest.CaptureFixture[str], words: list[str], expected: list[str]
) -> None:
    assert main([*words, f"store={methods.store}"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    assert all(word in lines[0] for word in expected), lines[0]


def test_a_store_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dhm s0", f"store={tmp_path / 'nowhere'}"]) == 2
    assert "no tracking store" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


def test_what_did_not_end_well_is_told_with_what_helps(
    methods: Workplace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = copied(methods, tmp_path)
    client, run = MlflowClient(place.uri), run_id(place)
    for status, expected in (("FAILED", "again with retry=failed"), ("KILLED", "let its grid go on")):
        client.set_terminated(run, status=status)
        assert main([run, f"store={place.store}"]) == 2
        assert expected in capsys.readouterr().err
    client.set_tag(run, schema.PRUNED, "3")
    assert main([run, f"store={place.store}"]) == 2
    assert "was given up, since other trials did better" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["edited", "no json", "gone", "deep", "seed"])
def test_a_record_that_was_changed_is_not_believed(
    methods: Workplace, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    place = copied(methods, tmp_path)
    run = run_id(place)
    file = artifact(place, run, schema.RECIPE_FILE)
    document = json.loads(file.read_text())
    if damage == "gone":
        file.unlink()
    elif damage in ("no json", "deep"):
        file.write_text({"no json": "{", "deep": "[" * 100_000}[damage])
    else:
        document["recipe"]["optim"]["lr"] = 0.2 if damage == "edited" else 0.1
        document["seed"] = 7 if damage == "seed" else 0
        file.write_text(json.dumps(document))
    assert main([run, f"store={place.store}"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and schema.RECIPE_FILE in lines[0]


class TestComparison:
    def test_verdicts(self) -> None:
        recorded = {"train/loss": {0: 1.0, 1: 0.5}, schema.TEST_TOP1: {0: 10.0, 1: 5.0}}
        assert compare(recorded, recorded, 0.0).verdict == IDENTICAL
        near = {"train/loss": {0: 1.0, 1: 0.504}, schema.TEST_TOP1: {0: 10.9, 1: 5.0}}
        found = compare(recorded, near, 0.01)
        assert found.verdict == WITHIN
        assert [(part.metric, part.epoch) for part in found.partings] == [(schema.TEST_TOP1, 0), ("train/loss", 1)]
        assert compare(recorded, near, 0.001).verdict == DIFFERENT
        assert compare(recorded, {**near, schema.TEST_TOP1: {0: 11.1, 1: 5.0}}, 0.01).verdict == DIFFERENT

    def test_curves_of_unequal_length_differ(self) -> None:
        assert compare({"a": {0: 1.0}}, {"a": {0: 1.0, 1: 1.0}}, 1.0).verdict == DIFFERENT

    def test_no_number_is_like_no_number_and_unlike_any(self) -> None:
        assert compare({"a": {0: math.nan}}, {"a": {0: math.nan}}, 0.0).verdict == IDENTICAL
        assert compare({"a": {0: math.nan}}, {"a": {0: 1.0}}, 1.0).verdict == DIFFERENT

    def test_nothing_is_identical_where_a_result_is_not_there_any_more(self) -> None:
        recorded = {schema.TEST_TOP1: {0: 5.0}, schema.TRAIN_LOSS: {0: 1.0}}
        assert compare(recorded, {schema.TRAIN_LOSS: {0: 1.0}}, 0.0).verdict == DIFFERENT
        assert compare({schema.TEST_TOP1: {0: 5.0}}, {"other": {0: 1.0}}, 0.0).verdict == DIFFERENT
        measured = {**recorded, f"{schema.KL}/main.side1": {0: 0.1}}
        assert compare(measured, recorded, 0.0).verdict == IDENTICAL, "diagnostics decide nothing"

    def test_metrics_that_one_of_them_lacks_are_named(self) -> None:
        found = compare({"a": {0: 1.0}, "b": {0: 1.0}}, {"b": {0: 1.0}, "c": {0: 1.0}}, 0.0)
        assert (found.curves, found.recorded_only, found.now_only) == (("b",), ("a",), ("c",))
