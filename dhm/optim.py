"""SGD, and the learning rate at any moment of training."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from dhm.recipe import OptimSpec


def make_optimiser(parameters: Iterable[nn.Parameter], spec: OptimSpec) -> torch.optim.SGD:
    """SGD over all parameters alike (the released code decays BatchNorm and biases too), fused into a few launches."""
    parameters = list(parameters)
    optimiser = torch.optim.SGD(
        parameters,
        lr=spec.lr,
        momentum=spec.momentum,
        nesterov=spec.nesterov,
        weight_decay=spec.weight_decay,
        fused=True,
    )
    if spec.momentum:
        # The fused step wants every momentum or none, and a branch that forks by chance may have no gradient at first.
        for parameter in parameters:
            optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimiser


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group."""
    for group in optimiser.param_groups:
        group["lr"] = lr


def learning_rate(spec: OptimSpec, *, epochs: int, moment: float) -> float:
    """The learning rate at a moment of training.

    The schedules are those that the released scripts know (cifar.py and imagenet.py, `--lr-decay`, `--warmup`), with
    `multistep` applied once at each milestone, as their recipes mean it.

    Args:
        epochs: length of the training.
        moment: in epochs, from 0: 1.5 is half-way through the second epoch.
    """
    if moment < spec.warmup_epochs:
        risen = moment / spec.warmup_epochs if spec.warmup == "linear" else 0.0
        return spec.warmup_lr + (spec.lr - spec.warmup_lr) * risen
    return spec.lr * _decay(spec, epochs, moment)


def _decay(spec: OptimSpec, epochs: int, moment: float) -> float:
    """What is left of the learning rate."""
    epoch = int(moment)
    if spec.schedule == "multistep":
        return float(spec.gamma ** sum(epoch >= milestone for milestone in spec.milestones))
    if spec.schedule == "step":
        return float(spec.gamma ** (epoch // spec.step_size))
    if spec.schedule == "constant":
        return 1.0
    progress = (moment - spec.warmup_epochs) / (epochs - spec.warmup_epochs)
    if spec.schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    assert spec.schedule == "linear"
    return 1 - progress
