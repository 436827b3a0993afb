"""Error over the weight of mimicking, a line for each temperature, beside the baseline."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from analysis import effects, style, wording
from analysis.data import GridData, records
from analysis.plan import Level

ALPHA = "mimic.alpha"


def check(factors: Mapping[str, Sequence[Level]]) -> None:
    """ValueError where the factors are without alpha."""
    if all(level is None for level in factors.get(ALPHA, ())):
        raise ValueError(f"figure 'weights' needs the factor {ALPHA!r}; there are {list(factors)}")


def build(grid: GridData) -> Figure:
    """Draw means over alpha with 95 % intervals, or the runs where they are too few for one.

    ValueError where the plan has no alpha.
    """
    plan = grid.plan
    check(plan.factors)
    alphas = sorted(float(str(level)) for level in plan.levels(ALPHA))
    rows = {row["variant"]: row for row in records(effects.effects(grid))}
    lines: dict[str, list[tuple[float, str]]] = {}
    for variant in plan.variants:
        alpha = variant.factors.get(ALPHA)
        if alpha is not None:
            lines.setdefault(_label(grid, variant.name), []).append((float(alpha), variant.name))
    # Evenly spaced levels stand for a logarithm that also has room for zero.
    place = {alpha: float(index) for index, alpha in enumerate(alphas)}
    with style.look():
        figure = style.figure(style.COLUMN, 2.9)
        axes = figure.add_subplot()
        base = rows[plan.baseline]
        method = plan.variant(plan.baseline).method
        axes.axhspan(base["mean_low"], base["mean_high"], color=style.COLOURS[method], alpha=0.15, linewidth=0)
        axes.axhline(
            base["mean"],
            color=style.COLOURS[method],
            linestyle=style.LINES[method],
            linewidth=1.1,
            label=plan.baseline,
        )
        if math.isnan(base["mean_low"]):
            style.runs(axes, len(alphas) - 0.5, grid.by_seed(plan.baseline).values(), style.COLOURS[method])
        colours = style.shades(len(lines))
        for index, (label, points) in enumerate(lines.items()):
            # Side by side, or intervals would hide one another.
            shift = 0.12 * (index - (len(lines) - 1) / 2)
            points.sort()
            x = [place[alpha] + shift for alpha, _ in points]
            means = [rows[name]["mean"] for _, name in points]
            reach = [
                [rows[name]["mean"] - rows[name]["mean_low"] for _, name in points],
                [rows[name]["mean_high"] - rows[name]["mean"] for _, name in points],
            ]
            axes.errorbar(
                x,
                means,
                yerr=reach,
                color=colours[index],
                marker=style.marker(index),
                linestyle=style.dash(index),
                elinewidth=0.8,
                label=label,
            )
            for alpha, name in points:
                if math.isnan(rows[name]["mean_low"]):
                    style.runs(axes, place[alpha] + shift, grid.by_seed(name).values(), colours[index])
        axes.set_xticks(list(place.values()), [f"{alpha:g}" for alpha in alphas])
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("weight of mimicking, alpha (levels evenly spaced)")
        axes.set_ylabel(style.ERROR)
        style.percent(axes)
        detail = f"{effects.interval_words(grid)}\npaired verdicts are in the table"
        title = f"{plan.title} on {plan.benchmark}"
        style.finish(figure, title, detail, warning=grid.warning, changes=plan.overrides)
    return figure


def _label(grid: GridData, name: str) -> str:
    """Name a line by what the grid varies beside alpha."""
    variant = grid.plan.variant(name)
    others = [name for name in variant.factors if name != ALPHA and len(grid.plan.levels(name)) > 1]
    words = [wording.say(name, variant.factors[name]) for name in others]
    return ", ".join(words) or variant.method
