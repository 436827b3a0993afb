"""What a plan would take: its cells by state, with what they cost. Starts nothing and writes no record."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis import coverage, store
from dhm.cost import Cost
from dhm.data import DataSet
from experiments.costs import cost_of
from experiments.durations import Durations, makespan
from experiments.grid import Plan, Variant
from experiments.recording import records
from experiments.recording.provenance import code_hash
from experiments.scheduling.options import Options
from experiments.scheduling.selection import Selection, recorded, select
from experiments.search import Search
from experiments.stores import Stores

ELSEWHERE = "elsewhere"
STALE = "stale"
FAILED, MISSING = "failed", "missing"
STATES = ("done", FAILED, STALE, ELSEWHERE, MISSING)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trials:
    """How far the trials of a search have come.

    Args:
        counts: done, pruned, failed and missing ones.
        selection: what they select, if none is missing.
    """

    search: Search
    counts: Mapping[str, int]
    selection: Selection | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariantForecast:
    """What a variant would take.

    Args:
        states: one of `STATES` by seed; stale: done by other code; elsewhere: trained for another plan, to be copied.
        cost: of its network in training, for one image.
        seconds: that a cell takes in its slot; not a number before a first one has ended on these data.
    """

    variant: Variant
    states: Mapping[int, str]
    cost: Cost
    seconds: float

    def count(self, state: str) -> int:
        """How many of its cells are in a state."""
        return list(self.states.values()).count(state)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a plan would take.

    Args:
        trials: of its search, if it has one.
        a_trial: seconds that a trial takes which is not given up; as those of a cell; not a number without a search.
        slots: how many cells run at a time.
    """

    plan: Plan
    variants: Sequence[VariantForecast]
    trials: Trials | None
    a_trial: float
    slots: int
    store: str

    @property
    def counts(self) -> dict[str, int]:
        """How many cells are in each state."""
        return {state: sum(each.count(state) for each in self.variants) for state in STATES}

    @property
    def seconds(self) -> float:
        """Until all that is missing is trained, trials and the arm that they select among it; not a number where that
        cannot be told yet."""
        waiting = [each.seconds for each in self.variants for _ in range(each.count(MISSING))]
        if self.trials is not None:
            found = 0 if self.trials.selection is not None else len(self.plan.seeds)
            waiting += [self.a_trial] * (self.trials.counts[coverage.MISSING] + found)
        return makespan(waiting, self.slots)

    def document(self) -> dict[str, Any]:
        """For scripts; what cannot be told yet is none."""
        plan, trials = self.plan, self.trials
        return {
            "experiment": plan.experiment,
            "plan_id": plan.plan_id,
            "question": plan.grid.question,
            "overrides": list(plan.overrides),
            "data": plan.data_words,
            "store": self.store,
            "slots": self.slots,
            "cells": self.counts,
            "seconds": _told(self.seconds),
            "trials": None if trials is None else dict(trials.counts),
            "variants": [
                {
                    "name": each.variant.name,
                    "factors": dict(each.variant.factors),
                    "baseline": each.variant.baseline,
                    "cells": {str(seed): state for seed, state in each.states.items()},
                    "parameters": each.cost.parameters,
                    "flops": each.cost.flops,
                    "seconds": _told(each.seconds),
                }
                for each in self.variants
            ],
        }


def _told(seconds: float) -> float | None:
    return None if math.isnan(seconds) else seconds


def trials_ahead(plan: Plan, search: Search, stores: Stores) -> Trials:
    """How far the trials of a search have come, and what they select if none is missing."""
    try:
        frame = recorded(stores.tracking_uri, plan, search)
    except store.NoStoreError:
        found, selection = {}, None
    else:
        found, selection = frame["state"].value_counts().to_dict(), select(plan, search, frame, {})
    counts = {state: int(found.get(state, 0)) for state in (coverage.DONE, coverage.PRUNED, coverage.FAILED)}
    counts[coverage.MISSING] = max(0, search.trials - sum(counts.values()))
    return Trials(search=search, counts=counts, selection=None if counts[coverage.MISSING] else selection)


def forecast(
    plan: Plan, data: DataSet, trials: Trials | None, stores: Stores, *, slots: int, options: Options
) -> Forecast:
    """What a plan would take. Reads the store if there is one.

    Args:
        options: cells that are to be made anew are missing, and so are those elsewhere that lack what is measured.
    """
    try:
        runs = store.runs(stores.tracking_uri)
    except store.NoStoreError:
        runs = None
    found = {} if runs is None else records.of_plan(runs, plan)
    mine = {cell.cell_id for cell in plan.cells} - set(found)
    code = code_hash()
    elsewhere = set() if runs is None else mine & set(records.originals(runs, code, options.measured))
    costs = {variant.name: cost_of(variant.recipe, data, stores) for variant in plan.variants}
    durations = Durations(plan, data, stores)
    if runs is not None:
        durations.learn(runs)
    seconds = durations.expected()
    states: dict[str, dict[int, str]] = {variant.name: {} for variant in plan.variants}
    for cell in plan.cells:
        state = _state(found, elsewhere, cell.cell_id, code)
        states[cell.variant.name][cell.seed] = MISSING if state == options.retry else state
    variants = [
        VariantForecast(
            variant=variant,
            states=states[variant.name],
            cost=costs[variant.name],
            seconds=seconds(variant.recipe),
        )
        for variant in plan.variants
    ]
    return Forecast(
        plan=plan,
        variants=variants,
        trials=trials,
        a_trial=math.nan if trials is None else seconds(plan.base),
        slots=slots,
        store=str(stores.root.resolve()),
    )


def _state(found: dict[str, records.CellRecord], elsewhere: set[str], cell_id: str, code: str) -> str:
    record = found.get(cell_id)
    if cell_id in elsewhere:
        return ELSEWHERE
    if record is None or record.state not in (records.DONE, records.FAILED):
        return MISSING
    if record.state == records.FAILED:
        return FAILED
    return "done" if record.code == code else STALE
