import dataclasses
import itertools
from types import ModuleType
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis import agreement, catalogue, effects, reading, schema, store, style
from analysis.data import GridData, IncompleteError
from analysis.figures import effects as effect_plot
from analysis.figures import gradient_agreement, methods, mimicking_matrix, positions, training_curves, weights
from analysis.tables import agreement as agreement_table
from analysis.tables import heads
from tests.analysis import synthetic
from tests.analysis.synthetic import HEADS, PAIRS

# a grid for each figure; one without an entry is drawn of branch positions
GRIDS = {
    "weights": "mimicking_weights-1",
    "levels": "depths-1",
    "methods": "methods-1",
    "gradient_agreement": "measured",
    "mimicking_matrix": "measured",
    "search": "searched",
    "network": "drawn",
}


@pytest.fixture(scope="module")
def grids(uri: str) -> dict[str, GridData]:
    found = {plan.plan_id: reading.load(uri, plan) for plan in store.plans(uri)}
    made = {
        "measured": synthetic.measured(found["methods-1"]),
        "searched": synthetic.searched(found["mimicking_weights-1"]),
        "drawn": synthetic.drawn(found["branch_positions-1"]),
    }
    return {**found, **made}


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
    assert name == "network" or any(unit in labels for unit in ("(%)", "percentage points", "nats", "cosine"))
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
        catalogue.figure(name)(dataclasses.replace(grid, runs=gap))
    figure = catalogue.figure(name)(dataclasses.replace(grid, runs=gap, allow_incomplete=True))
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


def test_every_comparison_is_in_the_effect_plot_sorted_with_its_interval(grids: dict[str, GridData]) -> None:
    grid = grids["branch_positions-1"]
    axes = effect_plot.build(grid).axes[0]
    found = effects.effects(grid).dropna(subset="difference").sort_values("difference")
    assert [label.get_text() for label in axes.get_yticklabels()] == list(found["variant"])
    points = [line for line in axes.get_lines() if len(line.get_xdata()) == 1]
    assert [line.get_xdata()[0] for line in points] == list(found["difference"])
    spans = [tuple(line.get_xdata()) for line in axes.get_lines() if len(line.get_xdata()) == 2][1:]
    assert spans == list(zip(found["low"], found["high"], strict=True))
    # the verdict is told by the marker as well as by its colour
    looks = {(line.get_marker(), line.get_color()) for line in points}
    assert len(looks) == found["verdict"].nunique() == 2
    assert len({marker for marker, _ in looks}) == len({sum(mpl.colors.to_rgb(colour)) for _, colour in looks}) == 2


def test_a_page_of_effects_holds_the_largest_and_says_so(grids: dict[str, GridData], monkeypatch: Any) -> None:
    monkeypatch.setattr(effect_plot, "ROOM", 2)
    grid = grids["branch_positions-1"]
    figure = effect_plot.build(grid)
    found = effects.effects(grid).set_index("variant")["difference"].dropna()
    drawn = {label.get_text() for label in figure.axes[0].get_yticklabels()}
    assert drawn == set(found.abs().nlargest(2).index)
    assert any("the 2 largest of 6 differences" in text.get_text() for text in texts(figure))


def test_methods_keep_their_colours(grids: dict[str, GridData]) -> None:
    colours = {line.get_color() for line in methods.build(grids["methods-1"]).axes[0].get_lines()}
    assert set(style.COLOURS.values()) <= colours
    assert len({sum(mpl.colors.to_rgb(colour)) for colour in style.COLOURS.values()}) == 3


def test_a_figure_without_its_factor_says_what_it_needs(grids: dict[str, GridData]) -> None:
    with pytest.raises(ValueError, match=r"needs the factor 'mimic\.alpha'"):
        weights.build(grids["methods-1"])
    with pytest.raises(ValueError, match="needs a factor besides 'method'"):
        catalogue.figure("levels")(grids["methods-1"])


def with_levels(grid: GridData, levels: list[float | str]) -> GridData:
    """A grid of the baseline and a first arm that has been trained at each of these levels."""
    plan = grid.plan
    baseline, arm = plan.variants[0], next(variant for variant in plan.variants if variant.method == "dhm")
    arms = [dataclasses.replace(arm, name=f"at {level}", factors={"of.it": level}) for level in levels]
    factors = {"method": ("plain", "dhm"), "of.it": tuple(levels)}
    baseline = dataclasses.replace(baseline, factors={"of.it": None})
    rows = [grid.runs[grid.runs[schema.VARIANT] == arm.name].assign(**{schema.VARIANT: new.name}) for new in arms]
    runs = pd.concat([grid.runs[grid.runs[schema.VARIANT] == baseline.name], *rows], ignore_index=True)
    return dataclasses.replace(
        grid, plan=dataclasses.replace(plan, factors=factors, variants=(baseline, *arms)), runs=runs
    )


