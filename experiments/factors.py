"""Factors: what a grid may vary, how a level changes a recipe, and how it reads in a name.

A factor is one of those registered here, or the dotted path of any recipe field (`mimic.alpha`, `optim.lr`).
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from dhm.backbones import ARCHITECTURES
from dhm.branches import default_branch
from dhm.cost import on_meta
from dhm.fields import field_types, replace_at
from dhm.recipe import MimicSpec, Recipe, TermSpec
from dhm.registry import Registry, unknown

METHODS = ("plain", "dsl", "dhm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Factor:
    """How a level of a factor changes a recipe.

    Args:
        apply: recipe and level to the changed recipe; a level that makes no sense is a ValueError.
        label: a level in the name of a run: "at 1+2".
        summary: one line.
    """

    apply: Callable[[Recipe, Any], Recipe]
    label: Callable[[Any], str]
    summary: str


def method(recipe: Recipe, level: Any) -> Recipe:
    """`plain` drops the branches and the mimicking, `dsl` the mimicking alone, `dhm` keeps both."""
    if level not in METHODS:
        raise unknown("method", level, METHODS)
    if level == "plain":
        return dataclasses.replace(recipe, branches=(), mimic=None)
    if level == "dsl":
        return dataclasses.replace(recipe, mimic=None)
    if not recipe.branches:  # none forks: a fork probability of 0
        return recipe
    return dataclasses.replace(recipe, mimic=recipe.mimic or MimicSpec())


def positions(recipe: Recipe, level: Any) -> Recipe:
    """Branches at the nodes named: `"1+2"` after stages 1 and 2, `"2.3"` after the third block of stage 2.

    They are the recipe's own where it has them, else the architecture's.
    """
    if isinstance(level, float):
        raise ValueError(
            f"positions {level}: read as a number, so that 2.10 is 2.1; put it in quotes, in a shell in two pairs of "
            f"them: \"factors.positions=['{level}']\""
        )
    text = str(level)
    parts = text.split("+")
    if not all(re.fullmatch(r"\d+(\.\d+)?", part) for part in parts) or len(set(parts)) < len(parts):
        raise ValueError(
            f"positions {text!r}: give stages with a plus between them, such as '1+2'; '2.3' is a block inside a stage"
        )
    architecture = ARCHITECTURES.get(recipe.arch)
    depths = tuple(info.depth for info in on_meta(method(recipe, "plain")).backbone.info)
    own = {(branch.after, branch.block): branch for branch in recipe.branches}
    nodes = [(int(stage), int(block or 0)) for stage, _, block in (part.partition(".") for part in parts)]
    branches = tuple(own.get(node) or default_branch(architecture, depths, *node) for node in nodes)
    return dataclasses.replace(recipe, branches=branches)


def branch_depth(recipe: Recipe, level: Any) -> Recipe:
    """The blocks of every branch times a factor, rounded, at least one a stage."""
    if isinstance(level, bool) or not isinstance(level, int | float) or level <= 0:
        raise ValueError(f"branch_depth {level!r}: give a factor above 0 on the branches' blocks")
    branches = tuple(
        dataclasses.replace(branch, blocks=tuple(max(1, round(blocks * level)) for blocks in branch.blocks))
        for branch in recipe.branches
    )
    return dataclasses.replace(recipe, branches=branches)


def fork_probability(recipe: Recipe, level: Any) -> Recipe:
    """The probability with which every branch forks at a step; 0 is plain training."""
    branches = tuple(replace_at(branch, "fork_probability", level) for branch in recipe.branches)
    return dataclasses.replace(recipe, branches=branches)


def term(recipe: Recipe, level: Any) -> Recipe:
    """One more term of the objective, by its name or as `"NAME:WEIGHT"`; `"none"` is none."""
    name, colon, weight = str(level).partition(":")
    if name == "none":
        return recipe
    try:
        added = TermSpec(name=name, weight=float(weight) if colon else 1.0)
    except ValueError:
        raise ValueError(
            f"term {level!r}: give a term's name, or 'NAME:WEIGHT' such as 'label_smoothing:0.1'"
        ) from None
    return dataclasses.replace(recipe, terms=(*recipe.terms, added))


def arch(recipe: Recipe, level: Any) -> Recipe:
    """The backbone. A grid begins from that backbone's own recipe (`Grid.variants`), so nothing is left to change."""
    assert recipe.arch == level, "the base recipe is made for the backbone"
    return recipe


FACTORS: Registry[Factor] = Registry("factor")

FACTORS.register("arch", Factor(apply=arch, label=str, summary="the backbone, with its own recipe and side branches"))
FACTORS.register("method", Factor(apply=method, label=str, summary="plain, dsl or dhm"))
FACTORS.register(
    "positions",
    Factor(
        apply=positions,
        label=lambda level: f"at {level}",
        summary="stages that carry side branches: '1', '2', '1+2'",
    ),
)
FACTORS.register(
    "branch_depth",
    Factor(
        apply=branch_depth,
        label=lambda level: f"branches x{level:g}",
        summary="a factor on the blocks of every side branch",
    ),
)

FACTORS.register(
    "fork_probability",
    Factor(
        apply=fork_probability,
        label=lambda level: f"p {level:g}",
        summary="how likely every side branch is to fork at a step",
    ),
)

FACTORS.register(
    "term",
    Factor(
        apply=term,
        label=lambda level: f"with {level}".replace(":", " ").replace("with none", "as it is"),
        summary="one more term of the objective: none, 'NAME' or 'NAME:WEIGHT'",
    ),
)

SHORT = {"mimic.temperature": "T"}


def factor(name: str) -> Factor:
    """A factor by its name or by the path of a recipe field. An unknown one is a ValueError."""
    if name in FACTORS:
        return FACTORS.get(name)
    if name.split(".", maxsplit=1)[0] not in field_types(Recipe):
        raise unknown("factor", name, {**dict.fromkeys(FACTORS), **dict.fromkeys(field_types(Recipe))})
    short = SHORT.get(name, name.rpartition(".")[2].replace("_", " "))
    return Factor(
        apply=lambda recipe, level: replace_at(recipe, name, level),
        label=lambda level: f"{short} {level:g}" if isinstance(level, float) else f"{short} {level}",
        summary=f"the recipe's {name}",
    )
