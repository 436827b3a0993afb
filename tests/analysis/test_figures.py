import dataclasses
import itertools

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis import catalogue, effects, schema, store, style
from analysis.data import GridData, IncompleteError
from analysis.figures import methods, positions, training_curves, weights

# a grid for each figure; one without an entry is drawn of branch positions
GRIDS = {"weights": "mimicking_weights-1", "levels": "depths-1", "methods": "methods-1"}


@pytest.fixture(scope="module")
def grids(uri: str) -> dict[str, GridData]:
    return {plan.plan_id: GridData.load(uri, plan) for plan in store.plans(uri)}


def texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_visible() and text.get_text()]


@pytest.mark.parametrize("name", catalogue.figure_names())
def test_every_figure_is_readable(grids: dict[str, GridData], name: str) -> None:
    before = dict(mpl.rcParams)
    grid = grids[GRIDS.get(name, "branch_positions-1")]
    title = "A question that takes more words than one column of a page can hold"
    grid = dataclasses.replace(grid, plan=dataclasses.replace(grid.plan, title=title))
    figure = catalogue.figure(name)(grid)
    assert figure.get_figwidth() in (style.COLUMN, style.DOUBLE)
    assert figure.get_suptitle().replace("\n", " ").startswith(f"{title} on digits")
    labels = " ".join(axes.get_xlabel() + axes.get_ylabel() for axes in figure.axes)
    assert "(%)" in labels or "percentage points" in labels
    figure.canvas.draw()
    assert min(text.get_fontsize() for text in texts(figure)) >= 7
    # nothing sticks out of the page
    box = figure.get_tightbbox()
    assert box.x0 > -0.02 and box.y0 > -0.02
    assert box.x1 < figure.get_figwidth() + 0.02 and box.y1 < figure.get_figheight() + 0.02
    # and nothing is written over anything else
    words = [axes.xaxis.label for axes in figure.axes if axes.get_xlabel()] + figure.legends
    boxes = [item.get_window_extent() for item in words]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("name", catalogue.figure_names())
def test_every_figure_refuses_gaps_and_says_so_where_they_are_allowed(grids: dict[str, GridData], name: str) -> None:
    grid = grids[GRIDS.get(name, "branch_positions-1")]
    gap = grid.runs[~((grid.runs[schema.ROLE] == "arm") & (grid.runs[schema.SEED] == 0))]
    with pytest.raises(IncompleteError):
        catalogue.figure(name)(GridData(plan=grid.plan, runs=gap, curves=grid.curves))
    figure = catalogue.figure(name)(GridData(plan=grid.plan, runs=gap, curves=grid.curves, allow_incomplete=True))
    assert any("NOT COMPLETE" in text.get_text() for text in texts(figure))


@pytest.mark.parametrize("plan_id", ["branch_positions-1", "mimicking_weights-1", "depths-1", "methods-1"])
def test_curves_are_drawn_for_any_grid_and_every_variant_is_in_them(grids: dict[str, GridData], plan_id: str) -> None:
    grid = grids[plan_id]
    figure = training_curves.build(grid)
    drawn = [line.get_ydata()[-1] for axes in figure.axes for line in axes.get_lines()]
    for variant in grid.plan.names:
        mean = np.mean(list(grid.by_seed(variant).values()))
        assert any(abs(value - mean) < 1e-9 for value in drawn), variant


def test_positions_draws_the_paired_differences(grids: dict[str, GridData]) -> None:
    grid = grids["branch_positions-1"]
    axes = positions.build(grid).axes[0]
    drawn = {float(line.get_xdata()[0]) for line in axes.get_lines() if len(line.get_xdata()) == 1}
    found = effects.effects(grid)["difference"].dropna()
    assert drawn == set(found) and len(found) == 6
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "2", "1+2"]


def test_methods_keep_their_colours(grids: dict[str, GridData]) -> None:
    colours = {line.get_color() for line in methods.build(grids["methods-1"]).axes[0].get_lines()}
    assert set(style.COLOURS.values()) <= colours
    assert len({sum(mpl.colors.to_rgb(colour)) for colour in style.COLOURS.values()}) == 3


def test_a_figure_without_its_factor_says_what_it_needs(grids: dict[str, GridData]) -> None:
    with pytest.raises(ValueError, match=r"needs the factor 'mimic\.alpha'"):
        weights.build(grids["methods-1"])
    with pytest.raises(ValueError, match="needs a factor besides 'method'"):
        catalogue.figure("levels")(grids["methods-1"])


def test_one_seed_draws_without_warnings(grids: dict[str, GridData], recwarn: pytest.WarningsRecorder) -> None:
    for name in catalogue.figure_names():
        grid = grids[GRIDS.get(name, "branch_positions-1")]
        one = grid.runs[grid.runs[schema.SEED] == 0]
        made = catalogue.figure(name)(GridData(plan=grid.plan, runs=one, curves=grid.curves, allow_incomplete=True))
        made.canvas.draw()
    assert [str(warning.message) for warning in recwarn] == []
