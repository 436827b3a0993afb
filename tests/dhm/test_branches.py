import dataclasses
import math
import re

import pytest
import torch
from torch import nn

from dhm.backbones import ARCHITECTURES
from dhm.branches import SideBranch, default_branch
from dhm.network import build_network
from dhm.recipe import BranchSpec, DataSpec, Recipe

SMALL = ("resnet8", "wrn_10_1", "densenet_10_6")


def recipe(arch: str, *branches: BranchSpec) -> Recipe:
    return Recipe(arch=arch, epochs=1, data=DataSpec(name="digits"), branches=branches)


def images(size: int = 8) -> torch.Tensor:
    return torch.randn(4, 1, size, size, generator=torch.Generator().manual_seed(0))


def after(node: int, *blocks: int, width: float = 1.0) -> BranchSpec:
    return BranchSpec(after=node, blocks=blocks, width=width)


BRANCHES = [
    (),
    (after(1, 1, 1),),
    (after(2, 1),),
    (after(2, 3), after(1, 2, 1)),
    (after(1, 1, 1), after(1, 1, 1)),
    (after(1, 4, 1, width=2), after(2, 1, width=0.5), after(1, 1, 2, width=0.25), after(2, 2, width=1.5)),
]


@pytest.mark.parametrize("arch", SMALL)
@pytest.mark.parametrize("size", [8, 7, 9])
@pytest.mark.parametrize("branches", BRANCHES, ids=len)
def test_any_number_of_branches_at_any_depth_and_width(arch: str, size: int, branches: tuple[BranchSpec, ...]) -> None:
    wanted = recipe(arch, *branches)
    network = build_network(wanted, in_channels=1, num_classes=5, seed=0)
    heads = network(images(size))
    assert tuple(network.sides) == wanted.heads[1:]
    assert heads.stacked().shape == (1 + len(branches), 4, 5)
    weight = torch.linspace(1, 2, heads.stacked().numel()).view_as(heads.stacked())
    (heads.stacked().square() * weight).sum().backward()
    assert [name for name, part in network.named_parameters() if not part.grad.abs().sum() > 0] == []
    assert network.eval()(images(size)).stacked().isfinite().all()


@pytest.mark.parametrize("arch", SMALL)
def test_a_branch_has_the_depth_and_width_that_it_was_given(arch: str) -> None:
    network = build_network(recipe(arch, after(1, 3, 2, width=2)), in_channels=1, num_classes=5)
    branch = network.sides["side1"]
    transitions = 1 if arch.startswith("densenet") else 0
    assert [len(stage) for stage in branch.stages] == [3 + transitions, 2]
    entering = network.backbone.info[0].channels
    leaving = entering + (3 + 2) * 12 if transitions else 128
    assert branch.classifier[-1].in_features == leaving
    assert branch.classifier[-1].out_features == 5


def test_a_branch_ends_as_its_backbone_ends() -> None:
    for arch in SMALL:
        network = build_network(recipe(arch, after(2, 1)), in_channels=1, num_classes=5)
        kinds = [
            [type(part) for part in end] for end in (network.backbone.classifier, network.sides["side2"].classifier)
        ]
        assert kinds[0] == kinds[1]
        preactivation = [] if arch == "resnet8" else [nn.BatchNorm2d, nn.ReLU]
        assert kinds[0] == [*preactivation, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear]