@pytest.mark.parametrize(
    ("levels", "turned", "told"),
    [
        ([0.1, 0.2, 0.3], 0, 3),
        (["a level of many words", "and another", "third"], 30, 3),
        ([round(0.01 * number, 2) for number in range(1, 16)], 90, 15),
        ([round(0.01 * number, 2) for number in range(1, 61)], 90, 15),
    ],
)
def test_the_levels_of_an_axis_have_room(
    grids: dict[str, GridData], levels: list[float | str], turned: int, told: int
) -> None:
    figure = catalogue.figure("levels")(with_levels(grids["methods-1"], levels))
    figure.canvas.draw()
    labels = figure.axes[0].get_xticklabels()
    assert {label.get_rotation() for label in labels} == {turned}
    assert len(labels) == told
    if turned != 30:  # the boxes of slanted words lie over one another where the words do not
        boxes = [label.get_window_extent() for label in labels]
        assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))


def test_one_seed_draws_without_warnings(grids: dict[str, GridData], recwarn: pytest.WarningsRecorder) -> None:
    for name in catalogue.figure_names():
        grid = grids[GRIDS.get(name, "branch_positions-1")]
        one = grid.runs[grid.runs[schema.SEED] == 0]
        made = catalogue.figure(name)(dataclasses.replace(grid, runs=one, allow_incomplete=True))
        made.canvas.draw()
    assert [str(warning.message) for warning in recwarn] == []


def test_the_matrices_hold_the_means_over_the_seeds(grids: dict[str, GridData]) -> None:
    grid = grids["measured"]
    figure = mimicking_matrix.build(grid)
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == ["dsl", "", "dhm", ""]
    limits = {(axes.images[0].norm.vmin, axes.images[0].norm.vmax) for axes in panels}
    assert len(limits) == 1, "one scale of colours"
    drawn = iter(panels)
    for variant in ("dsl", "dhm"):
        for metric in (schema.INITIAL_KL, schema.KL):
            axes = next(drawn)
            if metric == schema.KL:
                assert [label.get_text() for label in axes.get_xticklabels()] == list(HEADS)
            cells = axes.images[0].get_array()
            for (i, student), (j, teacher) in itertools.permutations(enumerate(HEADS), 2):
                mean = np.mean(list(grid.by_seed(variant, f"{metric}/{student}.{teacher}").values()))
                assert cells[i, j] == pytest.approx(mean)
                (text,) = [t for t in axes.texts if t.get_position() == (j, i)]
                assert float(text.get_text()) == pytest.approx(mean, rel=0.06)
            assert np.ma.getmaskarray(cells).diagonal().all()


def test_gradients_are_drawn_for_every_pair_and_the_whole_loss_where_it_differs(grids: dict[str, GridData]) -> None:
    grid = grids["measured"]
    figure = gradient_agreement.build(grid)
    assert [axes.get_title() for axes in figure.axes] == [pair.replace(".", " and ") for pair in PAIRS]
    methods_of = grid.runs.set_index("run_id")[schema.METHOD]
    for axes, pair in zip(figure.axes, PAIRS, strict=True):
        lines = {str(line.get_label()): line for line in axes.get_lines() if not str(line.get_label()).startswith("_")}
        assert set(lines) == {"dsl: cross-entropy", "dhm: cross-entropy", "dhm: with mimicking"}
        for label, line in lines.items():
            metric = schema.GRADIENT_COSINE if "mimicking" in label else schema.GRADIENT_COSINE_CE
            own = grid.curves[(grid.curves["metric"] == f"{metric}/{pair}")]
            own = own[own["run_id"].map(methods_of) == label[:3]]
            means = own.groupby("epoch")["value"].mean()
            assert list(line.get_xdata()) == [1, 2, 3, 4, 5, 6]
            assert list(line.get_ydata()) == pytest.approx(list(means))


@pytest.mark.parametrize("figure", [mimicking_matrix, gradient_agreement])
def test_figures_of_diagnostics_say_where_there_are_none_and_what_to_do(
    grids: dict[str, GridData], figure: ModuleType
) -> None:
    with pytest.raises(ValueError, match=r"dsl s0, dsl s1.* and 6 more.*diagnostics\.every=1 store="):
        figure.build(grids["methods-1"])
    grid = grids["measured"]
    runs = grid.runs.copy()
    lost = (runs[schema.METHOD] == "dhm") & (runs[schema.SEED] == 3)
    runs.loc[lost, [name for name in runs if str(name).startswith("diagnostics/")]] = np.nan
    partly = dataclasses.replace(grid, runs=runs, curves=grid.curves[~grid.curves["run_id"].isin(runs[lost]["run_id"])])
    with pytest.raises(ValueError, match=r"no diagnostics are recorded for dhm s3: "):
        figure.build(partly)
    made = figure.build(dataclasses.replace(partly, allow_incomplete=True))
    assert any("NOT COMPLETE: 1 cells without diagnostics" in text.get_text() for text in texts(made))


