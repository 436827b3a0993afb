import dataclasses

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection

from analysis import catalogue, coverage, reading, schema, store
from analysis.data import GridData, IncompleteError
from analysis.figures import search as figure
from analysis.search import selected
from analysis.tables import comparison, importance
from analysis.tables import coverage as coverage_table
from analysis.tables import trials as table
from analysis.tables.render import FORMATS, markdown
from tests.analysis import synthetic


@pytest.fixture(scope="module")
def grid(uri: str) -> GridData:
    (plan,) = (plan for plan in store.plans(uri) if plan.plan_id == "mimicking_weights-1")
    return synthetic.searched(reading.load(uri, plan))


def test_the_table_has_every_trial_and_marks_the_selected_one(grid: GridData) -> None:
    made = table.build(grid)
    assert list(made.frame["trial"]) == list(range(30))
    best = selected(grid.trials)
    assert best is not None
    rows = markdown(made).splitlines()[2:32]
    assert [number for number, row in enumerate(rows) if "done, selected" in row] == [best[schema.TRIAL_NUMBER]]
    assert f"{best['mimic.alpha']:g}" in rows[best[schema.TRIAL_NUMBER]]
    assert f"{best[schema.VAL_TOP1]:.2f}" in rows[best[schema.TRIAL_NUMBER]]
    assert sum("pruned" in row for row in rows) == 6
    assert made.sources["3"]["run"] == "run3"
    assert "20%" in made.caption and "mimic.alpha 81%, mimic.temperature 19%" in made.caption
    assert all(render(made) for render in FORMATS.values())


def test_trials_of_several_codes_are_told(grid: GridData) -> None:
    trials = grid.trials.copy()
    trials.loc[0, schema.CODE] = "0ther"
    assert "made by 2 codes" not in table.build(grid).caption
    assert "made by 2 codes (0ther, c0de0001)" in table.build(dataclasses.replace(grid, trials=trials)).caption


def test_the_figure_draws_every_trial_over_every_field(grid: GridData) -> None:
    made = figure.build(grid)
    assert [axes.get_title() for axes in made.axes] == ["importance 81%", "importance 19%"]
    for axes, path in zip(made.axes, ("mimic.alpha", "mimic.temperature"), strict=True):
        assert axes.get_xscale() == "log"
        drawn = {str(c.get_label()): np.asarray(c.get_offsets()) for c in axes.collections}
        assert all(isinstance(c, PathCollection) for c in axes.collections)
        assert {label: len(points) for label, points in drawn.items()} == {
            "given up (its last error)": 6,
            "trained to the end": 23,
            "selected": 1,
        }
        best = selected(grid.trials)
        assert best is not None and drawn["selected"].tolist() == [[best[path], best[schema.VAL_TOP1]]]
        assert [line.get_xdata()[0] for line in axes.get_lines()] == [grid.plan.levels(path)[0]]


def test_a_search_that_has_selected_nothing_is_not_complete(grid: GridData) -> None:
    assert grid.plan.search is not None
    plan = dataclasses.replace(grid.plan, search={**grid.plan.search, "selected": None, "importance": {}}, factors={})
    going_on = dataclasses.replace(grid, plan=plan)
    for build in (figure.build, table.build, comparison.build):
        with pytest.raises(IncompleteError, match="The search has selected nothing yet"):
            build(going_on)
    assert coverage.sentence(plan, going_on.coverage).endswith("; the search has selected nothing yet.")
    assert plan.plan_id in coverage_table.build([going_on]).caption.rpartition("selected nothing yet")[2]
    allowed = dataclasses.replace(going_on, allow_incomplete=True)
    assert "the search has selected nothing yet" in allowed.warning
    assert not [line for axes in figure.build(allowed).axes for line in axes.get_lines()]
    assert "trial None" not in importance.build(allowed).caption


def test_a_figure_of_trials_names_their_runs(grid: GridData) -> None:
    assert catalogue.sources("search", grid)["trial 3"] == {"run": "run3"}
    assert set(catalogue.sources("training_curves", grid)) == set(grid.plan.names)


def test_what_was_selected_and_tested_before_is_told(grid: GridData) -> None:
    assert grid.dropped == () and "Selected before" not in comparison.build(grid).caption
    runs = grid.runs.copy()
    earlier = runs.iloc[[-1]].assign(**{schema.VARIANT: "dhm alpha 9", schema.RECIPE_ID: "other", "run_id": "r"})
    found = dataclasses.replace(grid, runs=pd.concat([runs, earlier]))
    assert found.dropped == ("dhm alpha 9",)
    assert "Selected before, tested as well, and not compared here: dhm alpha 9." in comparison.build(found).caption


def test_a_grid_without_a_search_is_refused(grid: GridData) -> None:
    plain = dataclasses.replace(grid, plan=dataclasses.replace(grid.plan, search=None))
    for build in (figure.build, table.build):
        with pytest.raises(ValueError, match="is no search"):
            build(plain)


def test_nothing_is_selected_where_no_trial_ended(grid: GridData) -> None:
    assert selected(grid.trials[grid.trials["state"] == coverage.PRUNED]) is None
    assert selected(pd.DataFrame(columns=grid.trials.columns)) is None
