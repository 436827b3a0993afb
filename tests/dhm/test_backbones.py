import csv
import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dhm.backbones import ARCHITECTURES
from dhm.backbones.base import SeededDropout, initialise_cifar, seed_dropout
from dhm.backbones.densenet import DenseLayer, DenseNet, Transition
from dhm.backbones.resnet import BasicBlock, CifarResNet
from dhm.backbones.wide_resnet import PreactivationBlock, WideResNet
from dhm.cost import on_meta
from dhm.network import BranchedNetwork, build_network
from dhm.recipe import BranchSpec, DataSpec, Recipe
from dhm.streams import stream

REFERENCE = list(csv.DictReader(Path(__file__).with_name("reference_parameter_counts.csv").open()))
SMALL = ("resnet8", "wrn_10_1", "densenet_10_6")
# A thousand layers take ten seconds even without weights; their blocks are those of resnet110.
WALKED = [pytest.param(name, marks=[pytest.mark.slow] * (name == "resnet1202")) for name in ARCHITECTURES.names()]


def full_recipe(arch: str, **changes: object) -> Recipe:
    """An architecture with its own side branches."""
    recipe = Recipe(arch=arch, epochs=1, data=DataSpec(name="digits"), branches=ARCHITECTURES.get(arch).branches)
    return dataclasses.replace(recipe, **changes)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("row", REFERENCE, ids=lambda row: row["architecture"])
def test_parameter_counts_equal_those_of_the_released_code(row: dict[str, str]) -> None:
    network = on_meta(full_recipe(row["architecture"]), channels=3, num_classes=int(row["num_classes"]))
    assert count(network) == int(row["total_with_branches"])
    assert count(network.main_only()) == int(row["main_only"])
    assert count(network.sides) == int(row["branches"])


def test_every_architecture_that_is_called_released_has_a_reference() -> None:
    released = [name for name in ARCHITECTURES if ARCHITECTURES.get(name).released]
    assert sorted(released) == sorted(row["architecture"] for row in REFERENCE)


def check_shapes(network: BranchedNetwork, images: Tensor, classes: int) -> None:
    """Heads and nodes are as the network declares them."""
    backbone = network.backbone
    heads = network(images)
    assert heads.stacked().shape == (1 + len(network.sides), len(images), classes)
    maps = backbone.stem(images)
    for info, stage, depth in zip(backbone.info, backbone.stages, backbone.depths, strict=True):
        maps = stage(maps)
        size = [math.ceil(side / info.stride) for side in images.shape[2:]]
        assert maps.shape == (len(images), info.channels, *size)
        assert info.depth == depth


@pytest.mark.parametrize("arch", WALKED)
def test_every_architecture_declares_its_stages_truly_and_trains_all_its_weights(arch: str) -> None:
    network = on_meta(full_recipe(arch), channels=3, num_classes=7).train()
    with torch.no_grad():
        check_shapes(network, torch.empty(2, 3, 32, 32, device="meta"), 7)
    network(torch.empty(2, 3, 32, 32, device="meta")).stacked().sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (9, 9), (5, 10)])
@pytest.mark.parametrize("arch", SMALL)
def test_small_ones_run_on_even_and_odd_images(arch: str, size: tuple[int, int]) -> None:
    network = build_network(full_recipe(arch), in_channels=1, num_classes=4, seed=0)
    images = torch.randn(6, 1, *size, generator=torch.Generator().manual_seed(0))
    check_shapes(network, images, 4)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    sum(nn.functional.cross_entropy(logits, labels) for logits in network(images).stacked()).backward()
    still = [name for name, parameter in network.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert still == []


@pytest.mark.parametrize(
    ("arch", "depth"), [("resnet32", 5), ("resnet110", 18), ("wrn_28_10", 4), ("densenet_40_12", 12)]
)
def test_stage_info_of_known_architectures(arch: str, depth: int) -> None:
    channels = {"resnet": (16, 32, 64), "wrn": (160, 320, 640), "densenet": (160, 304, 448)}[arch.rstrip("0123456789_")]
    info = on_meta(full_recipe(arch)).backbone.info
    assert [(stage.channels, stage.stride, stage.depth) for stage in info] == list(
        zip(channels, (1, 2, 4) if arch[0] != "d" else (2, 4, 4), (depth,) * 3, strict=True)
    )


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        (CifarResNet, {"depth": 33}, r"6 n \+ 2 layers .*; 33 is not one of them"),
        (CifarResNet, {"depth": 2}, "2 is not one of them"),
        (WideResNet, {"depth": 29, "widening": 1}, r"6 n \+ 4 layers .*; 29 is not one of them"),
        (DenseNet, {"depth": 41, "growth": 12}, r"3 n \+ 4 layers; 41 is not one of them"),
        (DenseNet, {"depth": 43, "growth": 12, "bottleneck": True}, r"DenseNet-BC has 6 n \+ 4 layers; 43"),
    ],
)
def test_a_depth_that_the_family_does_not_have_is_refused(family: type, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        family(num_classes=10, **options)


def test_an_unknown_architecture_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ValueError, match=r"unknown architecture 'wrn_28_12'\. Did you mean 'wrn_28_10'\?"):
        on_meta(dataclasses.replace(full_recipe("resnet8"), arch="wrn_28_12"))