@pytest.mark.parametrize("seeds", [5, 3, 2, 1])
def test_all_figures_say_seeds_and_intervals_in_the_same_words(grids: dict[str, GridData], seeds: int) -> None:
    for name in set(catalogue.figure_names()) - {"network", "search"}:
        grid = grids[GRIDS.get(name, "branch_positions-1")]
        plan = dataclasses.replace(grid.plan, seeds=tuple(range(min(seeds, len(grid.plan.seeds)))))
        grid = dataclasses.replace(grid, plan=plan)
        words = {effects.interval_words(grid), effects.range_words(grid), effects.mean_words(grid)}
        told = " ".join(text.get_text().replace("\n", " ") for text in texts(catalogue.figure(name)(grid)))
        assert any(sentence in told for sentence in words), (name, words, told)
        assert ("too few to tell" in told) == (seeds < 3), name


def test_figures_of_diagnostics_need_side_branches(grids: dict[str, GridData]) -> None:
    grid = grids["methods-1"]
    plain = tuple(variant for variant in grid.plan.variants if variant.method == "plain")
    with pytest.raises(ValueError, match="no side branches"):
        mimicking_matrix.build(dataclasses.replace(grid, plan=dataclasses.replace(grid.plan, variants=plain)))


def test_an_epoch_that_only_some_seeds_measured_is_no_point_of_a_curve(grids: dict[str, GridData]) -> None:
    grid = grids["measured"]
    run_id = grid.of("dhm")["run_id"].iloc[0]
    lacking = grid.curves[(grid.curves["run_id"] == run_id) & (grid.curves["epoch"] % 2 == 0)].index
    fewer = dataclasses.replace(grid, curves=grid.curves.drop(lacking))
    whole, found = (agreement.curves(given, schema.GRADIENT_COSINE_CE) for given in (grid, fewer))
    for pair in PAIRS:
        assert list(found["dhm", pair].index) == [1, 3, 5] and list(found["dsl", pair].index) == list(range(6))
        pd.testing.assert_frame_equal(found["dhm", pair], whole["dhm", pair].loc[[1, 3, 5]])


def test_the_table_of_agreement_has_the_paired_differences(grids: dict[str, GridData]) -> None:
    grid = grids["measured"]
    curves = grid.curves[grid.curves["epoch"] == 5].set_index(["run_id", "metric"])["value"]
    runs = grid.runs.copy()
    for pair in PAIRS:
        name = f"{schema.GRADIENT_COSINE_CE}/{pair}"
        runs[name] = [curves.get((run_id, name), np.nan) for run_id in runs["run_id"]]
    plan = dataclasses.replace(
        grid.plan, variants=tuple(v for v in grid.plan.variants if v.method != "plain"), baseline="dsl"
    )
    frame = agreement_table.build(dataclasses.replace(grid, runs=runs, plan=plan)).frame.set_index(["variant", "heads"])
    by = runs.set_index([schema.VARIANT, schema.SEED])[f"{schema.AGREEMENT}/main.side1"]
    assert frame.loc[("dhm", "main and side1"), "agree_mean"] == pytest.approx((by["dhm"] - by["dsl"]).mean())
    assert frame.loc[("dsl", "main and side1"), "agree"] == pytest.approx(by["dsl"].mean())
    assert np.isnan(frame.loc[("dsl", "main and side1"), "agree_mean"]) and len(frame) == 6


def test_a_head_that_not_every_cell_was_evaluated_in_is_not_averaged(grids: dict[str, GridData]) -> None:
    grid = grids["methods-1"]
    name = f"{schema.FINAL_TOP1}/{schema.ENSEMBLE}"
    of_dhm = grid.runs[schema.VARIANT] == "dhm"
    all_of_them, some = (
        heads.build(
            dataclasses.replace(grid, runs=grid.runs.assign(**{name: grid.runs[schema.FINAL_TOP1].where(which)}))
        )
        for which in (of_dhm, of_dhm & (grid.runs[schema.SEED] > 0))
    )
    mean = grid.of("dhm")[schema.FINAL_TOP1].mean()
    assert all_of_them.frame.set_index("variant")[schema.ENSEMBLE]["dhm"] == pytest.approx(mean)
    assert some.frame[schema.ENSEMBLE].isna().all() and "not every cell of dhm" in some.caption
    assert "not every cell" not in all_of_them.caption


def test_only_the_curves_that_figures_draw_are_read(grids: dict[str, GridData]) -> None:
    runs = grids["measured"].runs.assign(**{f"{schema.GRADIENT_COSINE_VARIANCE}/{PAIRS[0]}": 0.1, schema.LR: np.nan})
    runs[f"{schema.GRADIENT_COSINE}/{PAIRS[0]}"] = 0.5
    assert reading.curve_names(runs, catalogue.metrics(["training_curves"])) == [schema.TEST_TOP1]
    assert reading.curve_names(runs, catalogue.metrics(["gradient_agreement"])) == [
        f"{schema.GRADIENT_COSINE}/{PAIRS[0]}"
    ]
    assert reading.curve_names(runs, catalogue.metrics(["methods", "pie"])) == []
    assert set(grids["methods-1"].curves["metric"]) == {schema.TEST_TOP1}
