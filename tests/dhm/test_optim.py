import math

import pytest
import torch
from torch import nn

from dhm.optim import learning_rate, make_optimiser, set_learning_rate
from dhm.recipe import OptimSpec


def released_cifar(
    *, lr: float, gamma: float, epochs: int, drops: tuple[int, ...] = (), step: int = 0, warmup: bool = False
) -> list[float]:
    """The rate of each epoch as cifar.py has it: the last epoch's is carried on and changed."""
    rates: list[float] = []
    rate = lr
    for epoch in range(epochs):
        if step:
            rate = lr * gamma ** (epoch // step)
        elif epoch in drops:
            rate *= gamma
        if warmup and epoch == 0:
            rate = 0.01
        elif warmup and epoch == 1:
            rate = lr
        rates.append(rate)
    return rates


def released_imagenet(*, lr: float, decay: str, epochs: int, per_epoch: int, warmup: bool) -> list[float]:
    """The rate of each iteration as imagenet.py has it; its warm-up lasts five epochs."""
    warm = 5 * per_epoch if warmup else 0
    total = epochs * per_epoch
    rates = []
    for iteration in range(total):
        progress = (iteration - warm) / (total - warm)
        rate = lr * (1 + math.cos(math.pi * progress)) / 2 if decay == "cos" else lr * (1 - progress)
        rates.append(lr * iteration / warm if iteration < warm else rate)
    return rates


def by_epoch(spec: OptimSpec, epochs: int) -> list[float]:
    return [learning_rate(spec, epochs=epochs, moment=epoch) for epoch in range(epochs)]


def by_iteration(spec: OptimSpec, epochs: int, per_epoch: int) -> list[float]:
    return [
        learning_rate(spec, epochs=epochs, moment=epoch + step / per_epoch)
        for epoch in range(epochs)
        for step in range(per_epoch)
    ]


@pytest.mark.parametrize(
    ("gamma", "drops", "epochs"), [(0.1, (81, 122), 164), (0.2, (60, 120, 160), 200), (0.1, (150, 225), 300)]
)
def test_multistep_drops_once_at_each_milestone(gamma: float, drops: tuple[int, ...], epochs: int) -> None:
    spec = OptimSpec(gamma=gamma, milestones=drops)
    assert by_epoch(spec, epochs) == pytest.approx(released_cifar(lr=0.1, gamma=gamma, epochs=epochs, drops=drops))


def test_multistep_holds_its_rate_within_an_epoch() -> None:
    spec = OptimSpec(milestones=(2,))
    assert [learning_rate(spec, epochs=4, moment=moment) for moment in (1.999, 2.0, 2.999, 3.0)] == pytest.approx(
        [0.1, 0.01, 0.01, 0.01]
    )


def test_step_multiplies_every_so_many_epochs() -> None:
    spec = OptimSpec(schedule="step", step_size=30, gamma=0.5, lr=0.2)
    assert by_epoch(spec, 100) == pytest.approx(released_cifar(lr=0.2, gamma=0.5, epochs=100, step=30))
    assert learning_rate(spec, epochs=100, moment=29.99) == pytest.approx(0.2)


@pytest.mark.parametrize("drops", [(81, 122), (2, 3)])
def test_constant_warmup_is_the_first_epoch_at_a_hundredth(drops: tuple[int, ...]) -> None:
    spec = OptimSpec(milestones=drops, warmup_epochs=1, warmup="constant", warmup_lr=0.01)
    assert by_epoch(spec, 164) == pytest.approx(released_cifar(lr=0.1, gamma=0.1, epochs=164, drops=drops, warmup=True))
    assert learning_rate(spec, epochs=164, moment=0.99) == 0.01


@pytest.mark.parametrize("warmup", [False, True])
@pytest.mark.parametrize(("schedule", "decay"), [("cosine", "cos"), ("linear", "linear")])
def test_cosine_and_linear_fall_by_iteration(schedule: str, decay: str, warmup: bool) -> None:
    spec = OptimSpec(schedule=schedule, lr=0.4, warmup_epochs=5 if warmup else 0)
    expected = released_imagenet(lr=0.4, decay=decay, epochs=12, per_epoch=7, warmup=warmup)
    assert by_iteration(spec, 12, 7) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_fall_would_end_at_zero(schedule: str) -> None:
    spec = OptimSpec(schedule=schedule, warmup_epochs=2)
    assert learning_rate(spec, epochs=10, moment=10) == pytest.approx(0, abs=1e-15)
    assert learning_rate(spec, epochs=10, moment=6) == pytest.approx(0.05)


def test_constant_stays() -> None:
    spec = OptimSpec(schedule="constant", lr=0.3, milestones=(1,), step_size=1)
    assert set(by_iteration(spec, 5, 3)) == {0.3}


def test_linear_warmup_rises_from_its_own_rate_before_any_schedule() -> None:
    spec = OptimSpec(milestones=(3,), warmup_epochs=2, warmup_lr=0.02)
    rates = [learning_rate(spec, epochs=5, moment=moment) for moment in (0, 0.5, 1, 1.5, 2, 3)]
    assert rates == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.01])


def test_a_warmup_longer_than_the_training_is_cut_off() -> None:
    spec = OptimSpec(schedule="cosine", warmup_epochs=4)
    assert by_epoch(spec, 2) == pytest.approx([0, 0.025])


@pytest.mark.parametrize("nesterov", [False, True])
def test_three_steps_agree_with_sgd_written_out(nesterov: bool) -> None:
    layer = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    spec = OptimSpec(lr=0.2, momentum=0.7, weight_decay=0.05, nesterov=nesterov)
    optimiser = make_optimiser(layer.parameters(), spec)
    expected = [parameter.detach().double().clone() for parameter in layer.parameters()]
    velocity = [torch.zeros_like(parameter) for parameter in expected]
    images = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    for rate in (0.2, 0.1, 0.05):
        set_learning_rate(optimiser, rate)
        optimiser.zero_grad()
        layer(images).square().mul(torch.arange(10.0).view(5, 2)).sum().backward()
        for index, parameter in enumerate(layer.parameters()):
            assert parameter.grad is not None
            # weights decay with BatchNorm's and the biases among them
            slope = parameter.grad.double() + 0.05 * expected[index]
            velocity[index] = 0.7 * velocity[index] + slope
            expected[index] = expected[index] - rate * (slope + 0.7 * velocity[index] if nesterov else velocity[index])
        optimiser.step()
        for parameter, wanted in zip(layer.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.double(), wanted, rtol=1e-5, atol=1e-6)


def test_the_rate_of_every_group_is_set() -> None:
    weights = [nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))]
    optimiser = torch.optim.SGD([{"params": [weight]} for weight in weights], lr=1.0)
    set_learning_rate(optimiser, 0.25)
    assert [group["lr"] for group in optimiser.param_groups] == [0.25, 0.25]
