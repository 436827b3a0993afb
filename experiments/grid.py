"""Grids: a question as factors over a base recipe, and the variants and cells that it comes to."""

import dataclasses
import functools
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from analysis import schema
from dhm.fields import identity, to_dict
from dhm.recipe import Recipe
from dhm.registry import Registry, unknown
from experiments.benchmarks import Benchmark
from experiments.points import Levels, agrees, check_levels, name_of, recipe_at, relevant, shared

MOST_POINTS = 10_000  # of a grid; far more than anybody trains


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """One point of a grid.

    Args:
        name: what differs from the others: "dhm at 1+2".
        factors: level by factor; none where the factor makes no difference to this point.
        baseline: name of the variant that it is compared with; none for a baseline.
    """

    name: str
    recipe: Recipe
    factors: Mapping[str, Any]
    baseline: str | None

    @property
    def role(self) -> str:
        """`baseline` or `arm`."""
        return schema.BASELINE if self.baseline is None else schema.ARM


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """A variant and a seed: what is trained once.

    Args:
        fingerprint: of the data's content.
    """

    variant: Variant
    seed: int
    fingerprint: str

    @functools.cached_property
    def recipe_id(self) -> str:
        """Hash of the recipe's non-default fields and the data's fingerprint."""
        return recipe_id(self.variant.recipe, self.fingerprint)

    @property
    def cell_id(self) -> str:
        """The recipe's hash and the seed: "3f9a2c41d0b7-s3"."""
        return f"{self.recipe_id}-s{self.seed}"

    @property
    def name(self) -> str:
        """What a run of it is called: "dhm at 1+2 s3"."""
        return f"{self.variant.name} s{self.seed}"

    @property
    def role(self) -> str:
        """What it is in its plan, as `schema.ROLE` has it."""
        return self.variant.role

    @property
    def parts(self) -> tuple[str, ...]:
        """The images that it is measured on, see `Runtime`."""
        return ("val", "test")

    @property
    def judged_by(self) -> str:
        """The metric that counts."""
        return schema.TEST_TOP1

    @property
    def tags(self) -> dict[str, str]:
        """By which its record is known."""
        return {schema.CELL_ID: self.cell_id, schema.ROLE: self.role}

    @property
    def document(self) -> dict[str, Any]:
        """All that is needed to train it again, as plain values."""
        return {
            "cell_id": self.cell_id,
            "recipe": to_dict(self.variant.recipe),
            "seed": self.seed,
            "data": self.fingerprint,
        }


def recipe_id(recipe: Recipe, fingerprint: str) -> str:
    """Identity of a recipe on data of some content, as 12 hexadecimal digits."""
    return digest({"recipe": identity(recipe), "data": fingerprint})


