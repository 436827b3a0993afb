"""One look for all figures: colours that a colour-blind reader and a grey print can tell apart, sizes, saving."""

import os
import tempfile
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLUMN, DOUBLE = 3.4, 7.0  # inches: one column and two
DPI = 220
ERROR = "top-1 error (%)"
POINTS = "percentage points"
INK, FAINT, WARNING = "#222222", "#6b6b6b", "#b00020"

# Okabe and Ito's palette; lightness differs too, so the three stay apart in grey.
COLOURS = {"plain": "#4d4d4d", "dsl": "#e69f00", "dhm": "#0072b2"}
MARKERS = {"plain": "s", "dsl": "^", "dhm": "o"}
LINES: dict[str, str | tuple[int, tuple[float, ...]]] = {"plain": (0, (5, 2)), "dsl": (0, (2, 1)), "dhm": "solid"}
_CYCLE_MARKERS = ("o", "^", "D", "v", "P", "X", "<", ">")
_CYCLE_LINES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    "solid",
    (0, (4, 1.5)),
    (0, (1.5, 1)),
    (0, (5, 1, 1, 1)),
)

_RC = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters everywhere
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "figure.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "pdf.fonttype": 42,  # TrueType: text in a PDF can be searched and edited
    "ps.fonttype": 42,
    "figure.dpi": 110,
    "savefig.dpi": DPI,
    "svg.hashsalt": "analysis",
}


@contextmanager
def look() -> Iterator[None]:
    """Apply the look inside a `with`, and leave the caller's settings as they were."""
    with mpl.rc_context():
        mpl.rcdefaults()  # a user's own matplotlibrc is not ours
        settings: Any = {**sns.axes_style("ticks"), **_RC}
        mpl.rcParams.update(settings)
        yield


def figure(width: float = COLUMN, height: float = 2.5) -> Figure:
    """Return an empty figure of a size in inches, which no window system or notebook setting touches."""
    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def shades(count: int) -> list[tuple[float, float, float]]:
    """Return colours for ordered levels, dark to light, distinct in grey."""
    palette = sns.color_palette("viridis", count + 1)[:count]  # without the yellow that white swallows
    return [(float(r), float(g), float(b)) for r, g, b in palette]


def marker(index: int) -> str:
    """Return the marker of the nth of several series."""
    return _CYCLE_MARKERS[index % len(_CYCLE_MARKERS)]


def dash(index: int) -> str | tuple[int, tuple[float, ...]]:
    """Return the line style of the nth of several series."""
    return _CYCLE_LINES[index % len(_CYCLE_LINES)]


def dots(axes: Axes, x: Sequence[float], y: Sequence[float], colour: str | tuple[float, ...]) -> None:
    """Draw runs as faint dots."""
    axes.plot(x, y, "o", color=colour, alpha=0.45, markersize=2.6, markeredgewidth=0)


def runs(axes: Axes, x: float, errors: Iterable[float], colour: str | tuple[float, ...]) -> None:
    """Draw runs as faint dots above one another, beside their mean at `x`."""
    values = list(errors)
    dots(axes, [x + 0.06] * len(values), values, colour)


def percent(axes: Axes) -> None:
    """Keep an axis of errors between 0 and 100, whatever the intervals reach."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0), min(high, 100))


def finish(
    made: Figure,
    title: str,
    detail: str,
    *,
    warning: str = "",
    changes: Sequence[str] = (),
    handles: Sequence[Artist] | None = None,
) -> None:
    """Put a title over a figure, and under it one legend of all panels with `detail` above its keys.

    `handles` replaces the keys that the panels' labels give. `warning` says in red that a grid is not complete.
    `changes` are what the command line changed in the recipe; they stand in one line, cut where it ends.
    """
    found: dict[str, Any] = {str(handle.get_label()): handle for handle in handles or ()}
    for axes in made.axes if handles is None else ():
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    narrow = made.get_figwidth() < 5
    size = 8.5 if narrow else 9.5
    # A bold letter is about two thirds as wide as its size.
    wrapped = textwrap.fill(title, int(made.get_figwidth() * 72 / (size * 0.68)))
    made.suptitle(wrapped, fontsize=size, fontweight="bold")
    # Letters of 7 points are about 4 points wide; a key needs 34 points beside them.
    letters, signs = (int(made.get_figwidth() * 72 / width) for width in (4.2, 4.7))  # digits and "=" are wider
    changed = f"changed: {', '.join(changes)}" if changes else ""
    if len(changed) > signs:
        changed = changed[: signs - 1] + "…"
    lines = [textwrap.fill(line, letters) for told in (warning, detail) for line in told.splitlines()]
    room = made.get_figwidth() * 72 / (4 * max(map(len, found), default=1) + 34)
    rows = -(-len(found) // max(1, int(room))) or 1
    legend = made.legend(
        found.values(),
        found.keys(),
        loc="outside lower center",
        ncols=max(1, -(-len(found) // rows)),
        columnspacing=1.2,
        handletextpad=0.5,
        title="\n".join(filter(None, (*lines, changed))),
        title_fontsize=7,
    )
    legend.get_title().set_color(WARNING if warning else FAINT)
    legend.get_title().set_multialignment("center")


def save(made: Figure, stem: Path) -> list[Path]:
    """Write STEM.png and STEM.pdf, the same bytes for the same figure, and return the paths."""
    made.set_dpi(DPI)
    paths = []
    with look():
        layout = made.get_layout_engine()
        if layout is not None:
            # Once, for both files; left to them, it would take a drawing of its own.
            layout.execute(made)
            made.set_layout_engine(None)
        for suffix, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
            path = stem.with_name(stem.name + suffix)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=suffix)
            os.close(handle)
            made.savefig(temporary, metadata=metadata, dpi=DPI)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
            paths.append(path)
    return paths
