"""What a search selects: the setting of its best trial, which becomes an arm."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis import coverage, schema, store
from analysis.search import selected
from experiments.grid import Plan
from experiments.search import Search


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """What a search found.

    Args:
        trial: its name.
        error: on held-out training images, in percent.
        setting: value by field of the recipe.
        document: what the plan's record says of the search.
    """

    trial: str
    error: float
    setting: Mapping[str, float]
    document: Mapping[str, Any]


def recorded(uri: str, plan: Plan, search: Search) -> pd.DataFrame:
    """The trials of a search that have a record, see `analysis.store.trials`."""
    return store.trials(uri, search.search_id(plan), list(search.space))


def saved(plan: Plan, frame: pd.DataFrame) -> float:
    """The share of the trials' epochs that was not trained, because trials were given up; of those that are over."""
    over = frame[frame["state"].isin((coverage.DONE, coverage.PRUNED))]
    return 1 - float(over[schema.EPOCHS].sum()) / (len(over) * plan.base.epochs) if len(over) else 0.0


def select(plan: Plan, search: Search, frame: pd.DataFrame, importance: Mapping[str, float]) -> Selection | None:
    """The setting with the lowest error on held-out training images; none where no trial ended."""
    best = selected(frame)
    if best is None:
        return None
    number = int(best[schema.TRIAL_NUMBER])
    setting = {path: float(best[path]) for path in search.space}
    return Selection(
        trial=search.trial(plan, number, setting).name,
        error=float(best[schema.VAL_TOP1]),
        setting=setting,
        document=search.document(plan, number, importance),
    )