@pytest.mark.parametrize("arch", ["resnet32", "wrn_10_1", "densenet_10_6"])
def test_initialisation(arch: str) -> None:
    network = on_meta(full_recipe(arch), num_classes=50).to_empty(device="cpu")
    for tensor in (*network.parameters(), *(b for b in network.buffers() if b.is_floating_point())):
        nn.init.constant_(tensor, 7.0)
    initialise_cifar(network, stream(0, "test"))
    standard, uniform = [], []
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            assert part.bias is None
            deviation = math.sqrt(2 / (part.kernel_size[0] * part.kernel_size[1] * part.out_channels))
            unit = part.weight.detach().flatten() / deviation
            assert abs(float(unit.std()) - 1) < 5 / math.sqrt(2 * len(unit))
            standard.append(unit)
        elif isinstance(part, nn.BatchNorm2d):
            assert part.weight.unique().tolist() == part.running_var.unique().tolist() == [1.0]
            assert part.bias.unique().tolist() == part.running_mean.unique().tolist() == [0.0]
        elif isinstance(part, nn.Linear):
            for tensor in (part.weight, part.bias):
                uniform.append(tensor.detach().flatten() * math.sqrt(part.in_features))
    normal, flat = torch.cat(standard), torch.cat(uniform)
    assert abs(float(normal.mean())) < 5 / math.sqrt(len(normal))
    assert abs(float(normal.std()) - 1) < 5 / math.sqrt(2 * len(normal))
    assert abs(float((normal.abs() < 1).double().mean()) - 0.6827) < 5 * math.sqrt(0.22 / len(normal))
    assert 0.99 < float(flat.abs().max()) <= 1
    assert abs(float(flat.std()) - 1 / math.sqrt(3)) < 5 / math.sqrt(4 * len(flat))


def test_a_resnet_shortcut_pools_and_puts_zeros_after_the_old_channels() -> None:
    block = BasicBlock(3, 5, stride=2)
    nn.init.zeros_(block.bn2.weight)  # leaves the shortcut alone
    maps = torch.rand(2, 3, 4, 6)
    out = block(maps)
    assert count(block) == 3 * 5 * 9 + 5 * 5 * 9 + 4 * 5
    torch.testing.assert_close(out[:, :3], maps.unflatten(2, (2, 2)).unflatten(4, (3, 2)).mean((3, 5)))
    assert not out[:, 3:].any()


def test_a_wide_resnet_shortcut_is_a_convolution_of_the_activated_maps() -> None:
    block = PreactivationBlock(3, 5, stride=2, dropout=0.0).eval()
    nn.init.zeros_(block.conv2.weight)
    maps = torch.randn(2, 3, 4, 4)
    assert block.shortcut is not None
    activated = maps.div(math.sqrt(1 + 1e-5)).clamp_min(0)
    expected = torch.einsum("bchw,oc->bohw", activated[:, :, ::2, ::2], block.shortcut.weight[:, :, 0, 0])
    torch.testing.assert_close(block(maps), expected)
    assert PreactivationBlock(4, 4, stride=1, dropout=0.0).shortcut is None
    assert PreactivationBlock(4, 4, stride=2, dropout=0.0).shortcut is not None


def test_a_dense_layer_keeps_the_old_channels_and_adds_its_own() -> None:
    for bottleneck in (False, True):
        layer = DenseLayer(3, 4, bottleneck=bottleneck, dropout=0.0)
        maps = torch.randn(2, 3, 5, 5)
        before = maps.clone()
        out = layer(maps)
        assert out.shape == (2, 7, 5, 5)
        assert torch.equal(out[:, :3], before)
    transition = Transition(6, 3, 0.0)
    assert transition(torch.randn(2, 6, 5, 5)).shape == (2, 3, 3, 3)


def test_dropout_drops_its_share_and_scales_the_rest() -> None:
    layer = SeededDropout(0.3)
    maps = torch.ones(40, 50, 5, 5)
    seed_dropout(layer, stream(0, "test"))
    dropped = layer(maps)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert float((dropped == 0).double().mean()) == pytest.approx(0.3, abs=0.01)
    assert not torch.equal(layer(maps), dropped)
    assert layer.eval()(maps) is maps


def test_dropout_refuses_to_train_without_its_stream() -> None:
    with pytest.raises(AssertionError, match="seed_dropout was not called"):
        SeededDropout(0.3)(torch.ones(1))


@pytest.mark.parametrize(
    ("arch", "layers"),
    # WRN: one a block. DenseNet: one a convolution of its layers and transitions.
    [("wrn_10_1", 3 + 2 + 1), ("densenet_10_6", (6 + 2) + (3 + 1) + 2), ("wrn_16_8", 6 + 3 + 2)],
)
def test_dropout_stands_in_every_block_of_every_branch(arch: str, layers: int) -> None:
    network = on_meta(full_recipe(arch, dropout=0.3))
    found = [part for part in network.modules() if isinstance(part, SeededDropout)]
    assert len(found) == layers
    assert {part.probability for part in found} == {0.3}
    assert not any(isinstance(part, SeededDropout) for part in on_meta(full_recipe(arch)).modules())


def test_a_family_without_dropout_refuses_it() -> None:
    with pytest.raises(ValueError, match="CifarResNet has no dropout: leave dropout at 0"):
        on_meta(full_recipe("resnet8", dropout=0.1))


def test_the_released_branches_are_as_wide_as_released() -> None:
    network = on_meta(full_recipe("wrn_28_10"))
    linear = [side.classifier[-1].in_features for side in network.sides.values()]
    assert linear == [640, 1280]
    assert ARCHITECTURES.get("densenet_40_12").branches == (
        BranchSpec(after=1, blocks=(12, 6)),
        BranchSpec(after=2, blocks=(12,), width=3.0),
    )


def test_what_dropout_drops_does_not_depend_on_the_memory_format() -> None:
    maps, dropout = torch.ones(2, 3, 4, 5), SeededDropout(0.5)
    dropped = []
    for layout in (torch.contiguous_format, torch.channels_last):
        dropout.generator = torch.Generator().manual_seed(0)
        dropped.append(dropout(maps.to(memory_format=layout)))
    assert torch.equal(*dropped) and dropped[1].is_contiguous(memory_format=torch.channels_last)
