"""`seeds=auto`: who gets more seeds, when it ends, and that nobody judges such a grid by another rule."""

import dataclasses
import random
from typing import Any

import pandas as pd
import pytest

from analysis import schema, sequential, stats
from analysis import store as reader
from experiments.grid import Cell, Plan
from experiments.scheduling import growth
from experiments.scheduling.outcome import Outcome
from experiments.stores import Stores
from experiments.study import Request, make_plan
from tests.experiments.conftest import Workplace

SHIFTS = {"plain": 0.0, "dsl": 0.0, "dhm": -5.0}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    stores = Stores(root=tmp_path_factory.mktemp("growth"))
    return make_plan(Request(grid="methods", seeds="auto"), stores)[0]


class Record:
    """Runs cells at once, with made errors, and is read as a store is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failing: str = "") -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.looks: list[Plan] = []
        self._failing = failing
        monkeypatch.setattr(growth.store, "runs", lambda uri: self.frame())
        monkeypatch.setattr(growth.store, "plans", lambda uri: [])

    def frame(self) -> pd.DataFrame:
        columns = ["run_id", "status", schema.PLAN, schema.CELL_ID, schema.CODE, schema.ATTEMPTS, schema.FINAL_TOP1]
        return pd.DataFrame(list(self.rows.values()), columns=columns)

    def schedule(self, plan: Plan) -> Outcome:
        self.looks.append(plan)
        fresh = [cell for cell in plan.cells if cell.cell_id not in self.rows]
        for cell in fresh:
            self.rows[cell.cell_id] = self._row(plan, cell)
        return Outcome(done=len(self.rows), trained=len(fresh))

    def _row(self, plan: Plan, cell: Cell) -> dict[str, Any]:
        seed, arm = random.Random(cell.seed), random.Random(f"{cell.name}")
        error = 15 + seed.gauss(0, 1) + SHIFTS[cell.variant.name] + arm.gauss(0, 0.3)
        row = {"run_id": cell.cell_id, schema.PLAN: plan.plan_id, schema.CELL_ID: cell.cell_id, schema.CODE: "c"}
        status = "FAILED" if cell.name == self._failing else "FINISHED"
        return {**row, "status": status, schema.ATTEMPTS: 1, schema.FINAL_TOP1: error}


def test_open_comparisons_go_on_and_decided_ones_stop(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    record, said = Record(monkeypatch), list[str]()
    whole, outcome = growth.run(plan, "", record.schedule, said.append)
    assert [len(look.cells) for look in record.looks] == [15, 25, 35, 45]
    assert whole.counts == {"plain": 20, "dsl": 20, "dhm": 5}
    assert outcome.trained == len(whole.cells) == 45
    assert said[0] == "1 of 2 comparisons decided at 5 seeds; up to 10 seeds for dsl"
    names = [cell.name for cell in record.looks[1].cells]
    assert len(set(names)) == 25 and {"plain s9", "dsl s9"} <= set(names) and "dhm s5" not in names


def test_what_was_cut_short_goes_on_where_it_was(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(monkeypatch)

    def cut(look: Plan) -> Outcome:
        outcome = record.schedule(look)
        return dataclasses.replace(outcome, stopped="interrupted" if len(record.looks) == 2 else None)

    early, _ = growth.run(plan, "", cut, lambda words: None)
    assert len(early.cells) == 25
    whole, outcome = growth.run(plan, "", record.schedule, lambda words: None)
    assert len(whole.cells) == 45 and outcome.trained == 20
    again, outcome = growth.run(plan, "", record.schedule, lambda words: None)
    assert again == whole and outcome.trained == 0
    assert growth.settled(plan, "") == whole, "as plan=true shows it"


def test_a_failed_cell_keeps_its_look_open(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(monkeypatch, failing="dsl s3")
    early, _ = growth.run(plan, "", record.schedule, lambda words: None)
    assert len(early.cells) == 15 and len(record.looks) == 1


def test_the_plan_is_the_same_whatever_its_seeds(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> None:
    stores = Stores(root=tmp_path_factory.mktemp("fixed"))
    fixed = make_plan(Request(grid="methods", seeds=7), stores)[0]
    assert fixed.plan_id == plan.plan_id and fixed.looks == () and growth.grown(fixed, pd.DataFrame()) is fixed
    asked = make_plan(Request(grid="methods", seeds="auto", max_seeds=7, look_every=3), stores)[0]
    assert (asked.looks, list(asked.seeds)) == ((3, 6, 7), [0, 1, 2])
    assert asked.extent == ["study.max_seeds=7", "study.look_every=3"]
    assert make_plan(Request(grid="methods", seeds="auto", max_seeds=4), stores)[0].looks == (4,)


def test_a_study_grows_from_the_command_line_and_is_judged_by_no_other_rule(
    workplace: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("grid=methods", "epochs=1", "factors.method=[plain,dhm]")
    auto = ("seeds=auto", "study.max_seeds=6", "study.look_every=3")
    assert workplace.run(*words, *auto) == 0
    shown = " ".join(capsys.readouterr().out.split())
    (plan,) = reader.plans(workplace.uri)
    assert plan.looks == (3, 6)
    number = len(plan.seeds_of("dhm"))
    assert f"{2 * number} of {2 * number} cells done" in shown and "at looks after 3, 6" in shown
    assert len(workplace.records()) == 2 * number
    assert plan.command.endswith(f"study.max_seeds=6 study.look_every=3 seeds=auto store={workplace.store}")
    (folder,) = (workplace.root / "results" / "digits").iterdir()
    table = (folder / "comparison.md").read_text()
    assert "at looks after 3, 6" in table and stats.OPEN not in table

    assert workplace.run(*words, *auto) == 0, "and again trains nothing"
    assert "trained now" not in capsys.readouterr().out
    assert workplace.run(*words, *auto, "plan=true") == 0
    assert f"{2 * number} cells: {2 * number} done" in " ".join(capsys.readouterr().out.split())
    for other in (("seeds=6",), ("seeds=auto",), ("seeds=6", "plan=true")):
        assert workplace.run(*words, *other) == 2
        told = capsys.readouterr().err
        assert "look by look, after 3, 6" in told and "study.look_every=3 study.max_seeds=6" in told
        assert len(told.splitlines()) == 1
    (kept,) = reader.plans(workplace.uri)
    assert dataclasses.replace(kept, updated=plan.updated) == plan, "nothing is lost"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("seeds=3", "study.max_seeds=9"), "study.max_seeds=9 is for seeds=auto"),
        (("study.look_every=3",), "study.look_every=3 is for seeds=auto"),
        (("seeds=auto", "study.look_every=2"), "study.look_every=2: must be at least 3"),
        (("seeds=auto", "study.max_seeds=2"), "must be at least 3"),
        (("seeds=auto", "study.look_every=3", "study.max_seeds=1000"), "more than 40 looks"),
        (("seeds=automatic",), "or auto"),
    ],
)
def test_mistakes_are_named(
    workplace: Workplace, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: str
) -> None:
    assert workplace.run("grid=methods", *words) == 2
    assert expected in capsys.readouterr().err


def test_an_arm_that_another_is_compared_with_goes_on_with_it_and_takes_its_own_baseline_along() -> None:
    shifts = {"dsl": 0.0, "own": -5.0, "found": -5.0}
    noise = random.Random(0)
    errors = {name: {seed: shift + noise.gauss(0, 0.3) for seed in range(5)} for name, shift in shifts.items()}
    counts = sequential.counts((5, 10), list(shifts), {"own": "dsl", "found": "own"}, errors.__getitem__)
    assert counts == {"dsl": 10, "own": 10, "found": 10}, "found and own are alike"
