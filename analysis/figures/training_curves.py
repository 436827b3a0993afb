"""Test error over the epochs: the mean of each variant, with the range over its seeds."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from analysis import schema, style
from analysis.data import GridData
from analysis.plan import Level, Plan, VariantRecord

METRICS = (schema.TEST_TOP1,)
_ROOM = 4  # lines that one panel can hold beside a baseline
_TICKS = [value * scale for scale in (0.01, 0.1, 1, 10) for value in (1, 2, 3, 5, 7)]


def build(grid: GridData) -> Figure:
    """Draw one panel, or one for each level of the factor that parts the variants best; a baseline in each."""
    plan = grid.plan
    arms = [variant for variant in plan.ordered if plan.is_arm(variant.name)]
    factor = _panel_factor(plan, arms)
    levels: tuple[Level, ...] = plan.levels(factor) if factor else (None,)
    columns = min(3, len(levels))
    rows = -(-len(levels) // columns)
    curves = _curves(grid)
    with style.look():
        figure = style.figure(style.COLUMN if columns == 1 else style.DOUBLE, 1.3 + 1.5 * max(rows, 1.0))
        for index, level in enumerate(levels):
            shared = figure.axes[0] if index else None
            axes = figure.add_subplot(rows, columns, index + 1, sharex=shared, sharey=shared)
            shown = [arm for arm in arms if factor is None or arm.factors.get(factor) == level]
            baselines = list(dict.fromkeys(plan.baseline_of(arm.name) for arm in shown)) or [plan.baseline]
            for place, name in enumerate(baselines):
                dash = style.LINES["plain"] if len(baselines) == 1 else style.dash(place)
                method = plan.variant(name).method
                look = {"color": style.COLOURS[method], "linestyle": dash}
                # Where each panel has its own, its title says which it is.
                _draw(axes, curves, name, method if factor == schema.ARCH and len(baselines) == 1 else name, look)
            for arm in shown:
                _draw(axes, curves, arm.name, *_series(plan, arms, arm, factor))
            if factor:
                axes.set_title(style.say(factor, level))
            _scale(axes, first=index % columns == 0, last=index + columns >= len(levels))
        detail = f"mean and range of {len(plan.seeds)} seeds; logarithmic scale"
        style.finish(figure, f"{plan.title} on {plan.benchmark}: training", detail, warning=grid.warning)
    return figure


def _curves(grid: GridData) -> pd.DataFrame:
    """Return mean, least and largest error by (variant, epoch), over the usable cells."""
    names = grid.cells.set_index("run_id")[schema.VARIANT]
    points = grid.curves[grid.curves["metric"] == schema.TEST_TOP1]
    points = points[points["run_id"].isin(names.index)]
    points = points.assign(variant=points["run_id"].map(names))
    return points.groupby(["variant", "epoch"])["value"].agg(["mean", "min", "max"])


def _panel_factor(plan: Plan, arms: list[VariantRecord]) -> str | None:
    """Return the factor whose panels are fewest with at most _ROOM lines each; None where one panel has room."""
    if len(arms) <= _ROOM:
        return None
    most = {}
    for name in plan.factors:
        levels = [arm.factors.get(name) for arm in arms]
        # Methods share a panel, as they are what one compares.
        if name != schema.METHOD and None not in levels and len(set(levels)) > 1:
            most[name] = max(levels.count(level) for level in levels)
    return min(most, key=lambda name: (max(most[name], _ROOM), len(plan.levels(name))), default=None)


def _series(plan: Plan, arms: list[VariantRecord], arm: VariantRecord, panel: str | None) -> tuple[str, dict[str, Any]]:
    """Return the label and the look of an arm's line: colour by method where methods vary, else by its level."""
    several = len({other.method for other in arms}) > 1
    rest = [name for name in plan.factors if name not in (panel, schema.METHOD) and len(plan.levels(name)) > 1]
    kinds = list(dict.fromkeys(tuple(other.factors.get(name) for name in rest) for other in arms))
    own = tuple(arm.factors.get(name) for name in rest)
    place = kinds.index(own)
    words = [style.say(name, level) for name, level in zip(rest, own, strict=True)]
    if several:
        dash = style.LINES[arm.method] if len(kinds) == 1 else style.dash(place)
        look = {"color": style.COLOURS[arm.method], "linestyle": dash}
        return ", ".join([arm.method, *words]), look
    return ", ".join(words) or arm.name, {"color": style.shades(len(kinds))[place], "linestyle": style.dash(place)}


def _draw(axes: Axes, curves: pd.DataFrame, name: str, label: str, look: dict[str, Any]) -> None:
    if name not in curves.index.get_level_values(0):
        return
    own = curves.loc[name]
    epochs = own.index.to_numpy() + 1
    axes.fill_between(epochs, own["min"], own["max"], color=look["color"], alpha=0.15, linewidth=0)
    axes.plot(epochs, own["mean"], label=label, **look)


def _scale(axes: Axes, *, first: bool, last: bool) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator(_TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.tick_params(left=first, labelleft=first, labelbottom=last)
    if first:
        axes.set_ylabel(style.ERROR)
    if last:
        axes.set_xlabel("epoch")
