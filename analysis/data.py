"""What tables and figures are built from: a plan, its records and its curves. Gaps are not averaged over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from analysis import coverage, schema
from analysis.plan import Plan

_NAMED = 8  # variants that a message names


class IncompleteError(ValueError):
    """A grid is not fit to be averaged; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class GridData:
    """A plan with its records. `curves` and `trials` are as `store.curves` and `store.trials` give them.

    `topologies` are the variants' networks, where a figure of the plan draws them.
    """

    plan: Plan
    runs: pd.DataFrame
    curves: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["run_id", "metric", "epoch", "value"]))
    trials: pd.DataFrame = field(default_factory=pd.DataFrame)
    topologies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    allow_incomplete: bool = False

    @property
    def searched(self) -> Mapping[str, Any]:
        """What the plan says of its search. ValueError where it has none."""
        if self.plan.search is None:
            raise ValueError(f"plan {self.plan.plan_id!r} of {self.plan.experiment} is no search: it has no trials")
        return self.plan.search

    @cached_property
    def coverage(self) -> pd.DataFrame:
        """Every cell and its state, see `analysis.coverage`."""
        return coverage.coverage(self.plan, self.runs)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Records of the cells that are done under the plan's recipes, one row each.

        IncompleteError where cells are absent or came from more than one code, unless `allow_incomplete`.
        """
        if self.remarks and not self.allow_incomplete:
            raise IncompleteError(
                f"{' '.join(self.remarks)} Run `{self.remedy}` to complete it, or build it as it is, with a "
                "caption that says so: allow_incomplete=true, or `python -m analysis.build --allow-incomplete`."
            )
        frame = self._usable
        if frame.empty:
            raise IncompleteError(f"No cell of {self.plan.experiment} is done. Run `{self.plan.command}` first.")
        return frame

    @cached_property
    def remarks(self) -> tuple[str, ...]:
        """What keeps the grid from being averaged quietly, in sentences; empty where nothing does."""
        frame = self.coverage
        told = []
        absent = frame[~frame["run_id"].isin(self._usable["run_id"])]
        if len(absent):
            told.append(f"{len(absent)} of {len(frame)} cells are absent: {_listing(absent)}.")
        codes = sorted(map(str, self._usable[schema.CODE].unique()))
        if len(codes) > 1:
            told.append(f"Cells were made by {len(codes)} codes ({', '.join(codes)}) and are not comparable.")
        if self.plan.searching:
            told.append(f"{coverage.SEARCHING.capitalize()}.")
        return tuple(told)

    @cached_property
    def dropped(self) -> tuple[str, ...]:
        """Variants that earlier selections of the plan's search added: tested as well, and no part of the plan now."""
        if self.plan.search is None or self.plan.searching:
            return ()
        tested = self.runs[(self.runs["status"] == "FINISHED") & ~self.runs[schema.VARIANT].isin(self.plan.names)]
        known = {variant.recipe_id for variant in self.plan.variants}
        return tuple(sorted(set(map(str, tested.loc[~tested[schema.RECIPE_ID].isin(known), schema.VARIANT]))))

    @property
    def remedy(self) -> str:
        """What to type to complete the grid: cells that failed, or that other code made, are run again when told to."""
        if self._usable[schema.CODE].nunique() > 1:
            return f"{self.plan.command} retry=stale"
        failed = (self.coverage["state"] == coverage.FAILED).any()
        return f"{self.plan.command} retry=failed" if failed else self.plan.command

    @property
    def warning(self) -> str:
        """The remarks in few words, for a figure; empty where there are none."""
        if not self.remarks:
            return ""
        absent = len(self.coverage) - len(self._usable)
        mixed = self._usable[schema.CODE].nunique() > 1
        told = [f"{absent} of {len(self.coverage)} cells absent"] * (absent > 0) + ["cells of different code"] * mixed
        told += [coverage.SEARCHING] * self.plan.searching
        return f"NOT COMPLETE: {', '.join(told)}"

    def of(self, variant: str) -> pd.DataFrame:
        """Return the usable records of one variant, by seed."""
        return self._by_variant.get(variant, self.cells.iloc[:0])

    def by_seed(self, variant: str, metric: str = schema.FINAL_TOP1) -> dict[int, float]:
        """Return a metric of one variant by seed, without what was not recorded."""
        records = self.of(variant)
        if metric not in records:
            return {}
        pairs = zip(records[schema.SEED], records[metric], strict=True)
        return {int(seed): float(value) for seed, value in pairs if pd.notna(value)}

    def run_ids(self, variants: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the run ids behind variants: {variant: {seed: run id}}."""
        return {
            name: dict(zip(map(str, self.of(name)[schema.SEED]), map(str, self.of(name)["run_id"]), strict=True))
            for name in variants
        }

    @cached_property
    def _by_variant(self) -> dict[str, pd.DataFrame]:
        """Once for all variants: a search through all cells for each would grow with their square."""
        return {str(name): own.sort_values(schema.SEED) for name, own in self.cells.groupby(schema.VARIANT)}

    @cached_property
    def _usable(self) -> pd.DataFrame:
        frame = self.coverage
        by_code = (frame["state"] == coverage.STALE) & (frame["why"] == "code")
        kept = frame.loc[(frame["state"] == coverage.DONE) | by_code, "run_id"]
        return self.runs[self.runs["run_id"].isin(kept)]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame as dictionaries."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _why(row: dict[str, Any]) -> str:
    return f"{row['state']}: {row['why']}" if row["why"] else str(row["state"])


def _listing(absent: pd.DataFrame) -> str:
    """Name cells, those of one variant and one reason together."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row in records(absent):
        groups.setdefault((row["variant"], _why(row)), []).append(str(row["seed"]))
    told = [
        f"{variant} seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)} ({why})"
        for (variant, why), seeds in groups.items()
    ]
    more = sum(map(len, list(groups.values())[_NAMED:]))
    return "; ".join(told[:_NAMED]) + (f"; and {more} more" if more else "")
