import dataclasses
import math

import pytest

from analysis import published, schema
from analysis.data import GridData
from analysis.tables import published as table
from analysis.tables.render import markdown
from analysis.tables.table import Table
from tests.analysis import made

FACTORS = {"arch": ["resnet32", "wrn_28_10"], "method": ["plain", "dsl", "dhm"]}


def cifar(*errors: float, factors: dict | None = None, **changes: object) -> GridData:
    """The architectures on CIFAR-100, every variant with these best errors by seed, and a point more at the end."""
    fields = {"grid": "architectures", "benchmark": "cifar100", "experiment": "cifar100/architectures"}
    grid = made.grid(factors or FACTORS, seeds=len(errors), **(fields | changes))
    grid.runs[schema.BEST_TOP1] = [errors[seed] for seed in grid.runs[schema.SEED]]
    grid.runs[schema.FINAL_TOP1] = grid.runs[schema.BEST_TOP1] + 1
    return grid


def row(found: Table, architecture: str, method: str, metric: str = "top-1") -> dict:
    frame = found.frame.set_index(["architecture", "method", "metric"])
    assert frame.index.is_unique
    return frame.loc[(architecture, method, metric)].to_dict()


def test_figures_have_a_source_and_a_standing() -> None:
    found = [figure for name in published.BENCHMARKS for figure in published.figures(name)]
    assert len(found) == 41
    assert all(figure.source and figure.standing in ("author", "second-hand") for figure in found)
    assert all(0 < figure.value < 50 and math.isclose(figure.value, float(figure.written)) for figure in found)
    (one,) = (f for f in published.figures("cifar100") if (f.architecture, f.method) == ("wrn_28_10_dropout", "plain"))
    assert (one.text, one.runs, one.standing) == ("18.64 ± 0.19", "5", "author")


def test_another_paper_s_deep_supervision_is_nobody_s_dsl() -> None:
    for benchmark in table.METRICS:
        frame = table.build([], benchmark).frame
        dsl = frame[(frame["method"] == "dsl") & (frame["published"] != "")]
        assert all("DHM" in source for source in dsl["source"])
        others = frame[frame["method"].isin(["ds", "dks"])]
        assert len(others) and set(others["verdict"]) == {"another method"}
    assert row(table.build([], "cifar100"), "resnet32", "dsl")["published"] == ""


@pytest.mark.parametrize("benchmark", table.METRICS)
def test_with_nothing_run_every_figure_stands_beside_not_run(benchmark: str) -> None:
    found = table.build([], benchmark)
    figures = published.figures(benchmark)
    assert {f.architecture for f in figures} == set(found.frame["architecture"])
    assert sorted(f.value for f in figures) == sorted(found.frame["published_value"].dropna())
    ours = found.frame[found.frame["method"].isin(["plain", "dsl", "dhm"])]
    assert set(ours["verdict"]) == {"not run"}
    assert "| not run " in markdown(found)


@pytest.mark.parametrize(
    ("errors", "verdict"),
    [
        ((29.9, 30.0, 30.1), "reproduced"),
        ((31.9, 32.0, 32.1), "differs"),
        ((27.9, 28.0, 28.1), "differs"),
        ((29.0, 30.0, 31.0), "inconclusive"),
        ((30.4, 30.47, 30.54), "inconclusive"),
        ((29.9, 30.0), "inconclusive"),
    ],
)
def test_verdicts(errors: tuple[float, ...], verdict: str) -> None:
    found = row(table.build([cifar(*errors)], "cifar100"), "resnet32", "plain")
    assert (found["published"], found["verdict"]) == ("29.97", verdict)
    assert found["difference"] == pytest.approx(sum(errors) / len(errors) - 29.97)


def test_ours_are_held_against_figures_by_the_best_epoch_and_against_plain_by_the_last() -> None:
    grid = cifar(30.0, 30.1, 30.2)
    own = grid.runs[schema.VARIANT] == "resnet32 dhm"
    grid.runs.loc[own, schema.FINAL_TOP1] -= [2.0, 2.1, 2.2]
    found = row(table.build([grid], "cifar100"), "resnet32", "dhm")
    assert found["best"] == pytest.approx(30.1) and found["final"] == pytest.approx(29.0)
    assert (found["gain"], found["verdict"]) == (pytest.approx(-2.1), "no published figure")
    assert found["gain_low"] < -2.1 < found["gain_high"]


