"""The trials of a search: error on held-out training images over each field that was searched."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from analysis import coverage, schema, style, wording
from analysis.data import GridData

_WORDS = {"mimic.alpha": "weight of mimicking, alpha", "mimic.temperature": "temperature T"}


def build(grid: GridData) -> Figure:
    """Draw a panel for each field. ValueError where the plan has no search; IncompleteError where it has gaps."""
    plan, search = grid.plan, grid.searched
    assert len(grid.cells), "a grid with gaps refuses"
    with style.look():
        space = search["space"]
        figure = style.figure(style.COLUMN if len(space) == 1 else style.DOUBLE, 2.9)
        for index, (path, (low, high, log)) in enumerate(space.items()):
            axes = figure.add_subplot(1, len(space), index + 1)
            if log:
                axes.set_xscale("log")
                axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: wording.level(value)))
                axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlim(low, high)
            _draw(axes, grid.trials, path, search["selected"])
            for reference in plan.levels(path)[:1]:
                axes.axvline(float(str(reference)), color=style.FAINT, linestyle=style.dash(2), linewidth=0.9, zorder=1)
            axes.set_xlabel(_WORDS.get(path, path))
            if index == 0:
                axes.set_ylabel("error on held-out images (%)")
            if path in search["importance"]:
                axes.set_title(f"importance {search['importance'][path]:.0%}")
        ended = int((grid.trials["state"] == coverage.DONE).sum())
        detail = (
            f"{len(grid.trials)} trials, {ended} to the end, judged by {search['held_out']:.0%} of the training "
            "images; one seed each: too few to tell settings apart"
            + ("" if plan.searching else "; dotted: what the found setting is held against")
        )
        style.finish(figure, f"{plan.title} on {plan.benchmark}", detail, warning=grid.warning, changes=plan.overrides)
    return figure


def sources(grid: GridData) -> dict[str, Any]:
    """Return the runs of the trials, which are what is drawn."""
    trials = grid.trials
    return {f"trial {n}": {"run": r} for n, r in zip(trials[schema.TRIAL_NUMBER], trials["run_id"], strict=True)}


def _draw(axes: Axes, trials: pd.DataFrame, path: str, selected: int | None) -> None:
    ended = trials["state"] == coverage.DONE
    best = trials[schema.TRIAL_NUMBER] == selected
    given_up = trials[trials["state"] == coverage.PRUNED]
    others = trials[ended & ~best]
    if len(given_up):
        axes.scatter(
            given_up[path],
            given_up[schema.VAL_TOP1],
            s=14,
            facecolor="none",
            edgecolor=style.FAINT,
            alpha=0.5,
            linewidth=0.8,
            label="given up (its last error)",
        )
    axes.scatter(others[path], others[schema.VAL_TOP1], s=16, color=style.COLOURS["dhm"], label="trained to the end")
    axes.scatter(
        trials[best][path],
        trials[best][schema.VAL_TOP1],
        s=110,
        marker="*",
        color=style.COLOURS["dsl"],
        edgecolor=style.INK,
        linewidth=0.6,
        zorder=5,
        label="selected",
    )