def test_logits_are_those_of_the_head_that_bears_the_name() -> None:
    wanted = recipe("resnet8", after(2, 1), after(1, 1, 1), after(2, 2), after(1, 2, 1))
    assert wanted.heads == ("main", "side1", "side1b", "side2", "side2b")
    network = build_network(wanted, in_channels=1, num_classes=3, seed=0)
    parts = [network.backbone, *(network.sides[name] for name in wanted.heads[1:])]
    with torch.no_grad():
        for number, part in enumerate(parts):
            part.classifier[-1].weight.zero_()
            part.classifier[-1].bias.fill_(number)
    assert network(images()).stacked()[:, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_a_branch_reads_the_node_that_it_names() -> None:
    network = build_network(
        recipe("resnet14", after(1, 1, 1), after(2, 1)), in_channels=1, num_classes=3, seed=0
    ).eval()
    maps = network.backbone.stem(images())
    nodes = []
    for stage in network.backbone.stages:
        maps = stage(maps)
        nodes.append(maps)
    sides = network(images()).sides
    assert torch.equal(sides[0], network.sides["side1"](nodes[0]))
    assert torch.equal(sides[1], network.sides["side2"](nodes[1]))


@pytest.mark.parametrize("arch", SMALL)
def test_the_main_branch_alone_is_what_plain_training_would_have_built(arch: str) -> None:
    plain = build_network(recipe(arch), in_channels=1, num_classes=5, seed=3).eval()
    branched = build_network(recipe(arch, after(1, 1, 1), after(2, 2)), in_channels=1, num_classes=5, seed=3).eval()
    alone = branched.main_only()
    assert list(alone.state_dict()) == list(plain.main_only().state_dict())
    assert torch.equal(alone(images()), plain(images()).main)
    assert torch.equal(branched(images()).main, plain(images()).main)


def test_only_what_narrows_has_a_projection() -> None:
    def projections(width: float) -> list[str]:
        network = build_network(recipe("resnet14", after(1, 2, 1, width=width)), in_channels=1, num_classes=5)
        return [name for name, _ in network.named_parameters() if "projection" in name]

    assert projections(0.25) == ["sides.side1.stages.0.0.projection.weight"]
    # 16 channels stay 16: nothing to add, nothing to project
    assert projections(0.5) == projections(1) == projections(2) == []


@pytest.mark.parametrize(("width", "channels"), [(0.001, 1), (0.25, 16), (0.3, 19), (1.5, 96), (2, 128)])
def test_a_width_is_a_factor_on_channels_and_leaves_at_least_one(width: float, channels: int) -> None:
    network = build_network(recipe("resnet8", after(2, 1, width=width)), in_channels=1, num_classes=5, seed=0)
    assert network.sides["side2"].classifier[-1].in_features == channels
    assert network(images()).stacked().isfinite().all()


@pytest.mark.parametrize("arch", SMALL)
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            after(3, 1),
            "no branch can fork after stage 3 (a branch after the last stage would have no stage of its own)",
        ),
        (after(3, 1), ": choose a node among 1, 2"),
        (after(4, 1), "no branch can fork after stage 4: choose a node among 1, 2"),
        (after(1, 1), "a branch after stage 1 of 3 has 2 stage(s) of its own, so blocks needs 2 number(s), not [1]"),
        (
            after(2, 1, 2),
            "a branch after stage 2 of 3 has 1 stage(s) of its own, so blocks needs 1 number(s), not [1, 2]",
        ),
    ],
)
def test_a_branch_that_does_not_fit_is_refused(arch: str, spec: BranchSpec, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build_network(recipe(arch, spec), in_channels=1, num_classes=5)


def test_a_side_branch_stands_alone_too() -> None:
    backbone = ARCHITECTURES.get("resnet8").build(num_classes=5)
    branch = SideBranch(backbone, after(2, 1))
    assert branch(torch.randn(2, 32, 4, 4)).shape == (2, 5)
    with pytest.raises(ValueError, match="no branch can fork after stage 3"):
        SideBranch(backbone, after(3, 1))


def test_default_branches_are_the_architectures_own_or_as_deep_as_what_they_stand_beside() -> None:
    architecture = ARCHITECTURES.get("resnet32")
    assert default_branch(architecture, (5, 5, 5), 1) == after(1, 5, 3)
    assert default_branch(architecture, (5, 5, 5), 2) == after(2, 5, width=2)
    bare = dataclasses.replace(architecture, branches=())
    assert default_branch(bare, (3, 4, 6, 2), 2) == after(2, 6, 2)
    for node in (4, 5):
        with pytest.raises(ValueError, match=f"no branch can fork after stage {node}"):
            default_branch(bare, (3, 4, 6, 2), node)


def test_initial_weights_of_branches_follow_the_same_rule_as_the_main_ones() -> None:
    network = build_network(recipe("resnet20", after(1, 3, 3)), in_channels=3, num_classes=5, seed=0)
    weights = torch.cat(
        [
            part.weight.detach().flatten() * math.sqrt(9 * part.out_channels / 2)
            for part in network.sides.modules()
            if isinstance(part, nn.Conv2d)
        ]
    )
    assert len(weights) > 100_000
    assert abs(float(weights.std()) - 1) < 5 / math.sqrt(2 * len(weights))
