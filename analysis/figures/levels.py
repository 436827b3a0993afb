"""Error over the levels of a factor, a line for each method; a panel for each backbone where that varies as well."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import effects, style, wording
from analysis.data import GridData, records
from analysis.plan import Level, Plan, VariantRecord

METHOD, BACKBONE = "method", "arch"
LETTER, LINE = 4.4, 9.0  # points: how wide a letter of a level is, how far apart two turned ones must stand
AROUND = 40.0  # points of a panel's width that are not its axis
MARGIN = 0.12  # of the axis, on each side
AXES = {
    "arch": "backbone",
    "branch_depth": "depth of branches (×)",
    "term": "further term of the loss",
    "fork_probability": "fork probability",
    "mimic.pairs": "way that knowledge goes",
    "data.label_noise": "share of wrong training labels",
    "data.train_size": "training images (0: all)",
}


def check(factors: Mapping[str, Sequence[Level]]) -> None:
    """ValueError where the levels of some factors have no room in the figure."""
    _factor(factors)


def _factor(factors: Mapping[str, Sequence[Level]]) -> str:
    """Return the factor along which the figure goes: neither the method nor, unless it is alone, the backbone."""
    varied = [
        name for name, levels in factors.items() if name != METHOD and sum(level is not None for level in levels) > 1
    ]
    if not varied:
        raise ValueError(f"figure 'levels' needs a factor besides {METHOD!r}, with levels; there are {list(factors)}")
    others = [name for name in varied if name != BACKBONE]
    if len(others) > 1:
        raise ValueError(
            f"figure 'levels' has room for one factor besides {METHOD!r} and {BACKBONE!r}, and {', '.join(others)} "
            "vary: name 'training_curves' in its place, or make a grid of each"
        )
    return others[0] if others else BACKBONE


def build(grid: GridData) -> Figure:
    """Draw means with 95 % intervals, or the runs where they are too few for one; the levels evenly spaced.

    The factor is the one that is neither the method nor the backbone; without one it is the backbone. ValueError
    where the plan varies neither, or more than one.
    """
    plan = grid.plan
    factor = _factor(plan.factors)
    rows = {row["variant"]: row for row in records(effects.effects(grid))}
    archs = list(dict.fromkeys(variant.arch for variant in plan.variants))
    panels = archs if factor != BACKBONE else [""]
    with style.look():
        columns = min(3, len(panels))
        lines = -(-len(panels) // columns)
        figure = style.figure(style.COLUMN if columns == 1 else style.DOUBLE, 1.0 + 1.8 * lines)
        for index, panel in enumerate(panels):
            shared = figure.axes[0] if index else None
            axes = figure.add_subplot(lines, columns, index + 1, sharex=shared, sharey=shared)
            members = [variant for variant in plan.variants if panel in ("", variant.arch)]
            _panel(axes, grid, members, rows, factor)
            _name_levels(axes, plan, factor, 72 * figure.get_figwidth() / columns - AROUND)
            axes.set_xlabel(AXES.get(factor, factor))
            if index % columns == 0:
                axes.set_ylabel(style.ERROR)
            else:
                axes.tick_params(left=False, labelleft=False)
            if len(panels) > 1:
                axes.set_title(panel)
        style.percent(figure.axes[0])
        detail = f"{effects.interval_words(grid)}\npaired verdicts are in the table"
        title = f"{plan.title} on {plan.benchmark}"
        style.finish(figure, title, detail, warning=grid.warning, changes=plan.overrides)
    return figure


def _panel(
    axes: Axes, grid: GridData, members: list[VariantRecord], rows: dict[str, dict[str, Any]], factor: str
) -> None:
    levels = grid.plan.levels(factor)
    # A line between levels without an order would show a trend that there is not.
    ordered = all(isinstance(level, int | float) for level in levels)
    for variant in members:
        if variant.factors.get(factor) is None:  # where depth does not apply, a band over all of it
            row, colour = rows[variant.name], style.COLOURS[variant.method]
            axes.axhspan(row["mean_low"], row["mean_high"], color=colour, alpha=0.15, linewidth=0)
            axes.axhline(
                row["mean"], color=colour, linestyle=style.LINES[variant.method], linewidth=1.1, label=variant.method
            )
            if math.isnan(row["mean_low"]):
                style.runs(axes, len(levels) - 0.5, grid.by_seed(variant.name).values(), colour)
    methods = [m for m in style.COLOURS if any(v.method == m and v.factors.get(factor) is not None for v in members)]
    for index, method in enumerate(methods):
        points = sorted(
            (levels.index(variant.factors[factor]), variant.name)
            for variant in members
            if variant.method == method and variant.factors.get(factor) is not None
        )
        shift = 0.1 * (index - (len(methods) - 1) / 2)
        found = [rows[name] for _, name in points]
        axes.errorbar(
            [place + shift for place, _ in points],
            [row["mean"] for row in found],
            yerr=[[row["mean"] - row["mean_low"] for row in found], [row["mean_high"] - row["mean"] for row in found]],
            color=style.COLOURS[method],
            marker=style.MARKERS[method],
            linestyle=style.LINES[method] if ordered else "none",
            elinewidth=0.9,
            label=method,
        )
        for place, name in points:
            if math.isnan(rows[name]["mean_low"]):
                style.runs(axes, place + shift, grid.by_seed(name).values(), style.COLOURS[method])
    axes.grid(visible=False, axis="x")


def _name_levels(axes: Axes, plan: Plan, factor: str, width: float) -> None:
    """Write the levels under an axis of so many points: side by side where they fit, turned where they do not, and only
    some of them where even that is too much."""
    names = [wording.level(level) for level in plan.levels(factor)]
    if factor != BACKBONE:
        names = [name.replace("_", " ") for name in names]
    axes.margins(x=MARGIN)
    room = width / (max(1, len(names) - 1) * (1 + 2 * MARGIN))
    if LETTER * (max(map(len, names)) + 1) <= room:
        axes.set_xticks(range(len(names)), names)
    elif room > 2 * LINE:
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    else:
        every = math.ceil(LINE / room)
        axes.set_xticks(range(0, len(names), every), names[::every], rotation=90)
