"""A plan as analysis sees it: the cells of a grid over one base recipe, their names and their baseline."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from analysis.schema import BASELINE

Level: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True)
class VariantRecord:
    """One point of a grid. A factor is None where it does not apply."""

    name: str
    recipe_id: str
    role: str
    method: str
    arch: str
    factors: Mapping[str, Level]
    baseline: str | None = None  # what it is compared with, where the plan says so


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a grid as it was last run.

    Attributes:
        updated: in seconds since the epoch.
        place: what a command says to find the store that this was read from; nothing for the usual one. No part of the
            record.
    """

    plan_id: str
    grid: str
    benchmark: str
    title: str
    question: str
    reading: str
    overrides: tuple[str, ...]
    extent: tuple[str, ...]
    data_words: str
    factors: Mapping[str, tuple[Level, ...]]
    baseline: str
    seeds: tuple[int, ...]
    code: str
    data: str
    updated: float
    figures: tuple[str, ...]
    variants: tuple[VariantRecord, ...]
    experiment: str
    experiment_id: str
    search: Mapping[str, Any] | None = None  # as the schema has it; none for a plain grid
    sequential: Mapping[str, Any] | None = None  # as the schema has it; none where all variants have all seeds
    place: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def from_record(
        cls, record: Mapping[str, Any], *, experiment: str, experiment_id: str, place: Sequence[str] = ()
    ) -> "Plan":
        """Read a decoded record. ValueError where a key is missing or the baseline is no variant."""
        try:
            plan = cls(
                plan_id=record["plan_id"],
                grid=record["grid"],
                benchmark=record["benchmark"],
                title=record["title"],
                question=record["question"],
                reading=record["reading"],
                overrides=tuple(record["overrides"]),
                extent=tuple(record["extent"]),
                data_words=str(record["data_words"]),
                factors={name: tuple(levels) for name, levels in record["factors"].items()},
                baseline=record["baseline"],
                seeds=tuple(int(seed) for seed in record["seeds"]),
                code=record["code"],
                data=record["data"],
                updated=float(record["updated"]),
                figures=tuple(record["figures"]),
                variants=tuple(VariantRecord(**_variant_fields(item)) for item in record["variants"]),
                experiment=experiment,
                experiment_id=experiment_id,
                search=record.get("search"),
                sequential=record.get("sequential"),
                place=tuple(place),
            )
        except KeyError as missing:
            raise ValueError(
                f"the plan recorded with experiment {experiment!r} has no {missing}: it is of another version. "
                "Run its grid again to write it anew."
            ) from None
        if plan.baseline not in plan.names:
            raise ValueError(f"baseline {plan.baseline!r} of plan {plan.plan_id!r} is none of {list(plan.names)}")
        return plan

    @property
    def content(self) -> dict[str, Any]:
        """What of it decides about a table or a figure, as plain values: not where it is, nor when it was last run."""
        return {name: value for name, value in asdict(self).items() if name not in ("updated", "place")}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the variants in the grid's order."""
        return tuple(variant.name for variant in self.variants)

    @property
    def words(self) -> str:
        """The plan for a person: its experiment, and what tells it from other plans of the grid."""
        return f"{self.experiment} ({' '.join(self.overrides)})" if self.overrides else self.experiment

    @property
    def ordered(self) -> tuple[VariantRecord, ...]:
        """The variants in the grid's order, baselines first."""
        first = {self.baseline}
        return tuple(sorted(self.variants, key=lambda v: (v.name not in first, v.role != BASELINE)))

    @property
    def command(self) -> str:
        """What to type to do the cells that are not done."""
        counted = self.seeds == tuple(range(len(self.seeds)))
        seeds = len(self.seeds) if counted else str(list(self.seeds)).replace(" ", "")
        if self.sequential is not None:
            seeds = "auto"
        words = [
            f"grid={self.grid}",
            f"benchmark={self.benchmark}",
            *self.overrides,
            *self.extent,
            f"seeds={seeds}",
            *self.place,
        ]
        return "python -m experiments.run " + shlex.join(words)

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of seeds at which comparisons are looked at; empty where seeds are fixed."""
        return tuple(self.sequential["looks"]) if self.sequential is not None else ()

    def seeds_of(self, name: str) -> tuple[int, ...]:
        """Return the seeds of a variant, in the order in which they were added."""
        return self.seeds if self.sequential is None else self.seeds[: self.sequential["seeds"][name]]

    def variant(self, name: str) -> VariantRecord:
        """Return a variant by its name. ValueError lists the names."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise ValueError(f"no variant {name!r} in plan {self.plan_id!r}; there are {', '.join(self.names)}")

    @property
    def searching(self) -> bool:
        """Whether an arm is still to be found by a search."""
        return self.search is not None and self.search["selected"] is None

    def is_arm(self, name: str) -> bool:
        """Say whether a variant is compared with a baseline, rather than being one."""
        return name != self.baseline and self.variant(name).role != BASELINE

    def baseline_of(self, name: str) -> str:
        """Return what a variant is compared with; a baseline, with itself.

        That is what the plan says; where it does not, the baseline with the variant's own backbone, or else the
        plan's baseline.
        """
        if not self.is_arm(name):
            return name
        variant = self.variant(name)
        if variant.baseline in self.names:
            return str(variant.baseline)
        arch = variant.arch
        own = [v.name for v in self.variants if v.role == BASELINE and v.arch == arch]
        return own[0] if own and self.baseline not in own else self.baseline

    def levels(self, factor: str) -> tuple[Level, ...]:
        """Return a factor's levels without None, in the grid's order."""
        return tuple(level for level in self.factors.get(factor, ()) if level is not None)


def _variant_fields(item: Mapping[str, Any]) -> dict[str, Any]:
    needed = {key: item[key] for key in ("name", "recipe_id", "role", "method", "arch", "factors")}
    return needed | {"baseline": item.get("baseline")}


def folder(plan: Plan, plans: Sequence[Plan]) -> str:
    """Return the folder of a plan's files under the output: BENCHMARK/GRID or BENCHMARK/GRID-PLAN_ID.

    The id is added where the command line changed the recipe, and to all but the latest of the plans that
    share a grid without such a change (the grid's own recipe changed between them).
    """
    peers = [p for p in plans if (p.benchmark, p.grid) == (plan.benchmark, plan.grid) and not p.overrides]
    latest = max(peers, key=lambda p: (p.updated, p.plan_id), default=plan)
    plain = not plan.overrides and plan.plan_id == latest.plan_id
    name = plan.grid if plain else f"{plan.grid}-{plan.plan_id}"
    return f"{_safe(plan.benchmark)}/{_safe(name)}"


def _safe(name: str) -> str:
    return re.sub(r"[^\w.+=-]+", "-", name).lstrip(".") or "unnamed"
