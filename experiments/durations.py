"""How long cells take in their slots, from start to end, learnt from those that ended."""

import collections
import functools
import heapq
import math
from collections.abc import Callable, Iterable
from statistics import fmean, median

import pandas as pd

from analysis import schema
from dhm.data import DataSet
from dhm.recipe import Recipe
from experiments.costs import images_of, operations_of
from experiments.grid import Plan, recipe_id
from experiments.recording.records import DONE
from experiments.stores import Stores

LATEST = 999  # cells by which it is judged what a cell takes besides its training


class Durations:
    """Seconds that cells of a plan take in their slots.

    A cell trains for as long as cells of its recipe did: those that ended here, or else those that are recorded, at the
    pace of what ended here. Where nothing of a recipe is known, it does as many operations a second as the others. To
    this comes what a cell takes besides (its process, data, record): that is the same for all, and as a median, since
    the first cells wait for what the others find ready.
    """

    def __init__(self, plan: Plan, data: DataSet, stores: Stores) -> None:
        self._plan, self._images = plan, images_of(plan.base, data)
        self._work = functools.cache(lambda recipe: operations_of(recipe, data, stores))
        self._recorded: dict[Recipe, float] = {}
        self._here: dict[Recipe, list[float]] = {}
        self._under_way: dict[Recipe, float] = {}
        self._beside: collections.deque[float] = collections.deque(maxlen=LATEST)
        self._beside_recorded = 0.0
        self._others = math.nan  # seconds an operation, by records of whatever recipes

    def learn(self, runs: pd.DataFrame) -> None:
        """Learn from the record of all plans on these data. A run that lacks a number teaches less.

        Args:
            runs: `analysis.store.runs`.
        """
        done = runs[(runs["status"] == DONE) & (runs[schema.DATA] == self._plan.fingerprint)]
        if done.empty or schema.SECONDS not in done:
            return
        took = done.groupby(schema.RECIPE_ID)[schema.SECONDS].mean().dropna().to_dict()
        identities = {
            variant.recipe: recipe_id(variant.recipe, self._plan.fingerprint) for variant in self._plan.variants
        }
        self._recorded = {recipe: took[identity] for recipe, identity in identities.items() if identity in took}
        if schema.FLOPS in done:
            known = done.dropna(subset=[schema.SECONDS, schema.FLOPS, schema.EPOCHS])
            operations = float((known[schema.FLOPS] * known[schema.EPOCHS]).sum()) * 1e6 * self._images
            self._others = float(known[schema.SECONDS].sum()) / operations if operations else math.nan
        # In one attempt, and not copied: a copy begins when it is made and ends when its original did.
        whole = done[(done[schema.ATTEMPTS] == 1) & done[schema.SOURCE_RUN].isna()]
        beside = ((whole["end_time"] - whole["start_time"]).dt.total_seconds() - whole[schema.SECONDS]).dropna()
        self._beside_recorded = max(0.0, float(beside.median())) if len(beside) else 0.0

    def under_way(self, recipe: Recipe, training: float) -> None:
        """A cell will have trained for so many seconds at its end, if it goes on as it has begun."""
        self._under_way[recipe] = training

    def ended(self, recipe: Recipe, *, training: float, beside: float) -> None:
        """A cell ended that trained for so many seconds, and took so many besides."""
        self._here.setdefault(recipe, []).append(training)
        self._beside.append(beside)

    def expected(self) -> Callable[[Recipe], float]:
        """What a cell of a recipe takes, as far as it is known by now; not a number before anything is."""
        here = {recipe: fmean(seconds) for recipe, seconds in self._here.items()}
        both = here.keys() & self._recorded.keys()
        pace = sum(map(here.__getitem__, both)) / sum(map(self._recorded.__getitem__, both)) if both else 1.0
        recorded = {recipe: seconds * pace for recipe, seconds in self._recorded.items()}
        training = {**recorded, **self._under_way, **here}
        rate = sum(training.values()) / sum(map(self._work, training)) if training else self._others
        beside = median(self._beside) if self._beside else self._beside_recorded
        return lambda recipe: (training[recipe] if recipe in training else rate * self._work(recipe)) + beside


def makespan(waiting: Iterable[float], slots: int, busy: Iterable[float] = ()) -> float:
    """Seconds until all have ended, the longest begun first; not a number where one of them is none.

    Args:
        waiting: seconds of each that is to begin.
        busy: seconds for which slots are still busy.
    """
    free, longest_first = [*busy], sorted(waiting, reverse=True)
    free += [0.0] * (slots - len(free))
    if any(map(math.isnan, (*longest_first, *free))):
        return math.nan
    heapq.heapify(free)
    for seconds in longest_first:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)
