"""Errors of a grid that crosses two factors or more, laid out by them: architectures by methods, weights by
temperatures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis import sequential, stats, wording
from analysis.data import GridData, records
from analysis.effects import effects
from analysis.plan import Level, Plan
from analysis.tables.table import NONE, Column, Row, Table, changes, decimals, provenance, seeds_of_grid, spread

METHOD = "method"
_MARKS = {stats.BETTER: "*", stats.WORSE: "†"}
_HEADS = {
    "arch": "architecture",
    "branch_depth": "branch depth",
    "fork_probability": "fork probability",
    "mimic.alpha": "alpha",
    "mimic.temperature": "T",
    "mimic.pairs": "pairs",
    "data.label_noise": "wrong labels",
    "data.train_size": "training images",
}
Key = tuple[Level, ...]


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Where variants stand. `own` are the cells of variants that have a level of every factor laid out."""

    rows: tuple[str, ...]
    column: str
    levels: tuple[Level, ...]
    cells: Mapping[Key, Mapping[Level, str]]
    own: frozenset[tuple[Key, Level]]

    @property
    def crosses(self) -> bool:
        """Whether two rows have more than one variant: less is told by a list."""
        counts = [sum(key == row for key, _ in self.own) for row in self.cells]
        return sum(count > 1 for count in counts) > 1


def applies(plan: Plan) -> bool:
    """Say whether the plan crosses factors."""
    layout = _layout(plan)
    return layout is not None and layout.crosses


def build(grid: GridData) -> Table:
    """Build the matrix. IncompleteError where the grid is not complete, ValueError where it crosses no factors."""
    plan = grid.plan
    layout = _layout(plan)
    if layout is None or not layout.crosses:
        raise ValueError(f"{plan.experiment} does not cross two factors: its table is the comparison")
    found = {row["variant"]: row for row in records(effects(grid))}
    places = decimals(row["sd"] for row in found.values())
    runs = grid.run_ids(list(plan.names))
    rows: list[dict[str, Any]] = []
    sources = {}
    for key, by_level in layout.cells.items():
        row: dict[str, Any] = dict(zip(layout.rows, key, strict=True))
        source = {}
        for level in layout.levels:
            name, at = by_level.get(level), wording.level(level)
            told = found[name] if name else dict.fromkeys(("mean", "sd", "difference", "p_holm", "verdict"))
            row |= {f"{at} {part}": told[part] for part in ("mean", "sd", "difference", "p_holm", "verdict")}
            if name:
                source[at] = {"variant": name, "against": found[name]["against"], "runs": runs[name]}
        rows.append(row)
        sources[" ".join(_said(level) for level in key)] = source
    titles = [wording.level(level) for level in layout.levels]
    if layout.column != METHOD:
        titles = [f"{_head(layout.column)} {title}" for title in titles]
    return Table(
        name=f"{plan.benchmark}-{plan.grid}-matrix",
        frame=pd.DataFrame(rows),
        columns=(
            *(Column(_head(name), _level(name), "l") for name in layout.rows),
            *(
                Column(title, _error(wording.level(level), places))
                for level, title in zip(layout.levels, titles, strict=True)
            ),
        ),
        caption=_caption(grid, layout),
        sources=sources,
    )


def _layout(plan: Plan) -> _Layout | None:
    """Methods side by side where more than one of them has the other factors, else the last factor's levels."""
    varied = [name for name in plan.factors if len(plan.levels(name)) > 1]
    others = [name for name in varied if name != METHOD]
    if not others or len(varied) < 2:
        return None
    having = {v.factors.get(METHOD) for v in plan.variants if v.factors.get(others[-1]) is not None}
    column = METHOD if METHOD in varied and len(having - {None}) > 1 else others[-1]
    rows = tuple(name for name in varied if name != column)
    placed = [(tuple(v.factors.get(name) for name in rows), v.factors.get(column), v) for v in plan.ordered]
    keys = list(dict.fromkeys(key for key, _, _ in placed))
    # Where a factor makes no difference to a variant, it stands at every level of it that there is.
    kept = [key for key in keys if not any(_stands(key, other) for other in keys if other != key)]
    kept.sort(key=lambda key: [_place(plan, name, level) for name, level in zip(rows, key, strict=True)])
    cells: dict[Key, dict[Level, str]] = {key: {} for key in kept}
    own = set()
    for key, level, variant in placed:
        for row in kept:
            if row == key or _stands(key, row):
                for at in plan.levels(column) if level is None else (level,):
                    cells[row].setdefault(at, variant.name)
                    own |= {(row, at)} if row == key and level is not None else set()
    return _Layout(rows=rows, column=column, levels=plan.levels(column), cells=cells, own=frozenset(own))


def _stands(key: Key, other: Key) -> bool:
    """Say whether `key` is `other` without some of its levels."""
    return key != other and all(mine is None or mine == its for mine, its in zip(key, other, strict=True))


def _place(plan: Plan, name: str, level: Level) -> int:
    return -1 if level is None else plan.levels(name).index(level)


def _head(name: str) -> str:
    return _HEADS.get(name, name.replace("_", " "))


def _said(level: Level) -> str:
    return NONE if level is None else wording.level(level)


def _level(name: str) -> Callable[[Row], str]:
    return lambda row: _said(None if pd.isna(row[name]) else row[name])


def _error(at: str, places: int) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        return spread(row[f"{at} mean"], row[f"{at} sd"], places) + _MARKS.get(row[f"{at} verdict"], "")

    return text


def _caption(grid: GridData, layout: _Layout) -> str:
    plan = grid.plan
    baselines = [v.name for v in plan.variants if not plan.is_arm(v.name)]
    to = baselines[0] if len(baselines) == 1 else "its baseline, the one with the same other levels"
    told = [
        f"{plan.title} on {plan.benchmark}: top-1 error of the last epoch in percent, mean ± standard deviation over "
        f"{seeds_of_grid(plan)}.",
        f"Marked * is better and † worse than {to}, by Holm's correction over all comparisons of the grid; differences "
        "and their intervals are in the comparison.",
    ]
    if plan.looks:
        told.append(sequential.words(plan.looks))
    placed = [name for by_level in layout.cells.values() for name in by_level.values()]
    if len(set(placed)) < len(placed):
        told.append("A number that stands several times is of the same runs: the factor makes no difference to them.")
    return " ".join([*told, *changes(grid), provenance(grid)])
