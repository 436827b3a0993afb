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
from dhm.recipe import MimicSpec, Recipe
from dhm.registry import Registry
from dhm.steps import Step, pairs, whole


class Terms(NamedTuple):
    """Values (n,) of a kind of term, each a mean over the batch, with their names.

    Args:
        scale: factor (n,) on each in the total; 1 where it is not given.
    """

    names: tuple[str, ...]
    values: Tensor
    scale: Tensor | None = None


Term = Callable[[Tensor, Tensor, Step], Terms]
"""Logits (H, B, C) of the step's heads, main branch first, and labels (B,), to the terms of one kind."""

TERMS: Registry[Term] = Registry("loss term")


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
            part = TERMS.get(name)(logits, labels, step)
        if weight != 0:
            total = (part.values if part.scale is None else part.values * part.scale).sum()
            weighted.append(total if weight == 1 else weight * total)
        parts.append(part)
    names = tuple(name for part in parts for name in part.names)
    values = torch.cat([part.values for part in parts]).detach()
    return Loss(functools.reduce(torch.add, weighted), Terms(names, values))


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


def cross_entropy(logits: Tensor, labels: Tensor, step: Step) -> Terms:
    """`ce/HEAD`: cross-entropy of every head."""
    heads, batch, _ = logits.shape
    each = F.cross_entropy(logits.flatten(0, 1), labels.repeat(heads), reduction="none")
    names = tuple(f"ce/{head}" for head in step.heads)
    return Terms(names, each.view(heads, batch).mean(1), _scale(step, [(head,) for head in step.heads], logits))


def mimicking(logits: Tensor, labels: Tensor, step: Step) -> Terms:
    """`mimic/STUDENT.TEACHER`: T^2 KL(teacher || student) for the pairs of heads that the recipe wants."""
    mimic = step.recipe.mimic
    assert mimic is not None
    matrix = mimicking_matrix(
        logits, temperature=mimic.temperature, smoothing=mimic.smoothing, stop_gradient=mimic.stop_gradient
    )
    terms = pairs(mimic, step.heads)
    factors = [0.0 if f"{a}.{b}" in step.stopped else weight for a, b, weight in terms]
    names = tuple(f"mimic/{student}.{teacher}" for student, teacher, _ in terms)
    scale = _scale(step, [(student, teacher) for student, teacher, _ in terms], logits, factors)
    return Terms(names, matrix.flatten()[_places(mimic, step.heads, matrix.device)], scale)


@functools.lru_cache(maxsize=256)
def _places(mimic: MimicSpec, heads: tuple[str, ...], device: torch.device) -> Tensor:
    """Where the pairs stand in the flat matrix of heads, (n,); kept, as each copy to a GPU would hold up the step."""
    row = {head: index for index, head in enumerate(heads)}
    chosen = [row[student] * len(heads) + row[teacher] for student, teacher, _ in pairs(mimic, heads)]
    with torch.inference_mode(mode=False):  # a tensor made in inference could not serve training later
        return torch.tensor(chosen, device=device, dtype=torch.long)


def _scale(step: Step, heads: list[tuple[str, ...]], like: Tensor, factors: list[float] | None = None) -> Tensor | None:
    """Factor on each term from its own weight and from the probability that its heads are there; none if all are 1."""
    found = list(factors) if factors is not None else [1.0] * len(heads)
    if step.recipe.fork_scaling == "inverse":
        for index, names in enumerate(heads):
            for name in names:
                found[index] /= step.presence(name)
    return None if all(factor == 1.0 for factor in found) else like.new_tensor(found)


def mimicking_matrix(
    logits: Tensor, *, temperature: float = 1.0, smoothing: float = 0.0, stop_gradient: bool = True
) -> Tensor:
    """T^2 KL(p_j || p_i) for every student i (row) and teacher j (column), averaged over the batch.

    One softmax a head serves all pairs.

    Args:
        logits: (H, B, C).
        temperature: T, by which logits are divided.
        stop_gradient: whether the gradient reaches students only.
        smoothing: e in (p + e) / (1 + C e), which the released code applies to both sides and which bounds the KL.

    Returns:
        (H, H), the diagonal 0.
    """
    if temperature != 1:
        logits = logits / temperature
    if smoothing > 0:
        classes = logits.shape[-1]
        probabilities = torch.softmax(logits, -1).add(smoothing).div(1 + classes * smoothing)
        logs = probabilities.log()
    else:
        logs = torch.log_softmax(logits, -1)
        probabilities = logs.exp()
    teachers, teacher_logs = (probabilities.detach(), logs.detach()) if stop_gradient else (probabilities, logs)
    # Differences of logs before the sum: the KL of heads that agree is lost in rounding otherwise.
    gaps = teacher_logs.unsqueeze(0) - logs.unsqueeze(1)
    matrix = (teachers.unsqueeze(0) * gaps).sum(-1).mean(-1)
    return matrix if temperature == 1 else matrix * temperature**2


TERMS.register("ce", cross_entropy)
TERMS.register("mimic", mimicking)
