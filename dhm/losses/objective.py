"""The objective: cross-entropy of every head, mimicking between every ordered pair of heads, and terms by name.

    L = sum_i CE(z_i, y)  +  alpha * sum_i sum_{j != i} T^2 * KL( sg[p_j] || p_i )  +  sum_k w_k * term_k

with heads i, logits z_i, p_i = softmax(z_i / T) and sg a stopped gradient (released cifar.py and utils/metric.py).
Every head is a student and a teacher; a teacher gets no gradient. The last sum is over `Recipe.terms`, none by default.
"""

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from dhm.losses.base import TERMS, Terms
from dhm.network import Heads
from dhm.recipe import Recipe
from dhm.steps import Step, whole


class Loss(NamedTuple):
    """The scalar that is differentiated, and the terms (n,) that it is made of, detached and before their weights."""

    total: Tensor
    terms: Terms


def objective(heads: Heads, labels: Tensor, recipe: Recipe, step: Step | None = None) -> Loss:
    """The loss of a batch.

    A term of weight 0 is measured and adds nothing, so that DHM with alpha = 0 is deep supervision bit for bit.

    Args:
        heads: logits (B, C) of every head that the step has.
        labels: classes (B,).
        step: the step of training; without one every head is there, and no warm-up.
    """
    step = step or whole(recipe)
    logits = heads.stacked()
    weighted: list[Tensor] = []
    parts: list[Terms] = []
    for name, weight in weights(recipe).items():
        if name == "mimic":
            weight = weight * step.warmth  # noqa: PLW2901
            if len(step.heads) == 1:
                continue
        with torch.set_grad_enabled(weight != 0 and torch.is_grad_enabled()):
            part = _checked(name, TERMS.get(name)(logits, labels, step))
        if weight != 0:
            total = (part.values if part.scale is None else part.values * part.scale).sum()
            weighted.append(total if weight == 1 else weight * total)
        parts.append(part)
    names = tuple(name for part in parts for name in part.names)
    values = torch.cat([part.values for part in parts]).detach()
    return Loss(functools.reduce(torch.add, weighted), Terms(names, values))


def _checked(name: str, part: Terms) -> Terms:
    """What a term returned, if it is what a term is to return. A ValueError otherwise."""
    if isinstance(part, Terms) and isinstance(part.values, Tensor) and part.values.shape == (len(part.names),):
        return part
    found = type(part).__name__
    if isinstance(part, Terms):
        shape = tuple(part.values.shape) if isinstance(part.values, Tensor) else type(part.values).__name__
        found = f"{len(part.names)} name(s) and values of {shape}"
    raise ValueError(
        f"loss term {name!r} is to return Terms(names, values) with one value a name, each a mean over the batch; "
        f"it returned {found}: see of_each_head in dhm/losses/base.py"
    )


@functools.cache
def weights(recipe: Recipe) -> Mapping[str, float]:
    """The kinds of term that a recipe asks for, and their weights. A term that is asked for twice is a ValueError."""
    wanted = {"ce": 1.0}
    if recipe.mimic is not None:
        wanted["mimic"] = recipe.mimic.alpha
    for term in recipe.terms:
        TERMS.get(term.name)
        if term.name in wanted:
            raise ValueError(f"loss term {term.name!r} is asked for twice: leave it out of terms")
        wanted[term.name] = term.weight
    return MappingProxyType(wanted)
