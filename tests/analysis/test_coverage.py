from typing import Any

import pandas as pd
import pytest

from analysis import coverage, schema
from analysis.data import GridData, IncompleteError
from analysis.plan import Plan
from analysis.summary import summary
from analysis.tables import comparison
from tests.analysis import synthetic


def plan(seeds: int = 3) -> Plan:
    record = synthetic.plan_record("methods", plan_id="p1", seeds=seeds)
    return Plan.from_record(record, experiment="digits/methods", experiment_id="1")


def frame(made: Plan, changes: dict[tuple[str, int], dict[str, Any] | None] | None = None) -> pd.DataFrame:
    """Records of a plan with all cells done, but for `changes`; None drops a record."""
    rows = []
    for variant in made.variants:
        for seed in made.seeds:
            change = (changes or {}).get((variant.name, seed), {})
            row = {
                "run_id": f"{variant.name}-{seed}",
                "status": "FINISHED",
                schema.PLAN: made.plan_id,
                schema.VARIANT: variant.name,
                schema.SEED: seed,
                schema.RECIPE_ID: variant.recipe_id,
                schema.CODE: made.code,
                schema.COMMIT: "c0ffee",
                schema.DIRTY: False,
                schema.EPOCHS: 15,
                schema.FAILURE: None,
                schema.FINAL_TOP1: 10.0 + len(variant.name) + seed * seed / 10,
                schema.BEST_TOP1: 9.0,
            }
            if change is not None:
                rows.append({**row, **change})
    return pd.DataFrame(rows)


CHANGES: dict[tuple[str, int], dict[str, Any] | None] = {
    ("plain", 0): None,
    ("plain", 1): {"status": "FAILED", schema.FAILURE: "out_of_memory", schema.FINAL_TOP1: None},
    ("plain", 2): {"status": "RUNNING", schema.FINAL_TOP1: None},
    ("dsl", 0): {schema.CODE: "other"},
    ("dsl", 1): {schema.RECIPE_ID: "other"},
    ("dsl", 2): {schema.FINAL_TOP1: float("nan")},
}


def test_every_cell_has_its_state() -> None:
    found = coverage.coverage(plan(), frame(plan(), CHANGES)).set_index(["variant", "seed"])
    assert found.loc["plain", "state"].tolist() == ["missing", "failed", "running"]
    assert found.loc["dsl", "state"].tolist() == ["stale", "stale", "failed"]
    assert found.loc["dsl", "why"].tolist() == ["code", "recipe", "no final/top1_error"]
    assert found.loc["dhm", "state"].tolist() == ["done"] * 3
    assert found.loc[("plain", 1), "why"] == "out_of_memory"


def test_counts_and_sentence() -> None:
    found = coverage.coverage(plan(), frame(plan(), CHANGES))
    assert coverage.counts(found) == {"done": 3, "stale": 2, "running": 1, "failed": 2, "missing": 1}
    told = coverage.sentence(plan(), found)
    assert "5 of 9 cells done, 1 running, 2 failed, 1 missing" in told
    assert "1 of them made by earlier code; 1 of them made under another recipe" in told


def test_records_of_other_plans_and_of_dropped_variants_do_not_count() -> None:
    whole = frame(plan())
    other = whole.assign(**{schema.PLAN: "p2", "run_id": "x"})
    dropped = whole.head(1).assign(**{schema.VARIANT: "gone", "run_id": "y"})
    grid = GridData(plan=plan(), runs=pd.concat([other, dropped, whole], ignore_index=True))
    assert len(grid.cells) == 9 and not {"x", "y"} & set(grid.cells["run_id"])


def test_of_two_records_of_a_cell_the_one_that_is_done_counts() -> None:
    whole = frame(plan())
    old = whole.head(1).assign(**{schema.RECIPE_ID: "old", "run_id": "a-former-recipe"})
    grid = GridData(plan=plan(), runs=pd.concat([old, whole], ignore_index=True))
    assert "a-former-recipe" not in set(grid.cells["run_id"]) and not grid.remarks


@pytest.mark.parametrize("change", [None, {"status": "FAILED"}, {"status": "RUNNING"}, {schema.RECIPE_ID: "other"}])
def test_a_gap_is_refused_with_the_cell_and_the_remedy(change: dict[str, Any] | None) -> None:
    grid = GridData(plan=plan(), runs=frame(plan(), {("dsl", 1): change}))
    with pytest.raises(IncompleteError, match=r"1 of 9 cells are absent: dsl seed 1 .*experiments\.run grid=methods"):
        comparison.build(grid)


