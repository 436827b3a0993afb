"""What a side branch does at each position: paired differences to the baseline, by position and method."""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import effects, stats, style
from analysis.data import GridData, records
from analysis.plan import VariantRecord

FACTOR = "positions"


def build(grid: GridData) -> Figure:
    """Draw each arm's difference with its 95 % interval where there is one, its seeds as dots; grouped by position."""
    plan = grid.plan
    found = {row["variant"]: row for row in records(effects.effects(grid)) if row["against"] is not None}
    arms = [variant for variant in plan.variants if variant.name in found]
    groups = _groups(arms, [str(level) for level in plan.levels(FACTOR)])
    with style.look():
        figure = style.figure(style.COLUMN, 1.25 + 0.24 * len(arms) + 0.1 * len(groups))
        axes = figure.add_subplot()
        axes.axvline(0, color=style.COLOURS["plain"], linestyle=style.LINES["plain"], linewidth=1)
        y = 0.0
        places, ticks = [], []
        for index, (label, members) in enumerate(groups.items()):
            top = y - 0.5
            for variant in members:
                row, colour = found[variant.name], style.COLOURS[variant.method]
                seeds = list(effects.differences(grid, variant.name).values())
                style.dots(axes, seeds, [y + 0.22] * len(seeds), colour)
                axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=1.6)
                told = row["verdict"] in (stats.BETTER, stats.WORSE)
                face = colour if told else "white"
                axes.plot([row["difference"]], [y], style.MARKERS[variant.method], color=colour, mfc=face, ms=5.5)
                y += 1
            if index % 2 == 0:
                axes.axhspan(top, y - 0.5, color="#f4f4f4", zorder=0)
            places.append((top + y - 0.5) / 2)
            ticks.append(label)
        axes.set_yticks(places, ticks)
        axes.set_ylim(y - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_ylabel("position of the branches")
        axes.set_xlabel(f"difference to {plan.baseline} in top-1 error\n({style.POINTS}; left is better)")
        detail = f"{effects.interval_words(grid)}\npaired by seed"
        if any(row["verdict"] != stats.TOO_FEW for row in found.values()):
            detail += "; open: no difference shown (Holm)"
        shown = [method for method in style.COLOURS if any(arm.method == method for arm in arms)]
        style.finish(
            figure,
            f"{plan.title} on {plan.benchmark}",
            detail,
            warning=grid.warning,
            changes=plan.overrides,
            handles=[
                *(_key(style.COLOURS[m], style.MARKERS[m], m, 5.5) for m in shown),
                _key(style.FAINT, "o", "one seed", 2.6),
            ],
        )
    return figure


def _groups(arms: list[VariantRecord], levels: list[str]) -> dict[str, list[VariantRecord]]:
    """Group arms by position, in the factor's order; without that factor each arm stands for itself."""
    groups: dict[str, list[VariantRecord]] = {level: [] for level in levels}
    for arm in arms:
        position = arm.factors.get(FACTOR)
        groups.setdefault(arm.name if position is None else str(position), []).append(arm)
    return {label: members for label, members in groups.items() if members}


def _key(colour: str, marker: str, label: str, size: float) -> Line2D:
    return Line2D([], [], color=colour, marker=marker, linestyle="none", label=label, markersize=size)
