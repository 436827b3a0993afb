"""Whether the heads' losses pull the weights that they share the same way: cosines of gradients over the epochs."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import agreement, effects, schema, style
from analysis.data import GridData
from analysis.plan import VariantRecord

METRICS = (f"{schema.GRADIENT_COSINE}/", f"{schema.GRADIENT_COSINE_CE}/")
_ROOM = 3  # panels over one another
_WHOLE = (0, (1, 1))

_Curves: TypeAlias = dict[tuple[str, str], pd.DataFrame]
_Line: TypeAlias = tuple[str, Any, pd.DataFrame]


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
                same = [other.name for other in shown if other.method == variant.method]
                for label, dash, own in _series(variant, pair, same.index(variant.name), ce, whole):
                    marker = style.MARKERS[variant.method]
                    _line(axes, own, label, color=style.COLOURS[variant.method], linestyle=dash, marker=marker)
            axes.set_title(pair.replace(".", " and "))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
            axes.tick_params(labelbottom=index + columns >= len(pairs))
            axes.set_ylabel("cosine" if index % columns == 0 else "")
            axes.set_xlabel("epoch" if index + columns >= len(pairs) else "")
        style.finish(
            figure,
            f"{plan.title} on {plan.benchmark}: gradients",
            "cosine of two heads' gradients in their shared weights\n"
            f"{effects.range_words(grid)}; compare by cross-entropy",
            warning=agreement.warning(grid),
            changes=plan.overrides,
        )
    return figure


def _series(variant: VariantRecord, pair: str, place: int, ce: _Curves, whole: _Curves) -> Iterator[_Line]:
    """Give label, line style and points of a variant's lines; the nth of a method has a dash of its own."""
    name = variant.name
    if (name, pair) not in ce:
        return
    yield f"{name}: cross-entropy", style.dash(place), ce[name, pair]
    if not ce[name, pair].equals(whole[name, pair]):
        added = "mimicking" if variant.method == "dhm" else "all terms"
        yield f"{name}: with {added}", _WHOLE, whole[name, pair]


def _line(axes: Axes, own: pd.DataFrame, label: str, **look: Any) -> None:
    epochs = own.index.to_numpy() + 1
    axes.fill_between(epochs, own["min"], own["max"], color=look["color"], alpha=0.15, linewidth=0)
    axes.plot(epochs, own["mean"], label=label, markersize=3, markevery=max(1, len(epochs) // 6), **look)
