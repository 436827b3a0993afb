"""Searches: grids of which one arm is found first, by trials that look at held-out training images alone."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner

from analysis import schema
from dhm.cost import on_meta
from dhm.fields import replace_at
from dhm.losses import weights
from dhm.recipe import Recipe
from dhm.registry import unknown
from experiments.benchmarks import Benchmark
from experiments.factors import factor
from experiments.grid import Cell, Grid, Plan, Variant, digest, recipe_id
from experiments.points import Levels, agrees

HELD_OUT = "data.val_fraction"
ETA = 3  # Hyperband keeps one trial of so many at each of its steps

PRUNERS: dict[str, Callable[[int], BasePruner]] = {
    # Not before five trials have ended and half of the epochs is over: at a high learning rate errors tell little.
    "median": lambda epochs: MedianPruner(n_startup_trials=5, n_warmup_steps=(epochs + 1) // 2),
    "hyperband": lambda epochs: HyperbandPruner(
        min_resource=max(1, epochs // ETA**2), max_resource=epochs, reduction_factor=ETA
    ),
    "none": lambda epochs: NopPruner(),
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """Where a field of the recipe is searched.

    Args:
        log: whether it is searched in logarithms.
    """

    low: float
    high: float
    log: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial(Cell):
    """A setting that is tried. It is trained like a cell, and is none: its test error is never looked at.

    Args:
        variant: its factors are the setting.
        number: from 0, in the order in which settings were proposed.
        search_id: of the search that it belongs to.
    """

    number: int
    search_id: str

    @property
    def cell_id(self) -> str:
        """Apart from that of a cell with the same recipe: they share neither checkpoint nor record."""
        return f"{super().cell_id}-trial"

    @property
    def name(self) -> str:
        """What its run is called: "trial 7 alpha 0.735 T 2.1"."""
        return f"trial {self.number} {self.variant.name}"

    @property
    def role(self) -> str:
        """See `Cell.role`."""
        return schema.TRIAL

    @property
    def parts(self) -> tuple[str, ...]:
        """Not the test images."""
        return ("val",)

    @property
    def judged_by(self) -> str:
        """The error on held-out training images."""
        return schema.VAL_TOP1

    @property
    def tags(self) -> dict[str, str]:
        """By which its record is known, and by which nobody takes it for a cell's."""
        return {
            schema.TRIAL_ID: self.cell_id,
            schema.TRIAL_NUMBER: str(self.number),
            schema.SEARCH: self.search_id,
            schema.ROLE: self.role,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search(Grid):
    """A grid one of whose arms is the setting that a search selects.

    The trials train on a part of the training images and are judged by the rest (`data.val_fraction` in `base`); the
    grid itself trains on all of them, and looks at the test images, once.

    Args:
        space: where it is searched, by the dotted path of a recipe field.
        arm: levels that mark the variant whose fields are searched; what is found is held against it.
        trials: how many, by default.
        seed: of the trials. None of the grid's own, so that the luck of the seed by which a setting was selected is
            no part of the comparison.
        pruner: which trials are given up, of `PRUNERS`.
        found: the setting that was selected, once there is one.
    """

    space: Mapping[str, Range]
    arm: Mapping[str, Any]
    trials: int = 40
    seed: int = 1000
    pruner: str = "median"
    found: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def variants(
        self,
        benchmark: Benchmark,
        *,
        overrides: Mapping[str, Any] | None = None,
        levels: Mapping[str, Levels] | None = None,
        recipe: str = "documented",
    ) -> list[Variant]:
        """See `Grid.variants`; all training images are trained on, and what was found is compared with the arm."""
        self._check()
        whole = {**(overrides or {}), HELD_OUT: 0.0}
        made = super().variants(benchmark, overrides=whole, levels=levels, recipe=recipe)
        settings = [v for v in made if agrees(v.factors, self.arm)]
        found = [v for v in settings if all(_at(v.recipe, path) == value for path, value in self.found.items())]
        own = [v.name for v in settings if v not in found]
        if not own:  # nothing is found, or the arm's own setting
            return made
        return [dataclasses.replace(v, baseline=own[0]) if v in found else v for v in made]

    def with_found(self, plan: Plan, setting: Mapping[str, float]) -> "Search":
        """The grid with the found setting as one more arm, beside the one that it is held against."""
        pairs = {path: (float(_at(self._arm(plan), path)), value) for path, value in setting.items()}
        reference, found = (tuple(pair[side] for pair in pairs.values()) for side in (0, 1))
        crossed = [
            dict(zip(pairs, point, strict=True))
            for point in itertools.product(*pairs.values())
            if point not in (reference, found)
        ]
        factors = {**plan.levels, **pairs}
        return dataclasses.replace(self, factors=factors, exclude=[*self.exclude, *crossed], found=setting)

    def trial(self, plan: Plan, number: int, setting: Mapping[str, float]) -> Trial:
        """A setting as what is trained for it."""
        recipe = self._recipe(plan, setting)
        name = " ".join(factor(path).label(value) for path, value in setting.items())
        variant = Variant(name=name, recipe=recipe, factors=dict(setting), baseline=None)
        search_id = self.search_id(plan)
        return Trial(variant=variant, seed=self.seed, fingerprint=plan.fingerprint, number=number, search_id=search_id)

    def search_id(self, plan: Plan) -> str:
        """Identity of what is searched, where, and on which data. More trials of it do not make another search."""
        lowest = {path: found.low for path, found in self.space.items()}
        space = {path: [found.low, found.high, found.log] for path, found in self.space.items()}
        recipe = recipe_id(self._recipe(plan, lowest), plan.fingerprint)
        return digest({"plan": plan.plan_id, "recipe": recipe, "space": space, "seed": self.seed})

    def document(self, plan: Plan, selected: int | None, importance: Mapping[str, float]) -> dict[str, Any]:
        """What the plan's record says of the search; see `analysis.schema`."""
        return {
            "search_id": self.search_id(plan),
            "space": {path: [found.low, found.high, found.log] for path, found in self.space.items()},
            "seed": self.seed,
            "held_out": plan.base.data.val_fraction,
            "pruner": self.pruner,
            "trials": self.trials,
            "selected": selected,
            "importance": dict(importance),
        }

    def check_plan(self, plan: Plan) -> None:
        """Raise a ValueError where trials cannot be made or judged on the plan's benchmark."""
        share = plan.base.data.val_fraction
        if share <= 0:
            raise ValueError(
                f"search {self.name!r} judges by held-out training images, and {HELD_OUT}={share:g} leaves none: "
                f"give a share, such as {HELD_OUT}=0.2"
            )
        if self.seed in plan.seeds:
            raise ValueError(f"seed {self.seed} is that of the trials of search {self.name!r}: leave it out of seeds")
        ends = [self._recipe(plan, {p: getattr(r, end) for p, r in self.space.items()}) for end in ("low", "high")]
        for path, found in self.space.items():
            if replace_at(ends[0], path, found.high) == ends[0]:
                raise ValueError(f"search {self.name!r}: {path} changes nothing in its arm, {dict(self.arm)}")
        for recipe in ends:
            on_meta(recipe)
            weights(recipe)

    def _recipe(self, plan: Plan, setting: Mapping[str, float]) -> Recipe:
        recipe = replace_at(self._arm(plan), HELD_OUT, plan.base.data.val_fraction)
        for path, value in setting.items():
            recipe = replace_at(recipe, path, value)
        return recipe

    def _arm(self, plan: Plan) -> Recipe:
        arms = [v for v in plan.variants if agrees(v.factors, self.arm)]
        if len(arms) != 1:
            raise ValueError(
                f"search {self.name!r}: its arm {dict(self.arm)} is {len(arms)} of the variants "
                f"{', '.join(v.name for v in plan.variants)}; it must be one"
            )
        return arms[0].recipe

    def _check(self) -> None:
        if self.trials < 1:
            raise ValueError(f"study.trials={self.trials}: must be at least 1")
        if self.pruner not in PRUNERS:
            raise unknown(f"pruner of search {self.name!r}", self.pruner, PRUNERS)
        if not self.space:
            raise ValueError(f"search {self.name!r} has an empty space")
        for path, found in self.space.items():
            if not found.low < found.high:
                raise ValueError(f"search {self.name!r}: {path} from {found.low:g} to {found.high:g} is no range")
            if found.log and found.low <= 0:
                raise ValueError(f"search {self.name!r}: {path} from {found.low:g} has no logarithm; begin above 0")


def _at(recipe: Recipe, path: str) -> Any:
    return functools.reduce(getattr, path.split("."), recipe)


def distribution(found: Range) -> optuna.distributions.FloatDistribution:
    """A range as Optuna has it."""
    return optuna.distributions.FloatDistribution(found.low, found.high, log=found.log)
