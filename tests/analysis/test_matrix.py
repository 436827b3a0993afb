import pytest

from analysis import catalogue, schema
from analysis.tables import coverage, importance, matrix
from analysis.tables.render import markdown
from tests.analysis import made, synthetic

CROSSED = {
    "positions": ({"method": ["plain", "dsl", "dhm"], "positions": ["1", "2", "1+2"]}, ["plain", "dsl", "dhm"], 3),
    "weights": (
        {"method": ["dsl", "dhm"], "mimic.alpha": [0.1, 1.0], "mimic.temperature": [1.0, 3.0]},
        ["T 1", "T 3"],
        3,
    ),
    "depths": (
        {"arch": ["resnet8", "resnet14"], "method": ["plain", "dsl", "dhm"], "branch_depth": [1, 2]},
        ["plain", "dsl", "dhm"],
        4,
    ),
    "noise": ({"method": ["plain", "dhm"], "data.label_noise": [0.0, 0.4]}, ["plain", "dhm"], 2),
}
LISTS = (
    {"method": ["plain", "dsl", "dhm"]},
    {"method": ["dsl", "dhm"], "mimic.pairs": ["all", "sides_to_main", "main_to_sides"]},
    {"optim.lr": [0.1, 0.2]},
)


@pytest.mark.parametrize("name", CROSSED)
def test_crossed_factors_are_laid_out(name: str) -> None:
    factors, heads, count = CROSSED[name]
    grid = made.grid(factors)
    assert "matrix" in catalogue.tables_of(grid.plan)
    table = matrix.build(grid)
    assert [column.title for column in table.columns][-len(heads) :] == heads
    assert len(table.frame) == count
    placed = {cell["variant"] for row in table.sources.values() for cell in row.values()}
    assert placed == set(grid.plan.names), "no variant is left out"
    assert all(len(row) == len(heads) for row in table.sources.values()), "and no cell is empty"


@pytest.mark.parametrize("factors", LISTS)
def test_what_crosses_nothing_is_told_by_the_comparison_alone(factors: dict) -> None:
    grid = made.grid(factors)
    assert "matrix" not in catalogue.tables_of(grid.plan)
    with pytest.raises(ValueError, match="does not cross two factors"):
        matrix.build(grid)


def test_a_found_setting_does_not_cross_the_recipe_s_own() -> None:
    factors = {"method": ["dsl", "dhm"], "mimic.alpha": [1.0, 0.7], "mimic.temperature": [1.0, 2.1]}
    crossed = {(0.7, 1.0), (1.0, 2.1)}
    kept = [
        v for v in made.variants(factors) if (v.factors["mimic.alpha"], v.factors["mimic.temperature"]) not in crossed
    ]
    assert len(kept) == 3 and not matrix.applies(made.grid(factors, variants=kept).plan)


def test_cells_have_the_numbers_of_their_variants_and_marks() -> None:
    grid = made.grid(CROSSED["weights"][0])
    errors = {"dsl": 10.0, "dhm 0.1 1.0": 10.05, "dhm 0.1 3.0": 8.0, "dhm 1.0 1.0": 13.0, "dhm 1.0 3.0": 10.0}
    grid.runs[schema.FINAL_TOP1] = [
        errors[name] + seed + 0.1 * (seed == 1) * (name != "dsl")
        for name, seed in zip(grid.runs[schema.VARIANT], grid.runs[schema.SEED], strict=True)
    ]
    shown = [line.split("|")[1:-1] for line in markdown(matrix.build(grid)).splitlines()[2:5]]
    assert [[text.strip() for text in row] for row in shown] == [
        ["dsl", "–", "11.0 ± 1.0", "11.0 ± 1.0"],
        ["dhm", "0.1", "11.1 ± 1.0", r"9.0 ± 1.0\*"],
        ["dhm", "1", "14.0 ± 1.0†", "11.0 ± 1.0"],
    ]
    table = matrix.build(grid)
    assert "stands several times" in table.caption
    assert table.sources["dhm 0.1"]["3"]["variant"] == "dhm 0.1 3.0"
    assert table.frame["3 mean"].tolist() == pytest.approx([11.0, 9 + 0.1 / 3, 11 + 0.1 / 3])
    assert "stands several times" not in matrix.build(made.grid(CROSSED["noise"][0])).caption


def test_importance_lists_parameters_by_how_much_they_matter() -> None:
    factors = {"method": ["dsl", "dhm"], "mimic.temperature": [1.0], "mimic.alpha": [1.0]}
    grid = synthetic.searched(made.grid(factors))
    assert {"trials", "importance"} <= set(catalogue.tables_of(grid.plan))
    table = importance.build(grid)
    assert list(table.frame["parameter"]) == ["mimic.alpha", "mimic.temperature"]
    assert list(table.frame["importance"]) == [0.81, 0.19] and list(table.frame["own"]) == [1.0, 1.0]
    chosen = grid.trials[grid.trials[schema.TRIAL_NUMBER] == grid.searched["selected"]].iloc[0]
    assert table.frame["found"].tolist() == [chosen["mimic.alpha"], chosen["mimic.temperature"]]
    assert "0.05 to 5" in markdown(table) and "the trials that ended (24; fANOVA)" in table.caption


def test_importance_that_is_not_known_is_left_blank() -> None:
    grid = synthetic.searched(made.grid({"method": ["dsl", "dhm"]}), count=3)
    grid.plan.search["importance"] = {}
    assert list(importance.build(grid).frame["importance"].isna()) == [True, True]


def test_coverage_tells_what_became_stale_and_why() -> None:
    factors = {"method": ["plain", "dhm"]}
    old = made.grid(factors, plan_id="old", grid="a", updated=1.0)
    same = made.grid(factors, plan_id="same", grid="b", updated=2.0)
    images = made.grid(factors, plan_id="images", grid="a", updated=3.0, data="0ther", overrides=("arch=x",))
    frame = coverage.build([old, same, images]).frame.set_index("plan")
    assert list(frame["done"]) == [6, 6, 6] and list(frame["stale_because"]) == ["", "", ""]
    newer = made.grid(factors, plan_id="newer", grid="a", updated=4.0, data="0ther")
    later = made.grid(factors, plan_id="later", grid="c", updated=5.0, code="1ater")
    table = coverage.build([old, same, newer, later])
    frame = table.frame.set_index("plan")
    assert frame["stale_because"].to_dict() == {"old": "data", "same": "code", "newer": "code", "later": ""}
    assert frame["stale"].to_dict() == {"old": 6, "same": 6, "newer": 6, "later": 0}
    assert "6 (data)" in markdown(table)
    assert {cell["why"] for cell in table.sources["old"]} == {"data"}
