"""Points of a grid: a level for each factor, the recipe that they come to, and what tells it from the others."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dhm.fields import replace_at
from dhm.recipe import Recipe
from experiments.benchmarks import Benchmark
from experiments.factors import factor

Levels = Sequence[Any]


def recipe_at(benchmark: Benchmark, point: Mapping[str, Any], changes: Mapping[str, Any], recipe: str) -> Recipe:
    """The recipe of a point: the benchmark's (which of them, `recipe` says), with the changes and then the levels."""
    made = benchmark.base(point.get("arch", changes.get("arch")), recipe)
    for path, value in changes.items():
        if path != "arch":
            made = replace_at(made, path, value)
    # The method comes last: it drops what an arm does not have, whatever the other factors said about it.
    for name, level in sorted(point.items(), key=lambda item: item[0] == "method"):
        made = factor(name).apply(made, level)
    return made


def agrees(point: Mapping[str, Any], part: Mapping[str, Any]) -> bool:
    """Whether a point has all the levels of a part of one."""
    return all(name in point and point[name] == level for name, level in part.items())


def relevant(same: Sequence[Mapping[str, Any]], factors: Mapping[str, Levels]) -> dict[str, Any]:
    """The levels of points that came to one recipe: none for a factor of which every level did."""
    first = same[0]
    return {
        name: None if len(levels) > 1 and {repr(p[name]) for p in same} == {repr(v) for v in levels} else first[name]
        for name, levels in factors.items()
    }


def shared(point: Mapping[str, Any], baseline: Mapping[str, Any], marks: Collection[str]) -> int:
    """How many levels a point shares with a baseline, apart from those that make it one."""
    return sum(point[name] == baseline[name] for name in point if name not in marks)


def name_of(point: Mapping[str, Any]) -> str:
    """What a point is called: "dhm at 1+2"."""
    return " ".join(factor(name).label(level) for name, level in point.items() if level is not None)


def check_levels(grid: str, points: Mapping[Recipe, Sequence[Mapping[str, Any]]]) -> None:
    """See that any two levels of a factor make a difference somewhere.

    A level may be without effect at some points (plain training has no temperature); those points are one variant.
    Levels of which a grid excludes some points are not held against each other.

    Args:
        points: by the recipe that they come to.

    Raises:
        ValueError: two levels that come to the same recipe whatever the other factors say; names the variants.
    """
    for name in next(iter(points.values()))[0]:
        by_level: dict[str, dict[str, tuple[Recipe, Mapping[str, Any]]]] = {}
        for recipe, same in points.items():
            for point in same:
                others = repr([level for factor_name, level in point.items() if factor_name != name])
                by_level.setdefault(repr(point[name]), {})[others] = recipe, point
        for one, other in itertools.combinations(by_level.values(), 2):
            if one.keys() == other.keys() and all(one[others][0] == other[others][0] for others in one):
                left, right = next(iter(one.values()))[1], next(iter(other.values()))[1]
                raise ValueError(
                    f"grid {grid!r}: {name}={left[name]} and {name}={right[name]} come to the same, whatever the other "
                    f"factors: {name_of(left)!r} and {name_of(right)!r} are one recipe. Leave one of them out, with "
                    f"factors.{name}=[...]"
                )
