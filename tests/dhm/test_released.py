import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dhm.backbones import ARCHITECTURES
from dhm.cost import on_meta
from dhm.network import BranchedNetwork, build_network
from dhm.recipe import DataSpec, Recipe
from dhm.released import load_released, read_weights, released_names

Entry = tuple[str, tuple[int, ...]]
RELEASED = [name for name in ARCHITECTURES if ARCHITECTURES.get(name).released]
# Blocks of the main branch's stages, of the shallow side branch's and of the deep one's, as the authors describe them.
CIFAR_RESNETS = {"resnet32": (5, (5, 3), 5), "resnet110": (18, (9, 9), 18), "resnet1202": (200, (100, 100), 200)}
WIDE_RESNETS = {"wrn_16_8": (2, 8, (2, 1), 2), "wrn_28_10": (4, 10, (4, 2), 4)}
DENSENETS = {
    "densenet_40_12": (12, 12, False, (12, 6), 12),
    "densenet_100_12": (32, 12, False, (16, 16), 32),
    "densenet_100_24": (32, 24, False, (16, 16), 32),
    "densenet_bc_100_12": (16, 12, True, (16, 16), 32),
    "densenet_bc_250_24": (41, 24, True, (22, 22), 41),
    "densenet_bc_190_40": (31, 40, True, (16, 16), 31),
}
IMAGENET_RESNETS = {
    "resnet18": ((2, 2, 2, 2), 1, (1, 2), 2),
    "resnet34": ((3, 4, 6, 3), 1, (3, 2), 3),
    "resnet50": ((3, 4, 6, 3), 4, (3, 2), 3),
    "resnet101": ((3, 4, 23, 3), 4, (12, 2), 3),
    "resnet152": ((3, 8, 36, 3), 4, (18, 2), 3),
}


def conv(name: str, entering: int, leaving: int, kernel: int = 3) -> Iterator[Entry]:
    yield f"{name}.weight", (leaving, entering, kernel, kernel)


def bn(name: str, channels: int) -> Iterator[Entry]:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (channels,)
    yield f"{name}.num_batches_tracked", ()


def fc(name: str, channels: int, classes: int) -> Iterator[Entry]:
    yield f"{name}.weight", (classes, channels)
    yield f"{name}.bias", (classes,)


def basic_layer(name: str, blocks: int, entering: int, leaving: int) -> Iterator[Entry]:
    for index in range(blocks):
        yield from conv(f"{name}.{index}.conv1", leaving if index else entering, leaving)
        yield from bn(f"{name}.{index}.bn1", leaving)
        yield from conv(f"{name}.{index}.conv2", leaving, leaving)
        yield from bn(f"{name}.{index}.bn2", leaving)


def cifar_resnet(arch: str, classes: int) -> Iterator[Entry]:
    n, shallow, deep = CIFAR_RESNETS[arch]
    yield from conv("conv1", 3, 16)
    yield from bn("bn1", 16)
    yield from basic_layer("layer1", n, 16, 16)
    yield from basic_layer("layer2", n, 16, 32)
    yield from basic_layer("layer3", n, 32, 64)
    yield from fc("fc", 64, classes)
    yield from basic_layer("layer2_head2", shallow[0], 16, 32)
    yield from basic_layer("layer3_head2", shallow[1], 32, 64)
    yield from fc("fc_head2", 64, classes)
    yield from basic_layer("layer3_head1", deep, 32, 128)
    yield from fc("fc_head1", 128, classes)


def wide_layer(name: str, blocks: int, entering: int, leaving: int) -> Iterator[Entry]:
    for index in range(blocks):
        first = leaving if index else entering
        yield from bn(f"{name}.{index}.bn1", first)
        yield from conv(f"{name}.{index}.conv1", first, leaving)
        yield from bn(f"{name}.{index}.bn2", leaving)
        yield from conv(f"{name}.{index}.conv2", leaving, leaving)
        if first != leaving:
            yield from conv(f"{name}.{index}.shortcut", first, leaving, 1)


