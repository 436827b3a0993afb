"""How the methods compare: every seed's error, joined across methods, beside the mean and its interval."""

import textwrap
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import effects, style
from analysis.data import GridData, records

_SEED: dict[str, Any] = {"color": "#bbbbbb", "marker": "o", "markersize": 2.2, "linewidth": 0.7}
_LEVEL = 8  # labels that stand upright side by side


def build(grid: GridData) -> Figure:
    """Draw one column a variant; a faint line joins the runs of one seed, as comparisons are paired by it."""
    plan = grid.plan
    rows = records(effects.effects(grid))
    by_seed = [grid.by_seed(row["variant"]) for row in rows]
    with style.look():
        figure = style.figure(style.COLUMN if len(rows) <= 4 else style.DOUBLE, 2.9)
        axes = figure.add_subplot()
        for seed in plan.seeds:
            joined = [(x, errors[seed]) for x, errors in enumerate(by_seed) if seed in errors]
            axes.plot([x for x, _ in joined], [error for _, error in joined], zorder=1, **_SEED)
        for x, row in enumerate(rows):
            method = plan.variant(row["variant"]).method
            colour = style.COLOURS[method]
            axes.plot([x, x], [row["mean_low"], row["mean_high"]], color=colour, linewidth=1.8, zorder=2)
            axes.plot([x], [row["mean"]], style.MARKERS[method], color=colour, ms=7, zorder=3)
        axes.margins(x=0.5 / len(rows))
        labels = [f"{row['variant']}\n{textwrap.fill(row['verdict'] or 'baseline', 14)}" for row in rows]
        if len(rows) > _LEVEL:
            labels = [row["variant"] for row in rows]
            axes.tick_params(axis="x", rotation=90)
        axes.set_xticks(range(len(rows)), labels)
        axes.grid(visible=False, axis="x")
        axes.set_ylabel(style.ERROR)
        style.percent(axes)
        style.finish(
            figure,
            f"{plan.title} on {plan.benchmark}",
            f"{effects.interval_words(grid)}\nverdicts are paired by seed",
            warning=grid.warning,
            changes=plan.overrides,
            handles=[Line2D([], [], label="one seed", **_SEED)],
        )
    return figure
