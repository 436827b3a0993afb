"""The network itself, as it was recorded: main branch, side branches where they fork, heads, who mimics whom."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch
from matplotlib.path import Path

from analysis import schema, style
from analysis.data import GridData

FILES = (schema.TOPOLOGY_FILE,)
ROOM = 6  # drawings that a figure holds
_ACROSS = 3
_BOX, _HEIGHT = 0.83, 0.68  # of a box, where stages and rows are 1 apart
_GUTTER = _BOX / 2 + 0.06  # from the middle of a box to a line that runs beside it
_MAIN, _SIDE = "#d9d9d9", "#fff3da"

_ON_LINE: dict[str, Any] = {
    "ha": "center",
    "va": "center",
    "fontsize": 7,
    "zorder": 5,
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.8},
}

Topology: TypeAlias = Mapping[str, Any]  # as `schema.TOPOLOGY_FILE` has it
_Node: TypeAlias = tuple[float, float]


def build(grid: GridData) -> Figure:
    """Draw what the grid's variants have in side branches and in mimicking, each network once.

    Plain training is not drawn beside networks with branches, nor deep supervision beside the same branches with
    mimicking: the drawing has all of it. ValueError where no topology is recorded.
    """
    plan, warning = grid.plan, grid.warning
    found = {name: grid.topologies[name] for name in plan.names if len(grid.of(name)) and name in grid.topologies}
    if not found:
        raise ValueError(
            f"figure 'network': no run of {plan.experiment} has its {schema.TOPOLOGY_FILE}; the artifacts were moved, "
            "or are of another version"
        )
    kept = [name for name in _distinct(found) if not any(_within(found[name], other) for other in found.values())]
    shown = {name: found[name] for name in kept[:ROOM]}
    told = f"drawn: {kept[0]}" if len(kept) == 1 else f"and {len(kept) - ROOM} more" if len(kept) > ROOM else ""
    title = f"{plan.title} on {plan.benchmark}: network{'s' if len(kept) > 1 else ''}"
    return _figure(shown, title, told, warning=warning, changes=plan.overrides)


def draw(topology: Topology, title: str = "") -> Figure:
    """Draw one network, of a run (`store.topologies`) or of a recipe (`dhm.cost.topology`)."""
    title = title or f"{topology['arch']}, {topology['method']}"
    return _figure({title: topology}, title, "")


def _figure(
    shown: Mapping[str, Topology], title: str, told: str, *, warning: str = "", changes: Sequence[str] = ()
) -> Figure:
    stages = max(len(topology["stages"]) for topology in shown.values())
    rows = max(len(topology["heads"]) for topology in shown.values())
    columns = min(_ACROSS if stages < 4 else 2, len(shown))
    bands = -(-len(shown) // columns)
    single = columns == 1 and stages <= 4
    with style.look():
        width = style.COLUMN if single else style.DOUBLE
        figure = style.figure(width, 0.75 + bands * (0.5 + 0.52 * rows))
        cast("ConstrainedLayoutEngine", figure.get_layout_engine()).set(w_pad=0.0, wspace=0.02)
        span = stages + 0.9 + _BOX / 2 + 0.75 * _bulge(rows - 1)
        for index, (name, topology) in enumerate(shown.items()):
            axes = figure.add_subplot(bands, columns, index + 1)
            axes.set_axis_off()
            axes.set_xlim(0.2, 0.2 + span)
            axes.set_ylim(-rows + 0.55, 0.95)
            _draw(axes, topology, width * 72 * 0.95 / columns / span)
            if len(shown) > 1:
                axes.set_title(name)
        mimics = any(topology["pairs"] for topology in shown.values())
        sides = any(topology["branches"] for topology in shown.values())
        keys: list[Any] = [Patch(facecolor=_MAIN, edgecolor=style.INK, linewidth=0.8, label="main branch")]
        if sides:
            keys.append(
                Patch(facecolor=_SIDE, edgecolor=style.INK, linewidth=0.8, label="side branch, in training only")
            )
        if mimics:
            keys.append(Line2D([], [], color=style.COLOURS["dhm"], marker=">", label="teaches, by mimicking"))
        style.finish(figure, title, told, warning=warning, changes=changes, handles=keys)
    return figure


def _draw(axes: Axes, topology: Topology, unit: float) -> None:
    """Draw a network into axes where a stage is 1 wide, which is `unit` points, and a row 1 high."""
    stages = topology["stages"]
    end = len(stages) + 1
    _arrow(axes, [(0.25, 0), (1 - _BOX / 2, 0)])
    for number, stage in enumerate(stages, 1):
        _box(axes, number, 0, _blocks(stage["blocks"], unit), _MAIN)
        head = f"stage {number}\n{stage['channels']} ch."
        axes.text(number, 0.42, head, ha="center", va="bottom", fontsize=7, color=style.FAINT, linespacing=1.0)
        _arrow(axes, [(number + _BOX / 2, 0), (number + 1 - _BOX / 2, 0)])
    rows = {"main": 0.0}
    # The later a branch forks the nearer it is to the main branch: then no line crosses another.
    for count, branch in enumerate(reversed(topology["branches"]), start=1):
        rows[branch["head"]] = -float(count)
        _branch(axes, branch, stages, -float(count), unit)
    for name, row in rows.items():
        _box(axes, end, row, name, "white", rounded=True)
    _mimicking(axes, topology["pairs"], rows, end + _BOX / 2)


def _branch(axes: Axes, branch: Topology, stages: Sequence[Topology], row: float, unit: float) -> None:
    inside = int(branch["block"])
    first = int(branch["after"]) + (0 if inside else 1)
    if inside:
        share = inside / int(stages[first - 1]["blocks"])
        node: _Node = (first - _BOX / 2 + _BOX * share, -_HEIGHT / 2)
        side = first - _GUTTER
        path = [node, (node[0], -0.5), (side, -0.5), (side, row), (first - _BOX / 2, row)]
    else:
        node = (first - 0.5, 0.0)
        path = [node, (node[0], row), (first - _BOX / 2, row)]
    probability = float(branch["fork_probability"])
    axes.plot(*node, "o", color=style.INK, markersize=3.2, zorder=4)
    _arrow(axes, path, linestyle="solid" if probability == 1 else (0, (3, 2)))
    if probability < 1:
        axes.text(path[-2][0], row + 0.5, f"p = {probability:g}", color=style.INK, **_ON_LINE)
    for column, blocks in enumerate(branch["blocks"], first):
        _box(axes, column, row, _blocks(blocks, unit), _SIDE)
        if branch["width"] != 1:
            wide = f"{branch['width']:g}× wide"
            above = row + _HEIGHT / 2 + 0.04
            axes.text(column, above, wide, ha="center", va="bottom", fontsize=7, color=style.FAINT)
        _arrow(axes, [(column + _BOX / 2, row), (column + 1 - _BOX / 2, row)])


def _mimicking(axes: Axes, pairs: Sequence[Sequence[Any]], rows: Mapping[str, float], x: float) -> None:
    """Draw an arrow from teacher to student, one with two heads where each teaches the other as strongly."""
    weights = {(str(teacher), str(student)): float(weight) for student, teacher, weight in pairs if weight}
    order = list(rows)
    for (teacher, student), weight in weights.items():
        mutual = weights.get((student, teacher)) == weight
        if mutual and order.index(teacher) > order.index(student):
            continue
        far = abs(rows[teacher] - rows[student])
        toward = (0.1 if far == 1 else 0.2) * (1 if rows[teacher] < rows[student] else -1)
        start, end = rows[teacher] + toward, rows[student] - toward  # arrows of one head stand beside one another
        # A way back of another weight runs outside of the way there.
        bulge = x + _bulge(far) + 0.22 * (start < end and not mutual and (student, teacher) in weights)
        path = Path([(x, start), (bulge, start), (bulge, end), (x, end)], [Path.MOVETO, *[Path.CURVE4] * 3])
        axes.add_patch(
            FancyArrowPatch(
                path=path,
                arrowstyle="<|-|>" if mutual else "-|>",
                mutation_scale=7,
                color=style.COLOURS["dhm"],
                linewidth=1.2,
                shrinkA=0,
                shrinkB=0,
                zorder=3,
            )
        )
        if len(set(weights.values())) > 1:
            # Three quarters of the way out is where the curve turns.
            place = (x + 0.75 * (bulge - x), end + (start - end) / (2 if start > end else 3))
            axes.text(*place, f"{weight:g}", color=style.COLOURS["dhm"], **_ON_LINE)


def _bulge(rows: float) -> float:
    """Return how far out an arrow between two heads reaches for, by the rows between them."""
    return 0.28 + 0.33 * max(0.0, rows - 1)


def _blocks(count: int, unit: float) -> str:
    told = f"{count} block{'s' if count != 1 else ''}"
    return told if len(told) * 4.2 < _BOX * unit else told.replace(" ", "\n")


def _box(axes: Axes, x: float, y: float, text: str, colour: str, *, rounded: bool = False) -> None:
    shape = "round,pad=0,rounding_size=0.2" if rounded else "square,pad=0"
    height = _HEIGHT if not rounded else 0.46
    corner = (x - _BOX / 2, y - height / 2)
    axes.add_patch(
        FancyBboxPatch(corner, _BOX, height, boxstyle=shape, facecolor=colour, edgecolor=style.INK, linewidth=0.8)
    )
    axes.text(x, y, text, ha="center", va="center", fontsize=7, linespacing=0.95)


def _arrow(axes: Axes, points: Sequence[_Node], **look: Any) -> None:
    arrow = FancyArrowPatch(
        path=Path(list(points)),
        arrowstyle="-|>",
        mutation_scale=6,
        color=style.INK,
        linewidth=0.9,
        shrinkA=0,
        shrinkB=0,
        joinstyle="miter",
        **look,
    )
    axes.add_patch(arrow)


def _distinct(found: Mapping[str, Topology]) -> list[str]:
    """Return the first name of each network; how often a branch forks is no part of it."""
    firsts: dict[str, str] = {}
    for name, topology in found.items():
        firsts.setdefault(repr((topology["arch"], _forks(topology), topology["pairs"])), name)
    return list(firsts.values())


def _forks(topology: Topology) -> list[tuple[Any, ...]]:
    return [(b["head"], b["after"], b["block"], tuple(b["blocks"]), b["width"]) for b in topology["branches"]]


def _within(one: Topology, other: Topology) -> bool:
    """Say whether another drawing has all of one and more: its branches, or mimicking between the same ones."""
    if one["arch"] != other["arch"]:
        return False
    own, more = _forks(one), _forks(other)
    return (not own and bool(more)) or (own == more and not one["pairs"] and bool(other["pairs"]))
