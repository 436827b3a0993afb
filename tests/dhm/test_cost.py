import dataclasses
import json

import pytest

from dhm.backbones import ARCHITECTURES
from dhm.cost import measure, on_meta, topology
from dhm.fields import to_dict
from dhm.network import build_network
from dhm.recipe import BranchSpec, DataSpec, MimicSpec, Recipe

DHM = Recipe(
    arch="resnet8",
    epochs=1,
    data=DataSpec(name="digits"),
    branches=(BranchSpec(after=2, blocks=(1,), width=2), BranchSpec(after=1, blocks=(2, 1))),
    mimic=MimicSpec(),
)
PLAIN = dataclasses.replace(DHM, branches=(), mimic=None)


def conv(entering: int, leaving: int, side: int, kernel: int = 3) -> tuple[int, int]:
    """Weights of a convolution and its operations on maps of side by side; a multiply and an add are two."""
    weights = entering * leaving * kernel**2
    return weights, 2 * weights * side**2


def block(entering: int, leaving: int, side: int) -> list[tuple[int, int]]:
    """A basic block: two convolutions and two batch normalisations, which are not counted as operations."""
    return [conv(entering, leaving, side), conv(leaving, leaving, side), (4 * leaving, 0)]


def linear(entering: int, classes: int) -> tuple[int, int]:
    return entering * classes + classes, 2 * entering * classes


# resnet8 on a grey image of 8 by 8 and 10 classes: maps of 8, 4 and 2 pixels
MAIN = [conv(1, 16, 8), (32, 0), *block(16, 16, 8), *block(16, 32, 4), *block(32, 64, 2), linear(64, 10)]
SIDE1 = [*block(16, 32, 4), *block(32, 32, 4), *block(32, 64, 2), linear(64, 10)]
SIDE2 = [*block(32, 128, 2), linear(128, 10)]


def total(parts: list[tuple[int, int]]) -> tuple[int, int]:
    return sum(weights for weights, _ in parts), sum(operations for _, operations in parts)


def test_parameters_and_operations_are_those_counted_by_hand() -> None:
    cost = measure(DHM, channels=1, size=(8, 8), num_classes=10)
    assert (cost.parameters_main, cost.flops_main) == total(MAIN)
    assert (cost.parameters, cost.flops) == total(MAIN + SIDE1 + SIDE2)


def test_operations_of_a_branch_count_by_the_probability_with_which_it_forks() -> None:
    chances = {1: 0.25, 2: 0.5}
    branches = tuple(dataclasses.replace(spec, fork_probability=chances[spec.after]) for spec in DHM.branches)
    cost = measure(dataclasses.replace(DHM, branches=branches), channels=1, size=(8, 8), num_classes=10)
    assert (cost.parameters_main, cost.flops_main) == total(MAIN)
    assert cost.parameters == total(MAIN + SIDE1 + SIDE2)[0], "it has them whether it forks or not"
    assert cost.flops == total(MAIN)[1] + total(SIDE1)[1] / 4 + total(SIDE2)[1] / 2


def test_operations_grow_with_the_image() -> None:
    small, large = (measure(PLAIN, channels=1, size=size, num_classes=10) for size in ((8, 8), (8, 16)))
    assert small.parameters == large.parameters
    classifier = linear(64, 10)[1]
    assert large.flops - classifier == 2 * (small.flops - classifier)


@pytest.mark.parametrize("arch", ["resnet8", "wrn_10_1", "densenet_10_6"])
def test_in_inference_every_method_costs_what_plain_training_costs(arch: str) -> None:
    branched = dataclasses.replace(DHM, arch=arch, branches=ARCHITECTURES.get(arch).branches)
    plain = measure(dataclasses.replace(PLAIN, arch=arch), channels=3, size=(32, 32), num_classes=100)
    cost = measure(branched, channels=3, size=(32, 32), num_classes=100)
    assert (cost.parameters_main, cost.flops_main) == (plain.parameters, plain.flops)
    assert (plain.parameters, plain.flops) == (plain.parameters_main, plain.flops_main)
    assert cost.parameters > cost.parameters_main
    assert cost.flops > cost.flops_main


def test_dropout_costs_no_operations() -> None:
    dry, wet = (
        measure(dataclasses.replace(PLAIN, arch="wrn_10_1", dropout=dropout), channels=1, size=(8, 8), num_classes=10)
        for dropout in (0.0, 0.3)
    )
    assert dry == wet


def test_counting_makes_no_weights() -> None:
    network = on_meta(DHM)
    assert {tensor.device.type for tensor in (*network.parameters(), *network.buffers())} == {"meta"}


def test_a_recipe_that_cannot_be_built_is_refused_without_weights() -> None:
    with pytest.raises(ValueError, match="no branch can fork after stage 3"):
        on_meta(dataclasses.replace(DHM, branches=(BranchSpec(after=3, blocks=(1,)),)))


def test_the_topology_is_that_of_the_network() -> None:
    found = topology(DHM, channels=1, num_classes=10)
    assert json.loads(json.dumps(found)) == found
    assert found == {
        "arch": "resnet8",
        "method": "dhm",
        "num_classes": 10,
        "stages": [
            {"channels": 16, "stride": 1, "blocks": 1},
            {"channels": 32, "stride": 2, "blocks": 1},
            {"channels": 64, "stride": 4, "blocks": 1},
        ],
        "branches": [
            {"head": "side1", **to_dict(DHM.branches[0]), "parameters": total(SIDE1)[0]},
            {"head": "side2", **to_dict(DHM.branches[1]), "parameters": total(SIDE2)[0]},
        ],
        "heads": ["main", "side1", "side2"],
        "pairs": [
            ["main", "side1", 1.0],
            ["main", "side2", 1.0],
            ["side1", "main", 1.0],
            ["side1", "side2", 1.0],
            ["side2", "main", 1.0],
            ["side2", "side1", 1.0],
        ],
        "parameters_main": total(MAIN)[0],
    }


@pytest.mark.parametrize("arch", ["resnet14", "wrn_10_1", "densenet_10_6"])
def test_the_topology_agrees_with_the_recipe_and_the_built_network(arch: str) -> None:
    recipe = dataclasses.replace(DHM, arch=arch, branches=(BranchSpec(after=1, blocks=(1, 2)),) * 2, mimic=None)
    found = topology(recipe, channels=3, num_classes=7)
    network = build_network(recipe, in_channels=3, num_classes=7)
    assert (found["method"], found["pairs"]) == ("dsl", [])
    assert tuple(found["heads"]) == recipe.heads == ("main", *network.sides)
    assert [stage["blocks"] for stage in found["stages"]] == list(network.backbone.depths)
    for entry, spec, side in zip(found["branches"], recipe.branches, network.sides.values(), strict=True):
        assert {**to_dict(spec), "head": entry["head"], "parameters": entry["parameters"]} == entry
        assert entry["parameters"] == sum(parameter.numel() for parameter in side.parameters())