def wide_resnet(arch: str, classes: int) -> Iterator[Entry]:
    n, k, shallow, deep = WIDE_RESNETS[arch]
    yield from conv("conv", 3, 16)
    yield from wide_layer("layer1", n, 16, 16 * k)
    yield from wide_layer("layer2", n, 16 * k, 32 * k)
    yield from wide_layer("layer3", n, 32 * k, 64 * k)
    yield from bn("bn", 64 * k)
    yield from fc("fc", 64 * k, classes)
    yield from wide_layer("layer2_head2", shallow[0], 16 * k, 32 * k)
    yield from wide_layer("layer3_head2", shallow[1], 32 * k, 64 * k)
    yield from bn("bn_head2", 64 * k)
    yield from fc("fc_head2", 64 * k, classes)
    yield from wide_layer("layer3_head1", deep, 32 * k, 128 * k)
    yield from bn("bn_head1", 128 * k)
    yield from fc("fc_head1", 128 * k, classes)


def dense_layer(name: str, blocks: int, entering: int, growth: int, bottleneck: bool) -> Iterator[Entry]:
    for index in range(blocks):
        channels = entering + index * growth
        if bottleneck:
            yield from bn(f"{name}.{index}.bn1", channels)
            yield from conv(f"{name}.{index}.conv1", channels, 4 * growth, 1)
            yield from bn(f"{name}.{index}.bn2", 4 * growth)
            yield from conv(f"{name}.{index}.conv2", 4 * growth, growth)
        else:
            yield from bn(f"{name}.{index}.bn", channels)
            yield from conv(f"{name}.{index}.conv", channels, growth)


def transition(name: str, entering: int, leaving: int) -> Iterator[Entry]:
    yield from bn(f"{name}.bn", entering)
    yield from conv(f"{name}.conv", entering, leaving, 1)