def digest(value: Any) -> str:
    """Hash of plain values, as 12 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """A question, and the recipes that answer it.

    Args:
        title: a few words.
        question: what the grid is to answer, a sentence.
        reading: how to read the comparison, Markdown.
        factors: levels by factor, in the order in which they stand in names; a function gets them from the benchmark.
        baseline: levels that mark the baselines; every other variant is compared with the baseline that shares the
            rest of its levels, or else with the first one.
        exclude: points to leave out, each given by some of its levels.
        base: changes to the benchmark's recipe, by dotted path.
        seeds: how many, by default.
        figures: modules of `analysis.figures`.
        diagnostics_every: epochs between measurements of how far heads agree, unless the command says otherwise; 0 for
            none.
        source: file that it was read from, if it is a user's own.
    """

    name: str
    title: str
    question: str
    reading: str = ""
    factors: Mapping[str, Levels | Callable[[Benchmark], Levels]]
    baseline: Mapping[str, Any]
    exclude: Sequence[Mapping[str, Any]] = ()
    base: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seeds: int = 5
    figures: Sequence[str] = ("training_curves",)
    diagnostics_every: int = 0
    source: str = ""

    def levels(self, benchmark: Benchmark, chosen: Mapping[str, Levels] | None = None) -> dict[str, list[Any]]:
        """The levels of every factor on a benchmark, with those that the user chose in their place.

        Raises:
            ValueError: levels for a factor that the grid does not have, or none at all.
        """
        levels = {name: list(given(benchmark) if callable(given) else given) for name, given in self.factors.items()}
        for name, wanted in (chosen or {}).items():
            if name not in levels:
                error = unknown(f"factor of grid {self.name}", name, levels)
                raise ValueError(f"{error}. To vary another field, write a grid of your own, in YAML (grid_dir=DIR)")
            levels[name] = list(wanted) if isinstance(wanted, list | tuple) else [wanted]
        for name, values in levels.items():
            if not values:
                raise ValueError(f"factor {name!r} of grid {self.name!r} has no levels")
        return levels

    def variants(
        self,
        benchmark: Benchmark,
        *,
        overrides: Mapping[str, Any] | None = None,
        levels: Mapping[str, Levels] | None = None,
        recipe: str = "documented",
    ) -> list[Variant]:
        """All points of the grid on a benchmark, the baselines first.

        Points whose recipes are equal are one variant: plain training has no branches, so it stands once whatever
        their positions.

        Args:
            overrides: changes to the base recipe, by dotted path.
            levels: in place of the grid's own, by factor.
            recipe: which of the benchmark's recipes.

        Raises:
            ValueError: a factor, level or field that does not exist, a network that cannot be built, an override of
                what the grid itself varies, or a baseline that no point has.
        """
        factors = self.levels(benchmark, levels)
        changes = {**self.base, **(overrides or {})}
        for path in changes:
            if path in factors:
                raise ValueError(f"{path} is a factor of grid {self.name!r}: choose its levels, factors.{path}=[...]")
        for excluded in self.exclude:
            for name, level in excluded.items():
                if level not in factors.get(name, ()):
                    raise ValueError(f"grid {self.name!r} excludes {name}={level}, which none of its points has")
        if math.prod(map(len, factors.values())) > MOST_POINTS:
            raise ValueError(f"grid {self.name!r} has more than {MOST_POINTS:,} points: leave levels out")
        points: dict[Recipe, list[dict[str, Any]]] = {}
        for values in itertools.product(*factors.values()):
            point = dict(zip(factors, values, strict=True))
            if not any(agrees(point, excluded) for excluded in self.exclude):
                points.setdefault(recipe_at(benchmark, point, changes, recipe), []).append(point)
        kept = {made: relevant(same, factors) for made, same in points.items()}
        if any(all(level is None for level in point.values()) for point in kept.values()):
            raise ValueError(f"grid {self.name!r}: its factors change nothing here, all points come to one recipe")
        variants = self._named(kept)
        check_levels(self.name, points)
        return variants

    def _named(self, points: Mapping[Recipe, Mapping[str, Any]]) -> list[Variant]:
        baselines = [point for point in points.values() if agrees(point, self.baseline)]
        if not baselines:
            marks = ", ".join(f"{name}={level}" for name, level in self.baseline.items())
            raise ValueError(
                f"grid {self.name!r} has no point with its baseline's levels ({marks}): every other one is compared "
                "with it, so keep these levels among the factors', and name no level that has no meaning to it"
            )
        variants = []
        for recipe, point in points.items():
            is_baseline = any(point is baseline for baseline in baselines)
            nearest = max(baselines, key=lambda baseline: shared(point, baseline, self.baseline))
            if not is_baseline:
                self._require_own(point, nearest)
            variants.append(
                Variant(
                    name=name_of(point),
                    recipe=recipe,
                    factors=point,
                    baseline=None if is_baseline else name_of(nearest),
                )
            )
        return sorted(variants, key=lambda variant: variant.baseline is not None)

    def _require_own(self, point: Mapping[str, Any], baseline: Mapping[str, Any]) -> None:
        """A ValueError where a point would be compared with a baseline that differs in another factor as well."""
        for name in self.factors:
            level, other = point[name], baseline[name]
            if name not in self.baseline and level is not None and other is not None and level != other:
                raise ValueError(
                    f"grid {self.name!r}: {name_of(point)!r} has no baseline of its own, and {name_of(baseline)!r} "
                    f"differs in {name} as well: keep a baseline with {name}={level}, or exclude the point"
                )


GRIDS: Registry[Grid] = Registry("grid")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A grid on a benchmark with its overrides: what the scheduler is asked for, and what is stored with the runs.

    Args:
        levels: of every factor.
        overrides: what the command changed in the base recipe and in the levels, in its own words; they make it
            another plan.
        extent: how far the command goes besides its seeds, and where it finds grid and images, in its own words.
        fingerprint: of the data's content.
        data_words: how many classes and images it has.
        base: the recipe before the factors.
        looks: numbers of seeds at which comparisons are looked at, where seeds are added look by look; else none.
        counts: how many of `seeds` a variant has, by name, the first ones; without it all.
        search: what a search looked for and found, see `analysis.schema`; none for a plain grid.
    """

    grid: Grid
    benchmark: Benchmark
    levels: Mapping[str, Levels]
    variants: Sequence[Variant]
    seeds: Sequence[int]
    overrides: Sequence[str]
    extent: Sequence[str]
    fingerprint: str
    data_words: str
    base: Recipe
    looks: Sequence[int] = ()
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    search: Mapping[str, Any] | None = None

    @functools.cached_property
    def plan_id(self) -> str:
        """Hash of the grid's name, the base recipe, the data, and the levels and the baseline that were chosen; more
        seeds are the same plan. Of several backbones each has a recipe of its own: there all that was said counts."""
        several = "arch" in self.levels
        chosen = [words for words in self.overrides if several or words.startswith(("factors.", "baseline."))]
        base = {"base": to_dict(self.base), "data": self.fingerprint, "levels": chosen}
        return digest({"grid": self.grid.name, "benchmark": self.benchmark.name, **base})[:8]

    @property
    def cells(self) -> list[Cell]:
        """Every variant at every seed, seed by seed, so that a study that is cut short has whole pairs."""
        return [cell for seed in self.seeds for cell in self.cells_of_seed(seed)]

    def cells_of_seed(self, seed: int) -> list[Cell]:
        """Every variant that has it, at one seed."""
        return [
            Cell(variant=variant, seed=seed, fingerprint=self.fingerprint)
            for variant in self.variants
            if not self.counts or seed in self.seeds[: self.counts[variant.name]]
        ]

    @property
    def experiment(self) -> str:
        """Name of the MLflow experiment."""
        return f"{self.benchmark.name}/{self.grid.name}"
