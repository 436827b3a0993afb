from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dhm.backbones import ARCHITECTURES
from dhm.export import main_state, save_program
from dhm.network import BranchedNetwork, build_network
from dhm.recipe import DataSpec, MimicSpec, Recipe

SIZE = {"resnet8": (8, 8), "wrn_10_1": (8, 8), "densenet_10_6": (9, 7), "resnet18": (40, 56)}


def branched(arch: str, *, channels: int = 3, classes: int = 5) -> BranchedNetwork:
    """A network with its side branches whose statistics are no longer the first ones, in training mode."""
    recipe = Recipe(
        arch=arch,
        epochs=1,
        data=DataSpec(name="digits"),
        branches=ARCHITECTURES.get(arch).branches,
        mimic=MimicSpec(),
        dropout=0.3 if arch == "wrn_10_1" else 0.0,
    )
    network = build_network(recipe, in_channels=channels, num_classes=classes, seed=0).train()
    network.seed_dropout(0, 0, torch.device("cpu"))
    with torch.no_grad():
        network(some_images((4, channels, *SIZE.get(arch, (40, 40)))) * 2 + 0.5)
    return network


def some_images(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def plain(arch: str, *, channels: int = 3, classes: int = 5) -> nn.Module:
    return ARCHITECTURES.get(arch).build(in_channels=channels, num_classes=classes).eval()


def parameters_and_flops(module: nn.Module, size: tuple[int, int], channels: int = 3) -> tuple[int, int]:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, channels, *size))
    return sum(weight.numel() for weight in module.parameters()), counter.get_total_flops()


@pytest.mark.parametrize("arch", ["resnet8", "wrn_10_1", "densenet_10_6"])
def test_the_state_is_the_plain_networks_and_a_copy(arch: str) -> None:
    network = branched(arch)
    state = main_state(network)
    alone = plain(arch)
    alone.load_state_dict(state)
    images = some_images((3, 3, *SIZE[arch]))
    expected = network.eval()(images).main
    assert torch.equal(alone(images), expected)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.zero_()
    alone.load_state_dict(state)
    assert torch.equal(alone(images), expected)
    assert not any(tensor.requires_grad for tensor in state.values())


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "torchvision/resnet18", "torchvision/mnasnet0_5"])
def test_torchvision_loads_its_names_strictly_and_gives_the_same_logits(arch: str) -> None:
    network = branched(arch, classes=7)
    reference = torchvision.models.get_model(arch.removeprefix("torchvision/"), num_classes=7)
    state = main_state(network, torchvision_names=True)
    assert list(state) == list(reference.state_dict())
    reference.load_state_dict(state, strict=True)
    images = some_images((2, 3, 64, 64))
    logits = network.eval()(images).main
    torch.testing.assert_close(reference.eval()(images), logits)
    assert float(logits.detach().std()) > 1e-3


@pytest.mark.parametrize("arch", ["resnet8", "wrn_10_1", "densenet_10_6"])
def test_torchvisions_names_are_refused_where_it_has_no_such_network(arch: str) -> None:
    with pytest.raises(
        ValueError, match=r"torchvision has no .*: only ImageNet ResNets and torchvision/NAME have names"
    ):
        main_state(branched(arch), torchvision_names=True)


@pytest.mark.parametrize("arch", ["resnet8", "wrn_10_1", "densenet_10_6", "resnet18"])
def test_the_program_gives_the_main_branchs_logits_at_the_plain_networks_cost(arch: str, tmp_path: Path) -> None:
    channels, size = (1 if arch == "resnet8" else 3), SIZE[arch]
    network = branched(arch, channels=channels)
    modes = [module.training for module in network.modules()]
    save_program(network, tmp_path / "main.pt2", channels=channels, size=size)
    assert [module.training for module in network.modules()] == modes
    program = torch.export.load(tmp_path / "main.pt2").module()
    network.eval()
    for count in (1, 2, 5):
        images = some_images((count, channels, *size))
        torch.testing.assert_close(program(images), network(images).main)
    cost = parameters_and_flops(plain(arch, channels=channels), size, channels)
    assert parameters_and_flops(program, size, channels) == cost
    assert parameters_and_flops(network, size, channels)[1] > cost[1]
    assert not any("side" in name for name, _ in program.named_parameters())


def test_a_file_that_cannot_be_written_is_refused_before_anything_starts(tmp_path: Path) -> None:
    for path in (tmp_path / "main.pth", tmp_path / "nowhere" / "main.pt2"):
        with pytest.raises(ValueError, match=r"main.pt.*: give a file named \*\.pt2 in a folder that exists"):
            save_program(branched("resnet8"), path, size=(8, 8))
    assert list(tmp_path.iterdir()) == []