def densenet(arch: str, classes: int) -> Iterator[Entry]:
    n, growth, bc, shallow, deep = DENSENETS[arch]
    reduced = (lambda channels: channels // 2) if bc else (lambda channels: channels)
    start = 2 * growth if bc else 16
    node1 = reduced(start + n * growth)
    node2 = reduced(node1 + n * growth)
    yield from conv("conv1", 3, start)
    yield from dense_layer("layer1", n, start, growth, bc)
    yield from transition("transition1", start + n * growth, node1)
    yield from dense_layer("layer2", n, node1, growth, bc)
    yield from transition("transition2", node1 + n * growth, node2)
    yield from dense_layer("layer3", n, node2, growth, bc)
    yield from bn("bn", node2 + n * growth)
    yield from fc("fc", node2 + n * growth, classes)
    inner = node1 + shallow[0] * growth
    last = reduced(inner) + shallow[1] * growth
    yield from dense_layer("layer2_head2", shallow[0], node1, growth, bc)
    yield from transition("transition2_head2", inner, reduced(inner))
    yield from dense_layer("layer3_head2", shallow[1], reduced(inner), growth, bc)
    yield from bn("bn_head2", last)
    yield from fc("fc_head2", last, classes)
    yield from dense_layer("layer3_head1", deep, node2, 3 * growth, bc)
    yield from bn("bn_head1", node2 + 3 * deep * growth)
    yield from fc("fc_head1", node2 + 3 * deep * growth, classes)


def imagenet_layer(name: str, blocks: int, entering: int, planes: int, expansion: int) -> Iterator[Entry]:
    leaving = planes * expansion
    for index in range(blocks):
        first = leaving if index else entering
        kernels = (3, 3) if expansion == 1 else (1, 3, 1)
        for number, kernel in enumerate(kernels, 1):
            wide = leaving if number == len(kernels) else planes
            yield from conv(f"{name}.{index}.conv{number}", first if number == 1 else planes, wide, kernel)
            yield from bn(f"{name}.{index}.bn{number}", wide)
        if index == 0 and (planes > 64 or entering != leaving):
            yield from conv(f"{name}.0.downsample.0", entering, leaving, 1)
            yield from bn(f"{name}.0.downsample.1", leaving)


def imagenet_resnet(arch: str, classes: int) -> Iterator[Entry]:
    depths, e, shallow, deep = IMAGENET_RESNETS[arch]
    yield from conv("conv1", 3, 64, 7)
    yield from bn("bn1", 64)
    yield from imagenet_layer("layer1", depths[0], 64, 64, e)
    yield from imagenet_layer("layer2", depths[1], 64 * e, 128, e)
    yield from imagenet_layer("layer3", depths[2], 128 * e, 256, e)
    yield from imagenet_layer("layer4", depths[3], 256 * e, 512, e)
    yield from fc("fc", 512 * e, classes)
    yield from imagenet_layer("layer3_head2", shallow[0], 128 * e, 256, e)
    yield from imagenet_layer("layer4_head2", shallow[1], 256 * e, 512, e)
    yield from fc("fc_head2", 512 * e, classes)
    yield from imagenet_layer("layer4_head1", deep, 256 * e, 1024, e)
    yield from fc("fc_head1", 1024 * e, classes)


def layout(arch: str, classes: int) -> list[Entry]:
    """Names and shapes of a released state dict, in its order."""
    for family, member in (
        (cifar_resnet, CIFAR_RESNETS),
        (wide_resnet, WIDE_RESNETS),
        (densenet, DENSENETS),
        (imagenet_resnet, IMAGENET_RESNETS),
    ):
        if arch in member:
            return list(family(arch, classes))
    raise AssertionError(arch)


def weights_of(arch: str, classes: int) -> dict[str, Tensor]:
    """A released state dict in which no two tensors are alike."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.tensor(7) if shape == () else torch.rand(shape, generator=generator) * 0.1 + 0.05
        for name, shape in layout(arch, classes)
    }


def recipe(arch: str) -> Recipe:
    return Recipe(arch=arch, epochs=1, data=DataSpec(name="digits"), branches=ARCHITECTURES.get(arch).branches)


def test_there_are_sixteen_released_architectures() -> None:
    assert sorted(RELEASED) == sorted([*CIFAR_RESNETS, *WIDE_RESNETS, *DENSENETS, *IMAGENET_RESNETS])


@pytest.mark.parametrize("arch", RELEASED)
def test_names_and_shapes_follow_from_the_structure_in_the_released_order(arch: str) -> None:
    network = on_meta(recipe(arch), num_classes=7)
    names = released_names(network)
    state = network.state_dict()
    # Both codes list a network's layers as they follow each other, so equal orders pair like with like.
    assert list(names) == list(state)
    assert [(theirs, tuple(state[ours].shape)) for ours, theirs in names.items()] == layout(arch, 7)


@pytest.mark.parametrize("arch", ["resnet32", "densenet_40_12", "densenet_bc_100_12"])
@pytest.mark.parametrize("form", ["plain", "parallel", "checkpoint", "old"])
def test_every_form_of_file_is_read_into_the_right_tensors(arch: str, form: str, tmp_path: Path) -> None:
    weights = weights_of(arch, 11)
    content = weights if form in ("plain", "old") else {f"module.{name}": value for name, value in weights.items()}
    if form == "checkpoint":
        content = {"epoch": 4, "arch": arch, "state_dict": content, "best_prec1": 12.5, "optimizer": {"state": {}}}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=form != "old")
    network = load_released(tmp_path / "w.pth", arch)
    assert not network.training
    assert network.backbone.num_classes == 11
    state = network.state_dict()
    for ours, theirs in released_names(network).items():
        assert torch.equal(state[ours], weights[theirs]), ours
    assert all(tensor.device.type == "cpu" and tensor.requires_grad for tensor in network.parameters())


def saved(network: BranchedNetwork, path: Path) -> dict[str, Tensor]:
    names = released_names(network)
    weights = {names[ours]: tensor for ours, tensor in network.state_dict().items()}
    torch.save(weights, path)
    return weights


def test_what_was_computed_is_computed_again(tmp_path: Path) -> None:
    network = build_network(recipe("resnet32"), in_channels=3, num_classes=5, seed=0)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network.train()(images * 3 + 1)  # statistics that are not the first ones
    saved(network, tmp_path / "w.pth")
    expected, found = network.eval()(images), load_released(tmp_path / "w.pth", "resnet32")(images)
    assert torch.equal(found.stacked(), expected.stacked())


def test_counters_of_batches_may_be_missing_and_half_precision_is_widened(tmp_path: Path) -> None:
    weights = {name: tensor.half() for name, tensor in weights_of("resnet32", 5).items() if "num_batches" not in name}
    torch.save(weights, tmp_path / "w.pth")
    network = load_released(tmp_path / "w.pth", "resnet32")
    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}
    assert not any(value.is_meta for value in network.state_dict().values())


def test_a_main_branch_without_side_branches_is_a_plain_network(tmp_path: Path) -> None:
    weights = {name: tensor for name, tensor in weights_of("resnet32", 5).items() if "_head" not in name}
    torch.save(weights, tmp_path / "w.pth")
    network = load_released(tmp_path / "w.pth", "resnet32")
    assert list(network.sides) == []
    assert torch.equal(network.backbone.classifier[-1].weight, weights["fc.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"extra": torch.zeros(1), "layer2.0.conv1.weight": torch.zeros(9, 16, 3, 3)},
            r"1 tensor\(s\) unexpected \(extra\); "
            r"1 tensor\(s\) of another shape \(layer2\.0\.conv1\.weight \[9, 16, 3, 3\] instead of \[32, 16, 3, 3\]\)$",
        ),
        (
            {f"layer1.{index}.bn1.bias": None for index in range(5)} | {"fc_head1.bias": torch.zeros(3)},
            r"5 tensor\(s\) missing \(layer1\.0\.bn1\.bias, layer1\.1\.bn1\.bias, layer1\.2\.bn1\.bias, \.\.\.\); "
            r"1 tensor\(s\) of another shape \(fc_head1\.bias",
        ),
        ({"fc.weight": None}, r"1 tensor\(s\) missing \(fc\.weight\)"),
    ],
)
def test_what_differs_is_named(change: dict[str, Tensor | None], message: str, tmp_path: Path) -> None:
    weights = {name: tensor for name, tensor in (weights_of("resnet32", 5) | change).items() if tensor is not None}
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth does not hold resnet32 as released: .*" + message):
        load_released(tmp_path / "w.pth", "resnet32")


def test_the_architecture_that_a_file_holds_is_named(tmp_path: Path) -> None:
    torch.save(weights_of("densenet_40_12", 5), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="holds densenet_40_12, not resnet50: give arch=densenet_40_12"):
        load_released(tmp_path / "w.pth", "resnet50")


def test_an_architecture_that_was_not_released_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown released architecture 'resnet20'"):
        load_released(tmp_path / "w.pth", "resnet20")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_is_cut_short_is_called_so(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.rand(1000)}, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    for length in (*range(0, 500, 7), len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(
            ValueError, match=r"w\.pth (cannot be read: it is cut short or|asks for .*the file is) damaged"
        ):
            read_weights(path)


class Trap:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("trap",)


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Trap()}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth asks for \S+mkdir, which is no tensor and may run code"):
        read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "trap").exists()
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"save the network's state_dict\(\) alone"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "holds no state dict but a list"),
        ({}, "holds no state dict but a dict"),
        ({"epoch": 1, "model": {}}, "holds no state dict: epoch, model among its entries is no tensor"),
        ({"state_dict": [1]}, "holds no state dict but a list"),
    ],
)
def test_a_file_without_a_state_dict_is_refused(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=message):
        read_weights(tmp_path / "w.pth")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a file: give the path of a state dict"):
        read_weights(tmp_path)
    (tmp_path / "w.pth").write_bytes(b"<html>sign in</html>")
    with pytest.raises(ValueError, match=r"torch\.save did not write it; fetch it again"):
        read_weights(tmp_path / "w.pth")
