"""What a table is before it is rendered: numbers, how to show them, a caption, and the runs behind each row."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from analysis.data import GridData, records
from analysis.markup import prose
from analysis.plan import Plan

NONE = "–"  # where there is no number
Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A column as it is shown: its title and the text of a row. `align` is l or r."""

    title: str
    text: Callable[[Row], str]
    align: str = "r"


@dataclass(frozen=True, kw_only=True)
class Table:
    """`frame` has the numbers in full, `columns` say how they are shown, `sources` the runs behind each row."""

    name: str
    frame: pd.DataFrame
    columns: tuple[Column, ...]
    caption: str
    sources: Mapping[str, Any] = field(default_factory=dict)

    def shown(self) -> list[list[str]]:
        """Return the texts, a list a row."""
        return [[column.text(row) for column in self.columns] for row in records(self.frame)]

    def _repr_markdown_(self) -> str:
        return markdown(self)


def markdown(table: Table) -> str:
    """Return the table and its caption in GitHub's Markdown."""
    heads = [_bar(column.title) for column in table.columns]
    body = [[_bar(text) for text in row] for row in table.shown()]
    widths = [max(3, *(len(row[i]) for row in [heads, *body])) for i in range(len(heads))]
    rules = [
        "-" * (width - 1) + ":" if column.align == "r" else "-" * width
        for column, width in zip(table.columns, widths, strict=True)
    ]
    lines = [_line(heads, widths, table), "| " + " | ".join(rules) + " |"]
    lines += [_line(row, widths, table) for row in body]
    return "\n".join(lines) + f"\n\n{prose(table.caption)}\n"


def decimals(deviations: Iterable[float]) -> int:
    """Return how many decimals errors deserve: two significant digits of the median deviation, at most two."""
    return min(2, max(0, 1 + _leading_zeros(deviations, default=1)))


def difference_decimals(places: int, deviations: Iterable[float]) -> int:
    """Return how many decimals paired differences deserve: those of errors, or more where pairing leaves so little
    spread that these would show none of it; at most two."""
    return max(places, min(2, _leading_zeros(deviations, default=0)))


def _leading_zeros(deviations: Iterable[float], default: int) -> int:
    """Return the decimals that the median deviation takes to show a digit, below 0 for one of ten and more."""
    known = sorted(float(value) for value in deviations if math.isfinite(value) and value > 0)
    return -math.floor(math.log10(known[len(known) // 2])) if known else default


def number(value: float, places: int, *, signed: bool = False) -> str:
    """Return a number with a true minus sign, or NONE where it is NaN."""
    if value is None or not math.isfinite(value):
        return NONE
    rounded = round(value, places) + 0.0  # no negative zero
    return f"{rounded:{'+' if signed and rounded else ''}.{places}f}".replace("-", "−")


def spread(mean: float, deviation: float, places: int) -> str:
    """Return a mean and its deviation over seeds, where there is one."""
    told = number(mean, places)
    return told if NONE in (told, number(deviation, places)) else f"{told} ± {number(deviation, places)}"


def p_value(p: float) -> str:
    """Return a p value with three decimals."""
    if not math.isfinite(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def changes(grid: GridData) -> list[str]:
    """Say in a caption, if it is so, what the command changed."""
    changed = grid.plan.overrides
    return [f"Changed from the grid's own recipe: {', '.join(changed)}."] if changed else []


def provenance(grid: GridData) -> str:
    """Say in a caption which code, commits and seeds the numbers come from, and what is wrong with them."""
    cells = grid.cells
    codes = sorted(set(map(str, cells["code"])))
    commits = sorted({str(commit)[:10] for commit in cells["commit"].dropna()})
    told = f"Code {', '.join(codes)}, commit {', '.join(commits) or 'not recorded'}"
    told += " with uncommitted changes." if bool(cells["dirty"].any()) else "."
    if codes != [grid.plan.code]:
        told += f" The grid was last run with code {grid.plan.code}."
    return told + (f" NOT COMPLETE: {' '.join(grid.remarks)}" if grid.remarks else "")


def seed_words(seeds: Iterable[int]) -> str:
    """Return seeds in words: 5 seeds (0 to 4)."""
    known = sorted(seeds)
    if len(known) > 2 and known == list(range(known[0], known[-1] + 1)):
        return f"{len(known)} seeds ({known[0]} to {known[-1]})"
    return f"{len(known)} seed{'s' if len(known) != 1 else ''} ({', '.join(map(str, known))})"


def seeds_of_grid(plan: Plan) -> str:
    """Return the seeds of a plan in words: 5 seeds (0 to 4), or where variants differ 5 to 15 seeds (from 0)."""
    numbers = sorted({len(plan.seeds_of(name)) for name in plan.names})
    if len(numbers) == 1:
        return seed_words(plan.seeds_of(plan.names[0]))
    return f"{numbers[0]} to {numbers[-1]} seeds (from {plan.seeds[0]})"


def _bar(text: str) -> str:
    plain = text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("\n", " ")
    return prose(plain)


def _line(texts: list[str], widths: list[int], table: Table) -> str:
    padded = [
        text.rjust(width) if column.align == "r" else text.ljust(width)
        for text, width, column in zip(texts, widths, table.columns, strict=True)
    ]
    return "| " + " | ".join(padded) + " |"
