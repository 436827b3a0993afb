"""What a recipe's network costs, in training and in inference, without building its weights."""

import dataclasses
from typing import Any

import torch
from torch import nn

from dhm.fields import to_dict
from dhm.network import BranchedNetwork, build_network
from dhm.recipe import DataSpec, Recipe
from dhm.steps import pairs, whole


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Parameters, and floating-point operations of a forward pass of one image (a multiply and an add are two).

    Without `_main` with side branches, as in training; with it the main branch alone, as in inference. Operations are
    the mean over steps: those of a branch count by the probability with which it forks. Its parameters count whole.
    """

    parameters: int
    parameters_main: int
    flops: int
    flops_main: int


def network_of(recipe: Recipe) -> Recipe:
    """What of a recipe decides about its network; the same for recipes that cost the same."""
    return Recipe(
        arch=recipe.arch,
        epochs=1,
        data=DataSpec(name=recipe.data.name),
        branches=recipe.branches,
        dropout=recipe.dropout,
    )


def measure(recipe: Recipe, *, channels: int, size: tuple[int, int], num_classes: int) -> Cost:
    """Count on the meta device: exact, and without memory for the weights.

    The first time in a process it takes a second or two: torch then imports its compiler.

    Args:
        channels: of an image.
        size: height and width of an image, in pixels.
    """
    network = on_meta(recipe, channels=channels, num_classes=num_classes)
    image = torch.empty(1, channels, *size, device="meta")
    main, step = network.main_only(), whole(recipe)
    counts = _flops(network, image)
    spared = sum(
        (1 - step.presence(head)) * counts[f"{BranchedNetwork.__name__}.sides.{head}"] for head in network.sides
    )
    return Cost(
        parameters=_parameters(network),
        parameters_main=_parameters(main),
        flops=round(counts["Global"] - spared),
        flops_main=_flops(main, image)["Global"],
    )


def on_meta(recipe: Recipe, *, channels: int = 3, num_classes: int = 10) -> BranchedNetwork:
    """The network without memory for its weights; a cheap way to see whether a recipe can be built.

    Raises:
        ValueError: it cannot be built.
    """
    with torch.device("meta"):
        return build_network(recipe, in_channels=channels, num_classes=num_classes).eval()


def topology(recipe: Recipe, *, channels: int, num_classes: int) -> dict[str, Any]:
    """The network as plain values, enough to draw it: stages, side branches and nodes, heads, mimicking terms."""
    network = on_meta(recipe, channels=channels, num_classes=num_classes)
    terms = [] if recipe.mimic is None else pairs(recipe.mimic, recipe.heads)
    return {
        "arch": recipe.arch,
        "method": recipe.method,
        "num_classes": num_classes,
        "stages": [
            {"channels": info.channels, "stride": info.stride, "blocks": info.depth} for info in network.backbone.info
        ],
        "branches": [
            {"head": name, **to_dict(spec), "parameters": _parameters(network.sides[name])}
            for name, spec in zip(recipe.heads[1:], recipe.branches, strict=True)
        ],
        "heads": list(recipe.heads),
        "pairs": [[student, teacher, weight] for student, teacher, weight in terms],
        "parameters_main": _parameters(network.main_only()),
    }


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _flops(module: nn.Module, image: torch.Tensor) -> dict[str, int]:
    """Operations by the names of the modules that do them; all of them as `Global`."""
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415  (it imports Triton)

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(image)
    return {name: sum(found.values()) for name, found in counter.get_flop_counts().items()}
