"""The same recipe, batches and first weights give the same curve within rounding, done quickly or plainly."""

import dataclasses
import math

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.released_way import ReleasedWay
from dhm.data import load
from dhm.engine import train_one_epoch
from dhm.losses import objective
from dhm.network import Heads
from dhm.recipe import MimicSpec, Recipe
from dhm.training import Callback, Runtime, Training
from experiments.benchmarks import BENCHMARKS

METHODS = ("plain", "dsl", "dhm")
VIEWS = {"view", "expand", "unsqueeze", "squeeze", "select", "detach", "promote_types"}


def recipe_of(method: str, temperature: float = 1.0) -> Recipe:
    base = BENCHMARKS.get("digits").base()
    # At the benchmark's own rate, 0.1, chaos makes differences in the last bit visible within an epoch.
    base = dataclasses.replace(base, optim=dataclasses.replace(base.optim, lr=0.02))
    if method == "plain":
        return dataclasses.replace(base, branches=(), mimic=None)
    mimic = MimicSpec(temperature=temperature) if method == "dhm" else None
    return dataclasses.replace(base, mimic=mimic)


def recipe_terms(recipe: Recipe) -> list[str]:
    mimicking = [f"mimic/{a}.{b}" for a in recipe.heads for b in recipe.heads if a != b] if recipe.mimic else []
    return [f"ce/{head}" for head in recipe.heads] + mimicking


def curve(recipe: Recipe, epochs: int, runtime: Runtime) -> list[dict[str, float]]:
    training = Training(recipe, 0, runtime)
    found = []
    for _ in range(epochs):
        found.append(train_one_epoch(training))
        training.history.append(None)  # type: ignore[arg-type]  # an epoch is over; nothing is recorded of it
    return found


def released_curve(recipe: Recipe, epochs: int) -> list[dict[str, float]]:
    """Means of an epoch, on the batches that ours takes."""
    data = load(recipe.data)
    batches = data.open(recipe.data, 0, batch_size=recipe.optim.batch_size).train
    way = ReleasedWay(recipe, 0, in_channels=data.channels, num_classes=data.num_classes)
    found = []
    for epoch in range(epochs):
        steps = []
        for number, batch in enumerate(batches.epoch(0, epoch)):
            steps += way.train([batch], moment=epoch + number / len(batches))
        found.append({name: sum(step[name] for step in steps) / len(steps) for name in steps[0]})
    return found


@pytest.mark.parametrize(
    ("method", "runtime"),
    [
        *((method, Runtime()) for method in METHODS),
        *((method, Runtime(channels_last=True)) for method in METHODS),
        ("dhm", Runtime(channels_last=True, compile=True)),  # half a minute
    ],
    ids=str,
)
def test_the_curve_is_that_of_the_plain_implementation(method: str, runtime: Runtime) -> None:
    recipe = recipe_of(method)
    ours, theirs = curve(recipe, 2, runtime), released_curve(recipe, 2)
    # A sum in another order may turn a ReLU at zero, and differences grow from there.
    for mine, their, digits in zip(ours, theirs, (1e-5, 1e-3), strict=True):
        assert math.isclose(mine["train/loss"], their["total"], rel_tol=digits)
        for name in recipe_terms(recipe):
            assert math.isclose(mine[f"loss/{name}"], their[name], rel_tol=10 * digits, abs_tol=1e-6), name


def test_a_temperature_is_the_same_too() -> None:
    recipe = recipe_of("dhm", temperature=3.0)
    (mine,), (their,) = curve(recipe, 1, Runtime()), released_curve(recipe, 1)
    assert math.isclose(mine["train/loss"], their["total"], rel_tol=1e-4)


class Count(TorchDispatchMode):
    """Counts operations that compute something; views are free."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.overloadpacket.__name__
        if name not in VIEWS:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def test_the_loss_of_three_heads_takes_few_operations() -> None:
    recipe = BENCHMARKS.get("cifar100").base("resnet32")
    logits = [torch.randn(8, 100, requires_grad=True) for _ in range(3)]
    labels = torch.randint(100, (8,))
    heads = Heads(logits[0], tuple(logits[1:]))
    objective(heads, labels, recipe)  # what is made once is made
    with Count() as count:
        objective(heads, labels, recipe)
    assert len(count.names) <= 25, count.names


def test_a_step_of_the_optimiser_is_a_few_launches() -> None:
    training = Training(recipe_of("dhm"), 0, Runtime())
    train_one_epoch(training)
    with Count() as count:
        training.optimiser.step()
    assert len(count.names) <= 5, count.names


READS = {"item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__", "__format__", "nonzero"}


class HostReads(TorchFunctionMode):
    """Notes what makes the host wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func.__name__ in READS:
            self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


class Steps(Callback):
    """Notes at each step what the host and the device have done so far."""

    def __init__(self, reads: HostReads, done: Count) -> None:
        self._reads, self._done = reads, done
        self.seen: list[tuple[int, int]] = []

    def on_step(self, training: Training) -> None:
        inner = sum(name in {"_local_scalar_dense", "nonzero", "masked_select"} for name in self._done.names)
        self.seen.append((len(self._reads.names), inner))


@pytest.mark.parametrize("method", METHODS)
def test_no_step_of_an_epoch_is_read_by_the_host(method: str) -> None:
    training = Training(recipe_of(method), 0, Runtime())
    with HostReads() as reads, Count() as done:
        steps = Steps(reads, done)
        train_one_epoch(training, (steps,))
    assert len(steps.seen) == training.steps > 2
    assert len(set(steps.seen)) == 1, reads.names  # what was drawn for the epoch was read before its first step
    assert "tolist" in reads.names, "the means are read at the end"
