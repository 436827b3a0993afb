"""The answer to a question in two sentences: which arms differ from their baseline, and how much to make of it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis import stats
from analysis.tables.comparison import span
from analysis.tables.table import number

_NAMED = 3  # arms that a sentence names


def answer(arms: Sequence[Mapping[str, Any]], places: int, seeds: int) -> str:
    """Return two sentences; nothing where there are too few seeds for a verdict.

    Args:
        arms: rows of `analysis.effects.effects` that are compared with a baseline.
        places: decimals of an error.
        seeds: how many the grid has.
    """
    told = sorted((row for row in arms if not math.isnan(row["low"])), key=lambda row: float(row["difference"]))
    if not told:
        return ""
    better = [row for row in told if row["verdict"] == stats.BETTER]
    worse = [row for row in reversed(told) if row["verdict"] == stats.WORSE]
    if not better and not worse:
        return f"{_none(told)} {_chance(told, places, seeds)}"
    first = ", and ".join(
        f"{_named(rows)} {'is' if len(rows) == 1 else 'are'} {verdict} than {_baseline(rows)}"
        for rows, verdict in ((better, stats.BETTER), (worse, stats.WORSE))
        if rows
    )
    return f"{first}. {_most((better or worse)[0], len(told), len(better) + len(worse), places)}"


def _none(arms: Sequence[Mapping[str, Any]]) -> str:
    if len(arms) == 1:
        return f"{arms[0]['variant']} is not shown to differ from {arms[0]['against']}."
    return f"None of the {len(arms)} arms is shown to differ from {_baseline(arms)}."


def _chance(arms: Sequence[Mapping[str, Any]], places: int, seeds: int) -> str:
    """What was seen, and what could have been."""
    most = max(arms, key=lambda row: abs(row["difference"]))
    reach = sorted((row["high"] - row["low"]) / 2 for row in arms)[len(arms) // 2]
    return (
        f"The largest difference seen, {number(most['difference'], places, signed=True)} points of {most['variant']}, "
        f"may be chance: {seeds} seeds cannot show much less than {number(reach, places)} points."
    )


def _most(row: Mapping[str, Any], compared: int, shown: int, places: int) -> str:
    size = f"{number(row['difference'], places, signed=True)} points {span(row['low'], row['high'], places)}"
    said = f"The largest difference shown is {size} of {row['variant']}"
    rest = compared - shown
    if rest == 0:
        return f"{said}."
    return f"{said}; none is shown for the other {f'{rest} arms' if rest > 1 else 'arm'}."


def _baseline(arms: Sequence[Mapping[str, Any]]) -> str:
    names = {row["against"] for row in arms}
    return str(names.pop()) if len(names) == 1 else "their baselines"


def _named(rows: Sequence[Mapping[str, Any]]) -> str:
    names = [str(row["variant"]) for row in rows]
    if len(names) > _NAMED:
        return f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