def test_wide_resnets_stand_beside_the_figure_with_their_dropout() -> None:
    documented = table.build([cifar(18.6, 18.7, 18.8)], "cifar100")
    assert row(documented, "wrn_28_10_dropout", "plain")["verdict"] == "reproduced"
    assert row(documented, "wrn_28_10", "plain")["verdict"] == "not run"
    released = table.build([cifar(18.6, 18.7, 18.8, overrides=("recipe=released",))], "cifar100")
    assert row(released, "wrn_28_10", "plain")["verdict"] == "reproduced"
    assert row(released, "wrn_28_10_dropout", "plain")["verdict"] == "not run"


def test_changed_recipes_and_other_grids_are_left_out() -> None:
    short = cifar(29.9, 30.0, 30.1, overrides=("epochs=3",), plan_id="short")
    other = cifar(29.9, 30.0, 30.1, grid="label_noise")
    found = table.build([short, other], "cifar100")
    assert row(found, "resnet32", "plain")["verdict"] == "not run"
    assert "plans short." in found.caption
    chosen = cifar(
        29.9, 30.0, 30.1, grid="methods", overrides=("arch=resnet110",), factors={"method": ["plain", "dhm"]}
    )
    one = dataclasses.replace(
        chosen.plan, variants=tuple(dataclasses.replace(v, arch="resnet110") for v in chosen.plan.variants)
    )
    kept = table.build([dataclasses.replace(chosen, plan=one)], "cifar100")
    assert row(kept, "resnet110", "plain")["seeds"] == 3 and "Left out" not in kept.caption


def test_a_gap_in_one_variant_is_told_there_and_hides_no_other() -> None:
    grid = cifar(29.9, 30.0, 30.1)
    gap = (grid.runs[schema.VARIANT] == "resnet32 plain") & (grid.runs[schema.SEED] == 1)
    holey = dataclasses.replace(grid, runs=grid.runs[~gap])
    found = table.build([holey], "cifar100")
    plain, dhm = row(found, "resnet32", "plain"), row(found, "resnet32", "dhm")
    assert plain["verdict"] == "not complete" and math.isnan(plain["best"])
    assert dhm["seeds"] == 3 and math.isnan(dhm["gain"]), "no difference to what is not complete"
    assert not math.isnan(row(found, "wrn_28_10_dropout", "dhm")["gain"])
    allowed = table.build([dataclasses.replace(holey, allow_incomplete=True)], "cifar100")
    assert row(allowed, "resnet32", "plain")["seeds"] == 2 and "NOT COMPLETE" in allowed.caption


def test_of_two_plans_the_complete_one_with_more_seeds_counts_and_is_named() -> None:
    few = cifar(20.0, 20.1, 20.2, plan_id="few", updated=9.0)
    many = cifar(29.9, 30.0, 30.1, 30.0, plan_id="many")
    found = table.build([few, many], "cifar100")
    assert row(found, "resnet32", "plain")["seeds"] == 4
    behind = found.sources["resnet32 plain top-1"]
    assert behind["plan"] == "many" and behind["runs"] == {str(s): f"resnet32 plain s{s}" for s in range(4)}
    assert behind["published"]["standing"] == "second-hand"


def test_imagenet_has_both_errors() -> None:
    grid = cifar(31.0, 31.1, 31.2, benchmark="imagenet", factors={"arch": ["resnet18"], "method": ["plain", "dhm"]})
    grid.runs[schema.BEST_TOP5] = [11.1, 11.2, 11.0] * 2
    grid.runs[schema.FINAL_TOP5] = [12.1, 12.2, 12.0] * 2
    found = table.build([grid], "imagenet")
    assert row(found, "resnet18", "plain")["verdict"] == "reproduced"
    five = row(found, "resnet18", "plain", "top-5")
    assert (five["verdict"], five["final"]) == ("reproduced", pytest.approx(12.1))
    assert row(found, "resnet18", "dhm", "top-5")["verdict"] == "differs"
