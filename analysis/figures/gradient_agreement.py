"""Whether the heads' losses pull the weights that they share the same way: cosines of their gradients over the epochs."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import agreement, schema, style
from analysis.data import GridData
from analysis.plan import VariantRecord

METRICS = (f"{schema.GRADIENT_COSINE}/", f"{schema.GRADIENT_COSINE_CE}/")
_ROOM = 3  # panels over one another
_WHOLE = (0, (1, 1))


def build(grid: GridData) -> Figure:
    """Draw a panel for each pair of heads: the cosine of their cross-entropies, and of their whole losses where these
    differ; mean and range of the seeds."""
    plan, heads = grid.plan, agreement.heads(grid)
    ce, whole = (agreement.curves(grid, metric) for metric in (schema.GRADIENT_COSINE_CE, schema.GRADIENT_COSINE))
    pairs = dict.fromkeys(
        f"{a}.{b}" for order in heads.values() for index, a in enumerate(order) for b in order[index + 1 :]
    )
    shown = [variant for variant in plan.ordered if variant.name in heads]
    columns = 1 if len(pairs) <= _ROOM else 2
    rows = -(-len(pairs) // columns)
    with style.look():
        figure = style.figure(style.COLUMN if columns == 1 else style.DOUBLE, 1.25 + 1.05 * rows)
        for index, pair in enumerate(pairs):
            first = figure.axes[0] if index else None
            axes = figure.add_subplot(rows, columns, index + 1, sharex=first, sharey=first)
            axes.axhline(0, color=style.FAINT, linewidth=0.8, zorder=1)
            for variant in shown:
                place = [other.method for other in shown[: shown.index(variant)]].count(variant.method)
                _draw(axes, ce, whole, pair, variant, place)
            axes.set_title(pair.replace(".", " and "))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
            axes.tick_params(labelbottom=index + columns >= len(pairs))
            axes.set_ylabel("cosine" if index % columns == 0 else "")
            axes.set_xlabel("epoch" if index + columns >= len(pairs) else "")
        style.finish(
            figure,
            f"{plan.title} on {plan.benchmark}: gradients",
            "cosine of two heads' gradients over the weights that they share\n"
            f"mean and range of {len(plan.seeds)} seeds; compare methods by the cross-entropy",
            warning=agreement.warning(grid),
        )
    return figure


def _draw(
    axes: Axes, ce: pd.DataFrame, whole: pd.DataFrame, pair: str, variant: VariantRecord, place: int
) -> None:
    key = (variant.name, pair)
    if key not in ce.index.droplevel("epoch"):
        return
    colour = style.COLOURS[variant.method]
    several = place > 0
    _line(axes, ce.loc[key], f"{variant.name}: cross-entropy", colour, style.dash(place) if several else "solid")
    if not ce.loc[key].equals(whole.loc[key]):
        _line(axes, whole.loc[key], f"{variant.name}: whole loss", colour, _WHOLE)


def _line(axes: Axes, own: pd.DataFrame, label: str, colour: str, dash: object) -> None:
    epochs = own.index.to_numpy() + 1
    axes.fill_between(epochs, own["min"], own["max"], color=colour, alpha=0.15, linewidth=0)
    mark = "o" if len(epochs) < 3 else None
    axes.plot(epochs, own["mean"], label=label, color=colour, linestyle=dash, marker=mark, markersize=3)
