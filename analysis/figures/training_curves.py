"""Test error over the epochs: the mean of each variant, with the range over its seeds."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from analysis import effects, schema, style, wording
from analysis.data import GridData
from analysis.plan import Level, Plan, VariantRecord

METRICS = (schema.TEST_TOP1,)
_ROOM = 4  # arms of one method that one panel can hold beside a baseline
_FEW, _MANY = 3, 4  # panels side by side, and where there are more than two rows of them
_MOST = 24  # panels of a figure
_LABELS = 4  # that an axis needs to be read
_DIGITS = ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 5, 7))  # of the labels in a decade

_Key: TypeAlias = tuple[Level, ...]  # a level for each factor that parts the panels; None stands for any


@dataclass(frozen=True)
class _Panels:
    """Which factors part the panels, and the levels of each panel, in the grid's order."""

    factors: tuple[str, ...]
    keys: tuple[_Key, ...]

    @property
    def columns(self) -> int:
        across = len({key[-1] for key in self.keys}) if len(self.factors) > 1 else 0
        if 2 <= across <= _MANY:
            return across  # one row for each level of the factors before
        if len(self.keys) > 2 * _FEW:
            return _MANY
        return 2 if len(self.keys) == 4 else min(_FEW, len(self.keys))


def build(grid: GridData) -> Figure:
    """Draw a panel for each level of what the grid varies beside the method; in it a line for each method.

    Arms of one method that several factors part share panels, a colour for each level.
    """
    plan = grid.plan
    every = _panels(plan)
    panels = replace(every, keys=every.keys[:_MOST])
    columns = panels.columns
    rows = -(-len(panels.keys) // columns)
    curves = _curves(grid)
    with style.look():
        height = 1.3 + (1.5 if len(panels.keys) <= 2 * _FEW else 1.25) * rows
        figure = style.figure(style.COLUMN if columns == 1 else style.DOUBLE, height)
        for index, key in enumerate(panels.keys):
            shared = figure.axes[0] if index else None
            axes = figure.add_subplot(rows, columns, index + 1, sharex=shared, sharey=shared)
            members = _members(plan, panels.factors, key)
            for variant in members:
                if variant.name in curves:
                    label = _label(plan, panels.factors, key, variant)
                    _draw(axes, curves[variant.name], label, _look(members, variant))
            words = ", ".join(
                wording.say(*told) for told in zip(panels.factors, key, strict=True) if told[1] is not None
            )
            # A bold letter of 8 points is about 5.5 points wide.
            axes.set_title(textwrap.fill(words, int(figure.get_figwidth() * 72 * 0.85 / columns / 5.5)))
            if index % columns == 0:
                axes.set_ylabel(style.ERROR)
            if index // columns == rows - 1:
                axes.set_xlabel("epoch")
            axes.tick_params(left=index % columns == 0, labelleft=index % columns == 0)
            axes.tick_params(labelbottom=index + columns >= len(panels.keys))
        scale = "logarithmic scale" if _scale(figure.axes, curves) else ""
        left = f"the first {_MOST} of {len(every.keys)} panels" if len(every.keys) > _MOST else ""
        detail = "; ".join(filter(None, (effects.range_words(grid), scale, left)))
        style.finish(
            figure,
            f"{plan.title} on {plan.benchmark}: training",
            detail,
            warning=grid.warning,
            changes=plan.overrides,
        )
    return figure


def _curves(grid: GridData) -> dict[str, pd.DataFrame]:
    """Return mean, least and largest error by epoch, over the usable cells of each variant."""
    names = grid.cells.set_index("run_id")[schema.VARIANT]
    points = grid.curves[grid.curves["metric"] == schema.TEST_TOP1]
    points = points[points["run_id"].isin(names.index)]
    groups = points.groupby(points["run_id"].map(names))
    return {str(name): own.groupby("epoch")["value"].agg(["mean", "min", "max"]) for name, own in groups}


def _panels(plan: Plan) -> _Panels:
    """Part the variants so that lines of a panel differ by their method, or by one factor where all arms share it."""
    arms = [variant for variant in plan.ordered if plan.is_arm(variant.name)]
    against = {plan.baseline_of(arm.name) for arm in arms} - {arm.name for arm in arms}
    # A baseline stands beside its arms; one that has none stands for itself.
    led = arms + [variant for variant in plan.ordered if not plan.is_arm(variant.name) and variant.name not in against]
    rest = tuple(name for name in _rest(plan) if len({variant.factors.get(name) for variant in plan.variants}) > 1)
    if len({arm.method for arm in arms}) == 1 and len(against) == 1:
        told_apart = arms[0].method not in {plan.variant(name).method for name in against}
        if len(rest) > 1 or not told_apart:
            rest = _fewest(plan, rest, arms)
    keys = list(dict.fromkeys(tuple(variant.factors.get(name) for name in rest) for variant in led))
    # A variant to which a factor does not apply stands in every panel of that factor, not in one of its own.
    kept = [key for key in keys if not any(other != key and _covers(key, other) for other in keys)]
    return _Panels(factors=rest, keys=tuple(sorted(kept, key=lambda key: _order(plan, rest, key))))


def _rest(plan: Plan) -> list[str]:
    return [name for name in plan.factors if name != schema.METHOD and len(plan.levels(name)) > 1]


def _fewest(plan: Plan, rest: tuple[str, ...], arms: Sequence[VariantRecord]) -> tuple[str, ...]:
    """Return the factor whose panels are fewest with at most _ROOM arms each; none where one panel has room."""
    if len(arms) <= _ROOM:
        return ()
    most = {}
    for name in rest:
        levels = [arm.factors.get(name) for arm in arms]
        if None not in levels and len(set(levels)) > 1:
            most[name] = max(levels.count(level) for level in levels)
    best = min(most, key=lambda name: (max(most[name], _ROOM), len(plan.levels(name))), default=None)
    return () if best is None else (best,)


def _covers(key: _Key, other: _Key) -> bool:
    return all(own is None or own == level for own, level in zip(key, other, strict=True))


def _order(plan: Plan, factors: Sequence[str], key: Sequence[Level]) -> list[int]:
    pairs = zip(factors, key, strict=True)
    return [-1 if level is None else plan.levels(name).index(level) for name, level in pairs]


def _members(plan: Plan, factors: tuple[str, ...], key: _Key) -> list[VariantRecord]:
    """Return what a panel shows: the variants of its levels, and what they are compared with."""
    inside = [v for v in plan.ordered if _covers(tuple(v.factors.get(name) for name in factors), key)]
    arms = [variant for variant in inside if plan.is_arm(variant.name)]
    needed = {plan.baseline_of(arm.name) for arm in arms} | {arm.name for arm in arms}
    shown = [v for v in plan.ordered if v.name in needed] if arms else inside
    methods, rest = list(style.COLOURS), _rest(plan)
    return sorted(shown, key=lambda v: (methods.index(v.method), *_order(plan, rest, [v.factors[n] for n in rest])))


def _label(plan: Plan, factors: tuple[str, ...], key: _Key, variant: VariantRecord) -> str:
    """Name a line by its method, and by its levels as far as the panel's title does not say them."""
    named = dict(zip(factors, key, strict=True))
    own = {name: variant.factors.get(name) for name in _rest(plan)}
    words = [wording.say(name, level) for name, level in own.items() if level is not None and level != named.get(name)]
    several = len({other.method for other in plan.variants}) > 1
    if words and not several:
        return ", ".join(words)
    return f"{variant.method} ({', '.join(words)})" if words else variant.method


def _look(members: Sequence[VariantRecord], variant: VariantRecord) -> dict[str, Any]:
    """Colour and dash by method; shades where several lines of a panel share theirs."""
    same = [other for other in members if other.method == variant.method]
    if len(same) == 1:
        return {"color": style.COLOURS[variant.method], "linestyle": style.LINES[variant.method]}
    place = same.index(variant)
    return {"color": style.shades(len(same))[place], "linestyle": style.dash(place)}


def _draw(axes: Axes, own: pd.DataFrame, label: str, look: dict[str, Any]) -> None:
    epochs = own.index.to_numpy() + 1
    axes.fill_between(epochs, own["min"], own["max"], color=look["color"], alpha=0.15, linewidth=0)
    axes.plot(epochs, own["mean"], label=label, **look)


def _scale(panels: Sequence[Axes], curves: dict[str, pd.DataFrame]) -> bool:
    """Scale and label the panels, which share their axes.

    Return whether in logarithms, as a range is that is wide enough for a few round labels.
    """
    first = panels[0]
    low = min((float(own["min"].min()) for own in curves.values()), default=0.0)
    bottom, top = (low, max(float(own["max"].max()) for own in curves.values())) if low > 0 else (0.0, 0.0)
    for digits in _DIGITS:
        ticks = [digit * 10.0**power for power in range(-4, 3) for digit in digits]
        logarithmic = sum(bottom <= tick <= top for tick in ticks) >= _LABELS
        if logarithmic:
            first.set_yscale("log")
            # Each panel makes and places all of its ticks at each drawing, also those that it does not show.
            first.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if bottom / 2 < tick < 2 * top]))
            first.yaxis.set_minor_locator(NullLocator())
            break
    else:
        style.percent(first)
        first.yaxis.set_major_locator(MaxNLocator(nbins=6, min_n_ticks=_LABELS, steps=[1, 2, 2.5, 5, 10]))
    first.yaxis.set_major_formatter("{x:g}")
    first.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    return logarithmic
