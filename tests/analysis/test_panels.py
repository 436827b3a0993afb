"""Which lines of which panel a reader sees, for grids of many shapes."""

import itertools
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import style
from analysis.figures import levels, training_curves
from analysis.plan import Level, VariantRecord
from tests.analysis import made

Factors = Mapping[str, Sequence[Level]]


def lines(axes: Axes) -> dict[str, str]:
    """Colour by label."""
    return {str(line.get_label()): mpl.colors.to_hex(line.get_color()) for line in axes.get_lines()}


def panels(figure: Figure) -> dict[str, list[str]]:
    return {axes.get_title().replace("\n", " "): sorted(lines(axes)) for axes in figure.axes}


def test_a_learning_rate_by_method_has_a_panel_for_each_rate_and_a_line_for_each_method() -> None:
    figure = training_curves.build(made.grid({"method": ["plain", "dhm"], "optim.lr": [0.05, 0.1, 0.2]}))
    assert panels(figure) == {f"optim lr {rate}": ["dhm", "plain"] for rate in (0.05, 0.1, 0.2)}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["plain", "dhm"]


GRIDS: dict[str, Factors] = {
    "weights": {"method": ["dsl", "dhm"], "mimic.alpha": [0.1, 0.5, 1.0, 2.0], "mimic.temperature": [1.0, 3.0]},
    "pairs": {
        "method": ["dsl", "dhm"],
        "mimic.pairs": ["all", "sides_to_main", "main_to_sides", "deep_to_shallow", "shallow_to_deep"],
    },
    "noise": {"method": ["plain", "dsl", "dhm"], "data.label_noise": [0.0, 0.2, 0.4, 0.6]},
    "depths": {"arch": ["resnet8", "resnet14", "resnet20"], "method": ["plain", "dsl", "dhm"], "branch_depth": [1, 2]},
    "positions": {"method": ["plain", "dsl", "dhm"], "positions": ["1", "2", "1+2"]},
    "weights of one arm": {"method": ["plain", "dsl", "dhm"], "mimic.alpha": [0.5, 1.0]},
    "rates": {"optim.lr": [0.01, 0.02, 0.05, 0.1, 0.2, 0.4]},
    "rate and decay": {
        "method": ["plain", "dhm"],
        "optim.lr": [0.05, 0.1],
        "optim.weight_decay": [0.0001, 0.0005],
    },
    "many": {"method": ["plain", "dhm"], "optim.lr": [0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6]},
}
PANELS = {
    "weights": ["T = 1", "T = 3"],
    "pairs": [f"mimic pairs {str(level).replace('_', ' ')}" for level in GRIDS["pairs"]["mimic.pairs"]],
    "noise": [f"data label noise {level:g}" for level in (0, 0.2, 0.4, 0.6)],
    "depths": [f"{arch}, branch depth {depth}" for arch in GRIDS["depths"]["arch"] for depth in (1, 2)],
    "positions": ["branches at 1", "branches at 2", "branches at 1+2"],
    "weights of one arm": ["alpha = 0.5", "alpha = 1"],
    "rates": [f"optim lr {rate}" for rate in (0.02, 0.05, 0.1, 0.2, 0.4)],
}


@pytest.mark.parametrize("name", GRIDS)
def test_no_two_lines_of_a_panel_share_a_colour_and_each_is_named(name: str) -> None:
    grid = made.grid(GRIDS[name])
    figure = training_curves.build(grid)
    methods = len(GRIDS[name].get("method", [""]))
    for axes in figure.axes:
        found = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
        assert len(lines(axes)) == len(found) == len(set(lines(axes).values())) >= min(methods, 2)
    # as many lines as variants, where a baseline is counted once for each panel that it stands in
    ends = {round(float(line.get_ydata()[-1]), 9) for axes in figure.axes for line in axes.get_lines()}
    assert ends == {round(sum(grid.by_seed(variant).values()) / len(grid.plan.seeds), 9) for variant in grid.plan.names}
    if name in PANELS:
        assert list(panels(figure)) == PANELS[name]
    columns = {round(axes.get_position().x0, 2) for axes in figure.axes}
    assert len(columns) <= 4 and figure.get_figwidth() in (style.COLUMN, style.DOUBLE)


