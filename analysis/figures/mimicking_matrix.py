"""How far the heads' predictions lie apart, before training and after: KL between every ordered pair."""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from analysis import agreement, effects, schema, style
from analysis.data import GridData

_COLOURS = "Blues"
_TICKS = [digit * 10.0**power for power in range(-6, 3) for digit in (1, 2, 5)]
_ROOM = 4  # matrices side by side
_MOMENTS = {"before training": schema.INITIAL_KL, "after training": schema.KL}


def build(grid: GridData) -> Figure:
    """Draw two matrices a variant, the first weights above the last; one scale of colours for all."""
    plan, heads = grid.plan, agreement.heads(grid)
    columns = min(_ROOM, len(heads))
    bands = -(-len(heads) // columns)
    cells = columns * max(map(len, heads.values()))
    matrices = {
        (name, moment): agreement.matrix(grid, name, metric, order)
        for name, order in heads.items()
        for moment, metric in _MOMENTS.items()
    }
    positive = [float(value) for matrix in matrices.values() for value in matrix.to_numpy().flat if value > 0]
    norm = LogNorm(min(positive, default=0.1), max(positive, default=1.0))
    with style.look():
        figure = style.figure(style.COLUMN if cells <= 6 else style.DOUBLE, 0.85 + 2.15 * bands)
        for (name, moment), matrix in matrices.items():
            band, column = divmod(list(heads).index(name), columns)
            late = list(_MOMENTS).index(moment)
            axes = figure.add_subplot(2 * bands, columns, (2 * band + late) * columns + column + 1)
            _draw(axes, matrix, norm)
            axes.set_title(name if late == 0 else "")
            axes.set_ylabel(f"{moment}\nstudent" if column == 0 else "")
            axes.set_xlabel("teacher" if late else "")
            axes.tick_params(labelbottom=bool(late), labelleft=column == 0 or len(set(heads.values())) > 1)
        bar = figure.colorbar(figure.axes[0].images[0], ax=figure.axes, shrink=0.7, aspect=30, pad=0.02)
        bar.set_label("KL(teacher || student), nats")
        bar.ax.yaxis.set_major_locator(FixedLocator(_TICKS))
        bar.ax.yaxis.set_minor_locator(NullLocator())
        bar.ax.yaxis.set_major_formatter("{x:g}")
        bar.outline.set_visible(False)
        style.finish(
            figure,
            f"{plan.title} on {plan.benchmark}: predictions",
            f"{effects.mean_words(grid)}; test images, T = 1; logarithmic colours",
            warning=agreement.warning(grid),
            changes=plan.overrides,
        )
    return figure


def _draw(axes: Axes, matrix: pd.DataFrame, norm: LogNorm) -> None:
    lowest = float(norm.vmin or 0)
    axes.imshow(matrix.clip(lower=lowest), cmap=_COLOURS, norm=norm)
    for row, student in enumerate(matrix.index):
        for column, teacher in enumerate(matrix.columns):
            value = float(matrix.loc[student, teacher])
            if math.isnan(value):
                continue
            dark = norm(max(value, lowest)) > 0.55
            axes.text(
                column,
                row,
                _short(value),
                ha="center",
                va="center",
                fontsize=7,
                color="white" if dark else style.INK,
            )
    axes.set_xticks(range(len(matrix)), list(matrix.columns))
    axes.set_yticks(range(len(matrix)), list(matrix.index))
    axes.tick_params(length=0)
    axes.set_facecolor("#efefef")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _short(value: float) -> str:
    """Two significant digits, the last one written even if it is 0."""
    return f"{value:#.2g}" if value < 9.95 else f"{value:.0f}"
