"""What varies from step to step: which side branches fork, and which mimicking terms are left out.

In the main setting nothing does: every branch forks at every step. A branch with a fork probability between 0 and 1
draws from a stream of its own, one number a step, so that another branch changes nothing about it.
"""

import dataclasses
import math
from collections.abc import Iterator

import torch

from dhm.recipe import MimicSpec, Recipe
from dhm.streams import stream


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A step of training, as the network and the objective see it.

    Args:
        heads: those that are there, main first.
        moment: epochs since the start; 1.5 is half-way through the second. Infinite where time does not matter.
        stopped: mimicking terms that are left out, as `STUDENT.TEACHER`.
    """

    recipe: Recipe
    heads: tuple[str, ...]
    moment: float = math.inf
    stopped: frozenset[str] = frozenset()

    @property
    def warmth(self) -> float:
        """How much of alpha is in force, in [0, 1]."""
        mimic = self.recipe.mimic
        if mimic is None or mimic.alpha_warmup == 0:
            return 1.0
        return min(1.0, self.moment / mimic.alpha_warmup)

    def presence(self, head: str) -> float:
        """The probability with which a head is there."""
        if head == "main":
            return 1.0
        return self.recipe.branches[self.recipe.heads.index(head) - 1].fork_probability


def whole(recipe: Recipe) -> Step:
    """A step at which every branch forks and nothing is left out."""
    return Step(recipe=recipe, heads=recipe.heads)


def steps_of_epoch(recipe: Recipe, seed: int, epoch: int, count: int) -> Iterator[Step]:
    """The steps of an epoch."""
    forked = {
        head: torch.rand(count, generator=stream(seed, "fork", head, epoch)).tolist()
        for head, branch in zip(recipe.heads[1:], recipe.branches, strict=True)
        if branch.fork_probability < 1
    }
    stops = stream(seed, "stop", epoch)
    everything = whole(recipe)
    for index in range(count):
        moment = epoch + index / count
        heads = recipe.heads
        if forked:
            present = {head: draws[index] < everything.presence(head) for head, draws in forked.items()}
            heads = tuple(head for head in heads if present.get(head, True))
        stopped: frozenset[str] = frozenset()
        if recipe.mimic is not None and recipe.mimic.random_stop:
            stopped = _stopped(recipe.mimic, recipe.heads, stops)
        yield Step(recipe=recipe, heads=heads, moment=moment, stopped=stopped)


def pairs(mimic: MimicSpec, heads: tuple[str, ...]) -> list[tuple[str, str, float]]:
    """Student, teacher and weight of every mimicking term among some heads (main first, then sides by their nodes)."""
    if mimic.pairs == "listed":
        there = [pair for pair in mimic.listed if pair.student in heads and pair.teacher in heads]
        return [(pair.student, pair.teacher, pair.weight) for pair in there]
    return [(a, b, 1.0) for a in heads for b in heads if a != b and _wanted(mimic.pairs, heads, a, b)]


def _wanted(way: str, heads: tuple[str, ...], student: str, teacher: str) -> bool:
    if way == "sides_to_main":
        return student == "main"
    if way == "main_to_sides":
        return teacher == "main"
    # The later a head comes the deeper it is: the later its node, and of two at one node the second. The main branch,
    # which comes first, is the deepest.
    depth = {head: index or len(heads) for index, head in enumerate(heads)}
    if way == "deep_to_shallow":
        return depth[teacher] > depth[student]
    return way == "all" or depth[teacher] < depth[student]


def _stopped(mimic: MimicSpec, heads: tuple[str, ...], generator: torch.Generator) -> frozenset[str]:
    terms = [f"{student}.{teacher}" for student, teacher, _ in pairs(mimic, heads)]
    number = int(float(torch.rand((), generator=generator)) * len(terms))
    return frozenset(terms[index] for index in torch.randint(len(terms), (number,), generator=generator).tolist())
