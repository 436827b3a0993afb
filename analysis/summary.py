"""Answers a grid's question in a few plain lines, for a terminal."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis import coverage, sequential, stats
from analysis.answer import answer
from analysis.data import GridData, IncompleteError, records
from analysis.effects import effects
from analysis.plan import Plan
from analysis.search import earlier_words
from analysis.tables import agreement
from analysis.tables.comparison import span
from analysis.tables.table import decimals, difference_decimals, number, spread

_SHOWN = 12  # arms that a terminal can list


def summary(plan: Plan, runs: pd.DataFrame, *, allow_incomplete: bool = False) -> str:
    """Return the answer as far as the records carry it. It gives no mean where the grid is not complete."""
    grid = GridData(plan=plan, runs=runs, allow_incomplete=allow_incomplete)
    numbers = sorted({len(plan.seeds_of(name)) for name in plan.names})
    seeds = f"{numbers[0]} to {numbers[-1]} seeds" if len(numbers) > 1 else _seeds(numbers[0])
    head = f"{plan.title}: {len(plan.variants)} variants × {seeds} on {plan.benchmark}."
    told = [head, *([plan.question] if plan.question else [])]
    try:
        rows = records(effects(grid))
    except IncompleteError:
        return "\n".join([*told, *_gaps(grid)])
    if grid.remarks:
        told.append(f"NOT COMPLETE: {' '.join(grid.remarks)}")
    places = decimals(row["sd"] for row in rows)
    arms = [row for row in rows if row["against"] is not None]
    finer = difference_decimals(places, (row["sd_difference"] for row in arms))
    told += filter(None, [answer(arms, finer, len(plan.seeds), grown=bool(plan.looks))])
    if agreement.applies(plan):
        told.append("Compared are test errors; how far heads agree, and how arms differ in it, is in `agreement`.")
    for row in rows:
        if row["against"] is None:
            told.append(f"Baseline {row['variant']}: {spread(row['mean'], row['sd'], places)} % top-1 error.")
    shown = arms
    if len(arms) > _SHOWN:
        shown = [row for row in arms if row["verdict"] in (stats.BETTER, stats.WORSE)]
        shown = sorted(shown, key=lambda row: float(row["difference"]))[:_SHOWN]
    several = len({row["against"] for row in arms}) > 1
    width = max((len(row["variant"]) for row in shown), default=0)
    if shown:
        to = "the baseline named" if several else shown[0]["against"]
        interval = "" if all(math.isnan(row["low"]) for row in shown) else " [95 % interval]"
        told.append(f"Difference to {to} in percentage points{interval}; below zero is better:")
    told += [_line(row, finer, width, several) for row in shown]
    if len(shown) < len(arms):
        told.append(f"  and {len(arms) - len(shown)} more, see the table.")
    told += filter(None, [earlier_words(grid.dropped)])
    return "\n".join([*told, *_trust(plan, arms)])


def _line(row: dict[str, Any], places: int, width: int, several: bool) -> str:
    against = f" (to {row['against']})" if several else ""
    name = f"  {row['variant']:<{width}}  "
    difference = row["difference"]
    if math.isnan(difference):
        return f"{name}no seed in common with {row['against']}"
    interval = "" if math.isnan(row["low"]) else f" {span(row['low'], row['high'], places)}"
    return f"{name}{number(difference, places, signed=True)}{interval}: {row['verdict']}{against}"


def _seeds(number: int) -> str:
    return f"{number} seed{'s' if number != 1 else ''}"


def _trust(plan: Plan, arms: Sequence[dict[str, Any]]) -> list[str]:
    """Say how verdicts came about, and by which rule seeds were added."""
    if not arms:
        return []
    compared = sum(not math.isnan(row["p"]) for row in arms)
    if not compared and len(plan.seeds) < stats.MIN_PAIRS:
        return [f"With {_seeds(len(plan.seeds))} no difference can be told from chance; use {stats.MIN_PAIRS} or more."]
    if not compared:
        return [
            f"No arm has {stats.MIN_PAIRS} seeds in common with its baseline: no difference can be told from chance."
        ]
    told = [
        "Differences are paired by seed; verdicts are corrected for "
        f"{compared} comparison{'s' if compared != 1 else ''} (Holm)."
    ]
    if all(row["verdict"] == stats.NO_DIFFERENCE for row in arms):
        told.append("That no difference is shown does not show that there is none.")
    return [*told, sequential.words(plan.looks)] if plan.looks else told


def _gaps(grid: GridData) -> list[str]:
    told = [coverage.sentence(grid.plan, grid.coverage), "No means and no verdicts before it is complete."]
    told += [f"  {remark}" for remark in grid.remarks]
    return [*told, f"To complete it: {grid.remedy}"]
