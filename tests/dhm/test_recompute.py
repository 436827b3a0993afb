import dataclasses

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from dhm.backbones import ARCHITECTURES
from dhm.data import RawData
from dhm.engine import fit
from dhm.network import build_network
from dhm.recipe import BranchSpec, DataSpec, MimicSpec, OptimSpec, Recipe
from dhm.training import Runtime

RECIPE = Recipe(
    arch="densenet_10_6",
    epochs=2,
    data=DataSpec(name="digits", train_size=50, pad=1, flip=False),
    optim=OptimSpec(lr=0.05, batch_size=20),
    branches=(BranchSpec(after=1, blocks=(1, 1)), BranchSpec(after=2, blocks=(1,), width=2)),
    mimic=MimicSpec(),
)


@pytest.mark.parametrize(
    ("arch", "change"),
    [
        ("densenet_10_6", {"dropout": 0.2}),
        ("wrn_10_1", {"dropout": 0.3, "precision": "bf16"}),
        ("resnet8", {"branches": (BranchSpec(after=1, block=1, blocks=(1, 1, 1)),)}),
    ],
    ids=["densenet with dropout", "wide resnet in bf16", "a fork inside a stage"],
)
def test_what_is_computed_again_gives_the_same_bits(arch: str, change: dict[str, object], few_digits: RawData) -> None:
    arch = "resnet14" if arch == "resnet8" else arch  # whose stages have a node inside
    recipe = dataclasses.replace(RECIPE, arch=arch, **change)  # type: ignore[arg-type]
    kept, again = (fit(recipe, 0, Runtime(recompute=recompute), data=few_digits) for recompute in (False, True))
    assert [record.metrics for record in again.history] == [record.metrics for record in kept.history]
    found = again.network.state_dict()
    for name, value in kept.network.state_dict().items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("name", ["alexnet", "vgg11_bn"])
def test_a_stage_that_begins_with_an_activation_leaves_the_maps_that_are_kept_for_it(name: str) -> None:
    arch = f"torchvision/{name}"
    recipe = dataclasses.replace(RECIPE, arch=arch, branches=ARCHITECTURES.get(arch).branches)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    network = build_network(recipe, in_channels=3, num_classes=10, seed=0).train()
    found = []
    for recompute in (False, True):
        network.recompute = recompute
        network.zero_grad()
        torch.manual_seed(0)  # of the model's own dropout
        network(images).stacked().square().sum().backward()
        found.append([parameter.grad for parameter in network.parameters()])
    for kept, again in zip(*found, strict=True):
        assert torch.equal(kept, again)


def saved_bytes(recompute: bool) -> int:
    """Bytes that a forward pass keeps for the backward pass, the weights apart."""
    architecture = ARCHITECTURES.get("densenet_40_12")
    recipe = dataclasses.replace(RECIPE, arch="densenet_40_12", branches=architecture.branches)
    network = build_network(recipe, in_channels=3, num_classes=10, seed=0)
    network.recompute = recompute
    weights = {parameter.data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(note, nn.Identity()):
        heads = network(torch.randn(2, 3, 32, 32))
    assert heads.main.requires_grad
    return sum(kept.values())


def test_little_is_kept_for_the_backward_pass() -> None:
    assert saved_bytes(recompute=True) < saved_bytes(recompute=False) / 10


def test_recomputing_does_not_go_with_the_compiler(few_digits: RawData) -> None:
    with pytest.raises(ValueError, match="leave one of them out"):
        fit(RECIPE, 0, Runtime(recompute=True, compile=True), data=few_digits)
