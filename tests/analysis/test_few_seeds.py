"""What figures, tables and the summary say of settings, of few seeds and of which way a difference lies."""

import dataclasses

import pytest
from matplotlib.figure import Figure

from analysis import catalogue, stats
from analysis.summary import summary
from analysis.tables import comparison, cost, heads
from analysis.tables.render import markdown
from analysis.tables.table import difference_decimals
from tests.analysis import made

GRIDS = {
    "methods": {"method": ["plain", "dsl", "dhm"]},
    "levels": {"method": ["plain", "dsl", "dhm"], "branch_depth": [1, 2]},
    "weights": {"method": ["dsl", "dhm"], "mimic.alpha": [0.1, 1.0]},
    "positions": {"method": ["plain", "dhm"], "positions": ["1", "2"]},
}


def detail(figure: Figure) -> str:
    return figure.legends[0].get_title().get_text().replace("\n", " ")


def faint(figure: Figure) -> int:
    """How many runs are drawn as dots of their own."""
    found = [line for axes in figure.axes for line in axes.get_lines() if line.get_markersize() < 3]
    return sum(len(line.get_xdata()) for line in found)


@pytest.mark.parametrize("name", GRIDS)
def test_no_interval_is_promised_where_none_is_drawn(name: str) -> None:
    build = catalogue.figure(name)
    assert "mean and 95 % interval, 3 seeds" in detail(build(made.grid(GRIDS[name], seeds=3)))
    two = made.grid(GRIDS[name], seeds=2)
    assert "no interval from 2 seeds (marks alone): too few to tell" in detail(build(two))
    assert "95" not in detail(build(two)) and "Holm" not in detail(build(two))
    # a difference of each run, or each run's error
    assert faint(build(two)) == 2 * (len(two.plan.variants) - (name == "positions"))
    one = detail(build(made.grid(GRIDS[name], seeds=1)))
    assert "one seed, no interval: too few to tell" in one and "95" not in one


def test_curves_say_when_seeds_are_too_few() -> None:
    words = {
        seeds: detail(catalogue.figure("training_curves")(made.grid(GRIDS["methods"], seeds=seeds)))
        for seeds in (1, 2, 3)
    }
    assert words[1].startswith("one seed: too few to tell")
    assert words[2].startswith("mean and range of 2 seeds: too few to tell")
    assert words[3].startswith("mean and range of 3 seeds;")


@pytest.mark.parametrize("name", [*GRIDS, "training_curves"])
def test_a_figure_names_what_the_command_changed(name: str) -> None:
    build, factors = catalogue.figure(name), GRIDS.get(name, GRIDS["methods"])
    assert "changed" not in detail(build(made.grid(factors)))
    assert detail(build(made.grid(factors, overrides=("epochs=3", "optim.lr=1")))).endswith(
        "changed: epochs=3, optim.lr=1"
    )
    long = build(made.grid(factors, overrides=tuple(f"optim.lr={rate}" for rate in range(30))))
    assert "changed: optim.lr=0, optim.lr=1" in detail(long) and detail(long).endswith("…")
    long.canvas.draw()
    assert long.get_tightbbox().x0 > -0.02 and long.get_tightbbox().x1 < long.get_figwidth() + 0.02


def test_the_caption_names_data_backbones_and_epochs() -> None:
    words = "10 classes, 5,000 training and 1,000 test images"
    one = comparison.build(made.grid(GRIDS["methods"], data_words=words)).caption
    assert one.startswith(f"A made grid on digits ({words}): backbone resnet8, 6 epochs.")
    grid = made.grid({"arch": ["resnet8", "resnet14"], "method": ["plain", "dhm"]})
    grid.runs.loc[0, "epochs"] = 4
    told = comparison.build(grid).caption
    assert told.startswith("A made grid on digits: backbones resnet8, resnet14, 4 to 6 epochs.")


def test_a_step_has_its_deviation_over_seeds() -> None:
    grid = made.grid({"method": ["plain", "dhm"]})
    runs = grid.runs
    runs["cost/step_ms"] = [5.0, 6.0, 7.0, 10.0, 18.0, 14.0]
    table = cost.build(grid)
    row = table.frame.set_index("variant").loc["dhm"]
    assert (row["step_ms"], row["step_sd"]) == (14.0, 4.0)
    # seed by seed: 2, 3, 2
    assert row["step_relative"] == 2.0 and row["step_relative_sd"] == pytest.approx(3**-0.5)
    body = markdown(table)
    assert "14.0 ± 4.0" in body and "2.00 ± 0.58" in body and "6.0 ± 1.0 |             1.00 |" in body
    assert "±" not in markdown(cost.build(made.grid({"method": ["plain", "dhm"]}, seeds=1))).split("\n\n")[0]


def test_differences_have_one_direction_in_the_summary() -> None:
    grid = made.grid({"method": ["plain", "dsl", "dhm"]})
    errors = {"plain": (10, 11, 12), "dsl": (9.2, 11.2, 11.8), "dhm": (10.6, 10.9, 12.1)}
    grid.runs["final/top1_error"] = [error for row in errors.values() for error in row]
    told = summary(grid.plan, grid.runs).splitlines()
    start = told.index("Difference to plain in percentage points [95 % interval]; below zero is better:")
    assert told[start + 1] == "  dsl  −0.3 [−1.5, +1.0]: no difference shown"
    assert told[start + 2] == "  dhm  +0.2 [−0.7, +1.1]: no difference shown"


def test_differences_that_pairing_makes_sharp_are_shown_with_the_decimals_that_they_need() -> None:
    assert difference_decimals(1, [0.9, 1.0, 1.3]) == 1
    assert difference_decimals(1, [0.004, 0.008, 0.02]) == difference_decimals(1, [0.03]) == 2
    assert difference_decimals(1, []) == difference_decimals(1, [float("nan")]) == difference_decimals(1, [12.0]) == 1


def test_where_seeds_are_added_every_verdict_can_be_drawn_and_every_seed_is_counted() -> None:
    counts = {"plain": 6, "dsl": 3, "dhm": 6}
    grid = made.grid(GRIDS["methods"], seeds=6, sequential={"looks": [3, 6], "seeds": counts})
    kept = [row.variant != "dsl" or row.seed < 3 for row in grid.runs.itertuples()]
    grid = dataclasses.replace(grid, runs=grid.runs[kept])
    figure = catalogue.figure("effects")(grid)
    assert {text.get_text() for text in figure.legends[0].get_texts()} >= {stats.OPEN}
    assert "over 3 to 6 seeds (from 0)" in heads.build(grid).caption


def test_what_a_baseline_costs_is_told_as_a_multiple_of_itself() -> None:
    frame = cost.build(made.grid({"method": ["plain", "dhm"], "optim.lr": [0.1, 0.2]})).frame.set_index("variant")
    assert frame.loc["plain 0.2", "against"] == "plain 0.2" and frame.loc["dhm 0.2", "against"] == "plain 0.2"