def test_mixed_code_is_refused_and_one_old_code_is_not() -> None:
    mixed = frame(plan(), {("dsl", 1): {schema.CODE: "other"}})
    with pytest.raises(IncompleteError, match="2 codes"):
        comparison.build(GridData(plan=plan(), runs=mixed))
    old = frame(plan()).assign(**{schema.CODE: "older"})
    assert "last run with code c0de0001" in comparison.build(GridData(plan=plan(), runs=old)).caption


def test_when_allowed_the_caption_names_what_is_absent_and_pairs_shrink() -> None:
    runs = frame(plan(4), {("plain", 0): None, ("dsl", 1): {schema.CODE: "other"}})
    table = comparison.build(GridData(plan=plan(4), runs=runs, allow_incomplete=True))
    assert "NOT COMPLETE: 1 of 12 cells are absent: plain seed 0 (missing)." in table.caption
    assert "2 codes (c0de0001, other)" in table.caption
    by_name = table.frame.set_index("variant")
    assert by_name.loc["plain", "seeds"] == 3 and by_name.loc["dsl", "seeds"] == 4
    assert by_name.loc["dsl", "pairs"] == 3
    assert set(table.sources["plain"]["runs"]) == {"1", "2", "3"}


def test_nothing_done_is_refused_even_where_gaps_are_allowed() -> None:
    nothing = frame(plan()).assign(status="FAILED")
    with pytest.raises(IncompleteError, match="No cell"):
        comparison.build(GridData(plan=plan(), runs=nothing, allow_incomplete=True))


def test_the_summary_gives_no_mean_over_gaps() -> None:
    told = summary(plan(), frame(plan(), {("dsl", 1): None}))
    assert "8 of 9 cells done, 1 missing" in told and "dsl seed 1 (missing)" in told
    assert "python -m experiments.run grid=methods benchmark=digits" in told
    assert "±" not in told and "better" not in told
    assert "NOT COMPLETE" in summary(plan(), frame(plan(), {("dsl", 1): None}), allow_incomplete=True)
    assert "0 of 9 cells done, 9 missing" in summary(plan(), frame(plan()).head(0))


def test_the_summary_answers_the_question() -> None:
    made = plan()
    draws = {("dsl", s): {schema.FINAL_TOP1: 10.0 + s + d} for s, d in enumerate((0.3, -0.3, 0.1))}
    draws |= {("dhm", s): {schema.FINAL_TOP1: 8.0 + s + d} for s, d in enumerate((0.0, -0.02, 0.02))}
    draws |= {("plain", s): {schema.FINAL_TOP1: 10.0 + s} for s in range(3)}
    told = summary(made, frame(made, draws)).splitlines()
    assert told[0] == "Methods: 3 variants × 3 seeds on digits."
    assert told[2] == (
        "dhm is better than plain. The largest difference shown is −2.0 points [−2.0, −2.0] of dhm; "
        "none is shown for the other arm."
    )
    assert "Baseline plain: 11.0 ± 1.0 % top-1 error." in told
    start = told.index("Difference to plain in percentage points [95 % interval]; below zero is better:")
    assert told[start + 1 : start + 3] == [
        "  dsl  0.0 [−0.7, +0.8]: no difference shown",
        "  dhm  −2.0 [−2.0, −2.0]: better",
    ]


def test_the_summary_says_when_seeds_are_too_few() -> None:
    told = summary(plan(1), frame(plan(1)))
    assert "× 1 seed on" in told and "95 % interval" not in told
    assert "too few seeds to tell" in told and "With 1 seed no difference can be told" in told


def test_the_remedy_says_what_to_run_again() -> None:
    complete = GridData(plan=plan(), runs=frame(plan(), {}))
    assert "retry" not in complete.remedy
    mixed = GridData(plan=plan(), runs=frame(plan(), {("dsl", 1): {schema.CODE: "other"}}))
    assert mixed.remedy == f"{plan().command} retry=stale"
    failed = GridData(plan=plan(), runs=frame(plan(), {("dsl", 1): {"status": "FAILED"}}))
    assert failed.remedy == f"{plan().command} retry=failed"
    with pytest.raises(IncompleteError, match="retry=failed"):
        comparison.build(failed)
