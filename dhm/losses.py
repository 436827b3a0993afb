"""The objective: cross-entropy of every head, mimicking between every ordered pair of heads, and terms by name.

    L = sum_i CE(z_i, y)  +  alpha * sum_i sum_{j != i} T^2 * KL( sg[p_j] || p_i )

with heads i, logits z_i, p_i = softmax(z_i / T) and sg a stopped gradient (released cifar.py and utils/metric.py).
Every head is a student and a teacher; a teacher gets no gradient. To add a term, register a function here and
name it in `Recipe.terms`.
"""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dhm.network import Heads
from dhm.recipe import Recipe
from dhm.registry import Registry


class Terms(NamedTuple):
    """Values (n,) of a kind of term, each a mean over the batch, with their names."""

    names: tuple[str, ...]
    values: Tensor


Term = Callable[[Tensor, Tensor, Recipe], Terms]
"""Logits (H, B, C), main branch first, and labels (B,) to the terms of one kind, before their weight."""

TERMS: Registry[Term] = Registry("loss term")


class Loss(NamedTuple):
    """The scalar that is differentiated, and the terms (n,) that it is made of, detached and before their weights."""

    total: Tensor
    terms: Terms


def objective(heads: Heads, labels: Tensor, recipe: Recipe) -> Loss:
    """The loss of a batch.

    A term of weight 0 is measured and adds nothing, so that DHM with alpha = 0 is deep supervision bit for bit.

    Args:
        heads: logits (B, C) of every head.
        labels: classes (B,).
    """
    logits = heads.stacked()
    total = logits.new_zeros(())
    parts: list[Terms] = []
    for name, weight in weights(recipe).items():
        with torch.set_grad_enabled(weight != 0 and torch.is_grad_enabled()):
            part = TERMS.get(name)(logits, labels, recipe)
        if weight != 0:
            total = total + weight * part.values.sum()
        parts.append(part)
    names = tuple(name for part in parts for name in part.names)
    return Loss(total, Terms(names, torch.cat([part.values.detach() for part in parts])))


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


def cross_entropy(logits: Tensor, labels: Tensor, recipe: Recipe) -> Terms:
    """`ce/HEAD`: cross-entropy of every head."""
    heads, batch, _ = logits.shape
    each = F.cross_entropy(logits.flatten(0, 1), labels.repeat(heads), reduction="none")
    return Terms(_head_names(recipe), each.view(heads, batch).mean(1))


def mimicking(logits: Tensor, labels: Tensor, recipe: Recipe) -> Terms:
    """`mimic/STUDENT.TEACHER`: T^2 KL(teacher || student) for every ordered pair of heads, the teacher detached."""
    assert recipe.mimic is not None
    matrix = mimicking_matrix(logits, temperature=recipe.mimic.temperature, smoothing=recipe.mimic.smoothing)
    names, pairs = _pairs(recipe.heads)
    return Terms(names, matrix.flatten()[torch.tensor(pairs, device=matrix.device)])


def mimicking_matrix(logits: Tensor, *, temperature: float = 1.0, smoothing: float = 0.0) -> Tensor:
    """T^2 KL(p_j || p_i) for every student i (row) and teacher j (column), averaged over the batch.

    One softmax a head serves all pairs. The gradient reaches students only.

    Args:
        logits: (H, B, C).
        temperature: T, by which logits are divided.
        smoothing: e in (p + e) / (1 + C e), which the released code applies to both sides and which bounds the KL.

    Returns:
        (H, H), the diagonal 0.
    """
    if smoothing > 0:
        classes = logits.shape[-1]
        probabilities = torch.softmax(logits / temperature, -1).add(smoothing).div(1 + classes * smoothing)
        logs = probabilities.log()
    else:
        logs = torch.log_softmax(logits / temperature, -1)
        probabilities = logs.exp()
    teachers, teacher_logs = probabilities.detach(), logs.detach()
    # Differences of logs before the sum: the KL of heads that agree is lost in rounding otherwise.
    gaps = teacher_logs.unsqueeze(0) - logs.unsqueeze(1)
    return (teachers.unsqueeze(0) * gaps).sum(-1).mean(-1) * temperature**2


@functools.cache
def _pairs(heads: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names of the ordered pairs, student first, and their places in a flattened matrix."""
    pairs = [(i, j) for i in range(len(heads)) for j in range(len(heads)) if i != j]
    names = tuple(f"mimic/{heads[i]}.{heads[j]}" for i, j in pairs)
    return names, tuple(i * len(heads) + j for i, j in pairs)


@functools.cache
def _head_names(recipe: Recipe) -> tuple[str, ...]:
    return tuple(f"ce/{head}" for head in recipe.heads)


TERMS.register("ce", cross_entropy)
TERMS.register("mimic", mimicking)