def test_the_baseline_of_all_stands_in_each_panel_by_its_own_name() -> None:
    factors: Factors = {"method": ["dsl", "dhm"], "fork_probability": [0.0, 0.5, 1.0]}
    point = {"method": None, "fork_probability": 0.0}
    plain = VariantRecord(name="p 0", recipe_id="0", role="baseline", method="plain", arch="resnet8", factors=point)
    arms = [
        VariantRecord(
            name=f"{method} p {p:g}",
            recipe_id=f"{method} {p}",
            role="arm",
            method=method,
            arch="resnet8",
            factors={"method": method, "fork_probability": p},
            baseline="p 0",
        )
        for method in ("dsl", "dhm")
        for p in (0.5, 1.0)
    ]
    figure = training_curves.build(made.grid(factors, variants=[plain, *arms]))
    own = ["dhm", "dsl", "plain (fork probability 0)"]
    assert panels(figure) == {"fork probability 0.5": own, "fork probability 1": own}


@pytest.mark.parametrize(
    ("span", "scale"),
    [((14, 80), "log"), ((2, 90), "log"), ((0.3, 90), "log"), ((30, 45), "linear"), ((0, 60), "linear")],
)
def test_an_axis_of_errors_has_labels_enough_to_read_values(span: tuple[float, float], scale: str) -> None:
    low, high = span
    grid = made.grid({"method": ["plain", "dhm"]}, span=(max(low, 1e-9), high))
    if low == 0:
        curves = grid.curves
        curves["value"] = curves["value"].where(curves["epoch"] < 5, 0.0).clip(lower=0)
    figure = training_curves.build(grid)
    figure.canvas.draw()
    axes = figure.axes[0]
    bottom, top = axes.get_ylim()
    shown = [tick for tick in axes.yaxis.get_majorticklocs() if bottom <= tick <= top]
    assert axes.get_yscale() == scale and 4 <= len(shown) <= 9
    assert ("logarithmic" in figure.legends[0].get_title().get_text()) == (scale == "log")
    boxes = sorted(
        (label.get_window_extent() for label in axes.get_yticklabels() if bottom <= label.get_position()[1] <= top),
        key=lambda box: float(box.y0),
    )
    assert all(lower.y1 <= upper.y0 for lower, upper in itertools.pairwise(boxes))


def test_levels_without_an_order_are_not_joined_by_a_line() -> None:
    unordered = levels.build(made.grid(GRIDS["pairs"])).axes[0]
    (dhm,) = [line for line in unordered.get_lines() if len(line.get_xdata()) == 5]
    assert dhm.get_linestyle() == "None"
    ordered = levels.build(made.grid(GRIDS["noise"])).axes[0]
    joined = [line for line in ordered.get_lines() if len(line.get_xdata()) == 4]
    assert len(joined) == 3 and all(line.get_linestyle() != "None" for line in joined)


def test_backbones_keep_their_names() -> None:
    figure = levels.build(made.grid({"arch": ["resnet8", "wrn_10_1"], "method": ["plain", "dhm"]}))
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["resnet8", "wrn_10_1"]


def test_levels_has_room_for_one_factor() -> None:
    with pytest.raises(ValueError, match=r"optim\.lr, optim\.weight_decay vary: name 'training_curves'"):
        levels.build(made.grid(GRIDS["rate and decay"]))


def test_a_figure_has_no_more_panels_than_a_page_and_says_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_curves, "_MOST", 3)
    figure = training_curves.build(made.grid({"method": ["plain", "dhm"], "optim.lr": [0.1, 0.2, 0.3, 0.4, 0.5]}))
    assert [axes.get_title() for axes in figure.axes] == [f"optim lr {rate:g}" for rate in (0.1, 0.2, 0.3)]
    assert "the first 3 of 5 panels" in figure.legends[0].get_title().get_text().replace("\n", " ")
