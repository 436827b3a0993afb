"""Every comparison of a grid in one plot: paired differences with their intervals, the best first."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import effects, stats, style
from analysis.data import GridData, records

ROOM = 60  # comparisons on a page
_LONG = 26  # letters of a name beside which a column has no room
# Colour and marker both tell the verdict; the two that were shown are filled.
_LOOK: dict[str, dict[str, Any]] = {
    stats.BETTER: {"color": "#0072b2", "marker": "o", "mfc": "#0072b2"},
    stats.WORSE: {"color": "#d55e00", "marker": "s", "mfc": "#d55e00"},
    stats.NO_DIFFERENCE: {"color": style.FAINT, "marker": "D", "mfc": "white"},
    stats.OPEN: {"color": "#b8860b", "marker": "v", "mfc": "white"},
    stats.TOO_FEW: {"color": "#9a9a9a", "marker": "x", "mfc": "none"},
}


def build(grid: GridData) -> Figure:
    """Draw a line an arm, sorted by its difference to its own baseline. ValueError where nothing can be compared.

    Of more than ROOM arms those with the largest differences are drawn, and the figure says so.
    """
    plan = grid.plan
    rows = [row for row in records(effects.effects(grid)) if row["against"] is not None and row["pairs"]]
    if not rows:
        raise ValueError(f"figure 'effects': {plan.experiment} has no arm with a seed in common with its baseline")
    shown = sorted(sorted(rows, key=lambda row: -abs(row["difference"]))[:ROOM], key=lambda row: row["difference"])
    several = len({row["against"] for row in shown}) > 1
    verdicts = [verdict for verdict in _LOOK if any(row["verdict"] == verdict for row in shown)]
    detail = f"{effects.interval_words(grid)}\npaired by seed; verdicts by Holm's correction"
    if len(shown) < len(rows):
        detail += f"\nthe {len(shown)} largest of {len(rows)} differences"
    with style.look():
        narrow = max(len(row["variant"]) for row in shown) <= _LONG
        figure = style.figure(style.COLUMN if narrow else style.DOUBLE, 1.6 + 0.19 * max(3, len(shown)))
        axes = figure.add_subplot()
        axes.axvline(0, color=style.COLOURS["plain"], linestyle=style.LINES["plain"], linewidth=1)
        for y, row in enumerate(shown):
            _draw(axes, y, row)
        axes.set_yticks(range(len(shown)), [row["variant"] for row in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        against = "the baseline of each" if several else shown[0]["against"]
        axes.set_xlabel(f"difference to {against}\nin top-1 error, {style.POINTS}\n(left is better)")
        style.finish(
            figure,
            f"{plan.title} on {plan.benchmark}: effects",
            detail,
            warning=grid.warning,
            changes=plan.overrides,
            handles=[Line2D([], [], linestyle="none", markersize=5, label=name, **_LOOK[name]) for name in verdicts],
        )
    return figure


def _draw(axes: Axes, y: int, row: dict[str, Any]) -> None:
    look = _LOOK[row["verdict"]]
    axes.plot([row["low"], row["high"]], [y, y], color=look["color"], linewidth=1.5)
    axes.plot([row["difference"]], [y], linestyle="none", markersize=5, zorder=3, **look)
