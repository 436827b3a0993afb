"""What a term of the objective is."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dhm.registry import Registry
from dhm.steps import Step


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


def scale_of(
    step: Step, heads: Sequence[tuple[str, ...]], like: Tensor, factors: Sequence[float] | None = None
) -> Tensor | None:
    """Factor (n,) on each term from its own weight and from the probability that its heads are there.

    Args:
        heads: of each term, those that it draws on.
        like: a tensor of the dtype and on the device that are wanted.
        factors: the terms' own weights; 1 where they are not given.

    Returns:
        None where all are 1.
    """
    found = list(factors) if factors is not None else [1.0] * len(heads)
    if step.recipe.fork_scaling == "inverse":
        for index, names in enumerate(heads):
            for name in names:
                found[index] /= step.presence(name)
    return None if all(factor == 1.0 for factor in found) else constants(tuple(found), like.dtype, like.device)


@functools.lru_cache(maxsize=256)
def constants(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor (n,) of numbers that many steps use, kept: each copy to a GPU would hold up the step."""
    with torch.inference_mode(mode=False):  # a tensor made in inference could not serve training later
        return torch.tensor(values, dtype=dtype, device=device)


def of_each_head(kind: str, values: Tensor, step: Step) -> Terms:
    """The terms `KIND/HEAD` from their values (H,), for a kind that has one a head."""
    names = tuple(f"{kind}/{head}" for head in step.heads)
    return Terms(names, values, scale_of(step, [(head,) for head in step.heads], values))
