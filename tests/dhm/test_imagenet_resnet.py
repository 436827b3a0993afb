import pytest
import torch
import torchvision
from torch import nn

from dhm.backbones import ARCHITECTURES
from dhm.backbones.imagenet_resnet import ImageNetResNet
from dhm.cost import on_meta
from dhm.network import BranchedNetwork, build_network
from dhm.recipe import BranchSpec, DataSpec, Recipe
from dhm.streams import stream

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
BRANCHES = {18: ((1, 2), 2), 34: ((3, 2), 3), 50: ((3, 2), 3), 101: ((12, 2), 3), 152: ((18, 2), 3)}


def recipe(arch: str, branches: tuple[BranchSpec, ...] | None = None) -> Recipe:
    if branches is None:
        branches = ARCHITECTURES.get(arch).branches
    return Recipe(arch=arch, epochs=1, data=DataSpec(name="image_folder"), branches=branches)


def shapes(module: nn.Module) -> list[torch.Size]:
    return [tensor.shape for tensor in module.state_dict().values()]


@pytest.mark.parametrize("depth", DEPTHS)
def test_stages_and_branches_are_as_released(depth: int) -> None:
    network = on_meta(recipe(f"resnet{depth}"), num_classes=1000)
    expansion = 1 if depth < 50 else 4
    assert network.backbone.depths == DEPTHS[depth]
    assert [(info.channels, info.stride, info.depth) for info in network.backbone.info] == list(
        zip([planes * expansion for planes in (64, 128, 256, 512)], (4, 8, 16, 32), DEPTHS[depth], strict=True)
    )
    shallow, deep = network.sides.values()
    assert list(network.sides) == ["side2", "side3"]
    assert (shallow.spec.blocks, deep.spec.blocks[0]) == BRANCHES[depth]
    assert [side.classifier[-1].in_features for side in (shallow, deep)] == [512 * expansion, 1024 * expansion]


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_main_branch_holds_what_torchvisions_network_holds_in_its_order(depth: int) -> None:
    with torch.device("meta"):
        reference = torchvision.models.get_model(f"resnet{depth}", num_classes=7)
    assert shapes(on_meta(recipe(f"resnet{depth}"), num_classes=7).main_only()) == shapes(reference)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_the_main_branch_computes_what_torchvisions_network_computes(arch: str) -> None:
    main = build_network(recipe(arch, ()), in_channels=3, num_classes=5, seed=0).main_only()
    reference = torchvision.models.get_model(arch, num_classes=5)
    reference.load_state_dict(dict(zip(reference.state_dict(), main.state_dict().values(), strict=True)))
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(main(images), reference(images))  # in training, by the statistics of the batch
    torch.testing.assert_close(main.eval()(images), reference.eval()(images))


@pytest.mark.parametrize("size", [(64, 64), (33, 47)])
def test_maps_shrink_as_the_stages_declare(size: tuple[int, int]) -> None:
    backbone = on_meta(recipe("resnet18", ())).main_only()
    maps = backbone.stem(torch.empty(2, 3, *size, device="meta"))
    for stage, info in zip(backbone.stages, backbone.info, strict=True):
        maps = stage(maps)
        assert maps.shape == (2, info.channels, *(-(-side // info.stride) for side in size))


def test_weights_are_drawn_by_kaimings_rule_over_the_fan_out() -> None:
    backbone = build_network(recipe("resnet18", ()), in_channels=3, num_classes=5, seed=3).main_only()
    generator = stream(3, "init", "main")
    for part in backbone.modules():
        if isinstance(part, nn.Conv2d):
            expected = torch.empty_like(part.weight)
            nn.init.kaiming_normal_(expected, mode="fan_out", nonlinearity="relu", generator=generator)
            torch.testing.assert_close(part.weight.detach(), expected)
        elif isinstance(part, nn.BatchNorm2d):
            assert part.weight.unique().tolist() == [1.0]
            assert part.bias.unique().tolist() == [0.0]


def test_a_side_branch_of_any_node_and_width_trains_all_its_weights() -> None:
    branches = (BranchSpec(after=1, blocks=(1, 1, 1), width=0.5), BranchSpec(after=3, blocks=(1,), width=0.25))
    network: BranchedNetwork = build_network(recipe("resnet18", branches), in_channels=1, num_classes=4, seed=0)
    heads = network(torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert heads.stacked().shape == (3, 3, 4)
    nn.functional.cross_entropy(heads.stacked().flatten(0, 1), torch.tensor([0, 1, 2] * 3)).backward()
    assert [name for name, weight in network.named_parameters() if not weight.grad.abs().sum() > 0] == []


def test_dropout_is_refused() -> None:
    with pytest.raises(ValueError, match="ImageNetResNet has no dropout: leave dropout at 0"):
        ARCHITECTURES.get("resnet50").build(num_classes=10, dropout=0.1)
    assert ARCHITECTURES.get("resnet50").family is ImageNetResNet
