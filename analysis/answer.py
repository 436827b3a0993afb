"""The answer to a question in two sentences: which arms differ from their baseline, and how much to make of it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis import power, stats
from analysis.tables.comparison import span
from analysis.tables.table import number

_NAMED = 3  # arms that a sentence names


def answer(arms: Sequence[Mapping[str, Any]], places: int, seeds: int, *, grown: bool = False) -> str:
    """Return two sentences; nothing where there are too few seeds for a verdict.

    Args:
        arms: rows of `analysis.effects.effects` that are compared with a baseline.
        places: decimals of a difference.
        seeds: how many the grid has.
        grown: whether seeds were added look by look; power is that of a fixed number of them, so none is told.
    """
    told = sorted((row for row in arms if not math.isnan(row["p"])), key=lambda row: float(row["difference"]))
    if not told:
        return ""
    better = [row for row in told if row["verdict"] == stats.BETTER]
    worse = [row for row in reversed(told) if row["verdict"] == stats.WORSE]
    if not better and not worse:
        few = "" if len(told) == len(arms) else f" by arms with {stats.MIN_PAIRS} seeds or more"
        return f"{_none(told)} {_chance(told, places, 0 if grown else seeds, few)}"
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


def _chance(arms: Sequence[Mapping[str, Any]], places: int, seeds: int, few: str) -> str:
    """What was seen, and what so many seeds could have shown of the arm that varies most; the table's caption has it of
    every arm."""
    most = max(arms, key=lambda row: abs(row["difference"]))
    size = number(most["difference"], places, signed=True)
    seen = f"The largest difference seen{few}, {size} points of {most['variant']}, may be chance"
    level = power.level_of(len(arms))
    reach = [power.detectable(row["sd_difference"], int(row["pairs"]), level) for row in arms] if seeds else []
    enough = max((difference for difference in reach if not math.isnan(difference)), default=math.nan)
    if math.isnan(enough):
        return f"{seen}."
    return (
        f"{seen}: where arms vary as these do, {seeds} seeds show a true difference of {number(enough, places)} points "
        f"in {100 * power.POWER:.0f} % of studies, and smaller ones in fewer."
    )


def _most(row: Mapping[str, Any], compared: int, shown: int, places: int) -> str:
    interval = "" if math.isnan(row["low"]) else f" {span(row['low'], row['high'], places)}"
    size = f"{number(row['difference'], places, signed=True)} points{interval}"
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
