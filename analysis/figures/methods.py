"""How the methods compare: every seed's error, joined across methods, beside the mean and its interval."""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import effects, style
from analysis.data import GridData, records


def build(grid: GridData) -> Figure:
    """Draw one column a variant; a faint line joins the runs of one seed, as comparisons are paired by it."""
    plan = grid.plan
    rows = records(effects.effects(grid))
    by_seed = [grid.by_seed(row["variant"]) for row in rows]
    with style.look():
        figure = style.figure(max(style.COLUMN, 0.55 * len(rows) + 0.6), 2.7)
        axes = figure.add_subplot()
        for seed in plan.seeds:
            joined = [(x, errors[seed]) for x, errors in enumerate(by_seed) if seed in errors]
            axes.plot(*zip(*joined, strict=True), "-o", color="#bbbbbb", linewidth=0.7, ms=2.2, zorder=1)
        for x, row in enumerate(rows):
            method = plan.variant(row["variant"]).method
            colour = style.COLOURS[method]
            axes.plot([x, x], [row["mean_low"], row["mean_high"]], color=colour, linewidth=1.8, zorder=2)
            axes.plot([x], [row["mean"]], style.MARKERS[method], color=colour, ms=7, zorder=3)
            if row["against"] is not None:
                axes.annotate(
                    row["verdict"].replace(" ", "\n") if len(rows) > 3 else row["verdict"],
                    (x, 0.985),
                    xycoords=("data", "axes fraction"),
                    ha="center",
                    va="top",
                    fontsize=7,
                    color=style.INK,
                )
        axes.margins(x=0.18, y=0.14)
        axes.set_xticks(range(len(rows)), [row["variant"] for row in rows])
        if len(rows) > 5:
            axes.tick_params(axis="x", rotation=30)
        axes.grid(visible=False, axis="x")
        axes.set_ylabel(style.ERROR)
        detail = "mean and 95 % interval; verdicts are paired by seed"
        seeds = Line2D([], [], color="#bbbbbb", marker="o", markersize=2.2, linewidth=0.7, label="one seed")
        title = f"{plan.title} on {plan.benchmark}"
        style.finish(figure, title, detail, warning=grid.warning, handles=[seeds])
    return figure
