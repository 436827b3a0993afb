"""Weights of the authors' released code: read into our networks, tensor by tensor.

Their names follow from the structure: `layer2.0.conv1` in the main branch, `layer2_head2.0.conv1` in the side branch
that has two stages of its own, `fc_head1` at the end of the one that has a single stage. For ImageNet ResNets the main
branch's names are torchvision's.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from dhm.backbones import ARCHITECTURES
from dhm.backbones.densenet import DenseLayer, Transition
from dhm.backbones.wide_resnet import WideResNet
from dhm.branches import SideBranch
from dhm.cost import on_meta
from dhm.network import BranchedNetwork
from dhm.recipe import DataSpec, Recipe
from dhm.registry import unknown

KINDS: dict[type[nn.Module], str] = {nn.Conv2d: "conv", nn.BatchNorm2d: "bn", nn.Linear: "fc"}
COUNTER = "num_batches_tracked"  # old files lack it; nothing that is computed depends on it
SHOWN = 3  # tensors that a message names


def load_released(path: Path, arch: str) -> BranchedNetwork:
    """The network that a file of the released code holds, with its released side branches, in evaluation mode.

    The number of classes is the file's. A file without any side branch (torchvision's own weights) is a plain network.

    Raises:
        ValueError: an architecture that was not released, a file that cannot be read, or weights that are not that
            architecture's; says what differs.
    """
    released = [name for name in ARCHITECTURES if ARCHITECTURES.get(name).released]
    if arch not in released:
        raise unknown("released architecture", arch, released)
    weights = read_weights(path)
    network = _network(arch, weights)
    problems = _differences(network, weights)
    if problems:
        others = (name for name in released if name != arch and not _differences(_network(name, weights), weights))
        other = next(others, None)
        if other is not None:
            raise ValueError(f"{path} holds {other}, not {arch}: give arch={other}")
        raise ValueError(f"{path} does not hold {arch} as released: {'; '.join(problems)}")
    state = {
        ours: weights.get(theirs, torch.zeros((), dtype=torch.int64))
        for ours, theirs in released_names(network).items()
    }
    network.load_state_dict(state, assign=True)
    return network.float().eval()


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, or in a checkpoint of the released training scripts, without the prefix `module.`.

    Loading runs no code from the file.

    Raises:
        ValueError: there is no such file, it is damaged, or holds no state dict.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not a file: give the path of a state dict (.pth)")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch.load raise what it likes: IndexError, struct.error
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise ValueError(
                f"{path} asks for {refused[1]}, which is no tensor and may run code (or the file is damaged): "
                "save the network's state_dict() alone"
            ) from error
        raise ValueError(
            f"{path} cannot be read: it is cut short or damaged, or torch.save did not write it; fetch it again"
        ) from error
    if isinstance(content, Mapping) and "state_dict" in content:
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path} holds no state dict but a {type(content).__name__}: save the network's state_dict()")
    strange = [name for name, value in content.items() if not isinstance(name, str) or not isinstance(value, Tensor)]
    if strange:
        raise ValueError(
            f"{path} holds no state dict: {_some([str(name) for name in strange])} among its entries is no tensor"
        )
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def released_names(network: BranchedNetwork) -> dict[str, str]:
    """The released code's name of every tensor of our network, by our name."""
    return {
        f"{ours}.{tensor}": f"{theirs}.{tensor}"
        for ours, theirs in _layers(network)
        for tensor in network.get_submodule(ours).state_dict()
    }


def _layers(network: BranchedNetwork) -> Iterator[tuple[str, str]]:
    """Our path and the released name of every layer that has weights."""
    backbone = network.backbone
    number = "" if isinstance(backbone, WideResNet) else "1"
    for path, kind in _by_kind(backbone.stem, "backbone.stem"):
        yield path, f"{kind}{number}"
    yield from _of_branch("backbone", backbone, 1, "")
    for name, side in network.sides.items():
        after = cast(SideBranch, side).spec.after
        yield from _of_branch(f"sides.{name}", side, after + 1, f"_head{len(backbone.info) - after}")


def _of_branch(ours: str, branch: nn.Module, first: int, suffix: str) -> Iterator[tuple[str, str]]:
    """The layers of a branch whose first stage has the number `first`, without its stem."""
    for number, stage in enumerate(branch.get_submodule("stages").children(), first):
        for place, block in stage.named_children():
            layer = f"layer{number}{suffix}.{place}"
            if isinstance(block, Transition):
                layer = f"transition{number}{suffix}"
            at = f"{ours}.stages.{number - first}.{place}"
            for path, kind in _by_kind(block, at):
                # Blocks other than DenseNet's have the released names already.
                renamed = isinstance(block, DenseLayer | Transition)
                yield path, f"{layer}.{kind if renamed else path.removeprefix(at + '.')}"
    for path, kind in _by_kind(branch.get_submodule("classifier"), f"{ours}.classifier"):
        yield path, f"{kind}{suffix}"


def _by_kind(module: nn.Module, at: str) -> Iterator[tuple[str, str]]:
    """Paths of the layers of a module that have weights, each with its kind, numbered where there are several of it."""
    layers = [(path, KINDS[type(part)]) for path, part in module.named_modules(prefix=at) if type(part) in KINDS]
    total, seen = Counter(kind for _, kind in layers), Counter[str]()
    for path, kind in layers:
        seen[kind] += 1
        yield path, f"{kind}{seen[kind]}" if total[kind] > 1 else kind


def _network(arch: str, weights: Mapping[str, Tensor]) -> BranchedNetwork:
    """The network, without memory for its weights, with the classes and the side branches that the weights have."""
    branched = any("_head" in name for name in weights)
    last = weights.get("fc.weight")
    recipe = Recipe(
        arch=arch,
        epochs=1,
        data=DataSpec(name="image_folder"),
        branches=ARCHITECTURES.get(arch).branches if branched else (),
    )
    return on_meta(recipe, num_classes=len(last) if last is not None and last.ndim else 1)


def _differences(network: BranchedNetwork, weights: Mapping[str, Tensor]) -> list[str]:
    """What keeps the weights from being the network's, a phrase for each kind of difference."""
    state = network.state_dict()
    expected = {theirs: state[ours].shape for ours, theirs in released_names(network).items()}
    missing = [name for name in expected if name not in weights and not name.endswith(COUNTER)]
    unexpected = [name for name in weights if name not in expected]
    shapes = [
        f"{name} {list(tensor.shape)} instead of {list(expected[name])}"
        for name, tensor in weights.items()
        if name in expected and tensor.shape != expected[name]
    ]
    found = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    return [f"{len(names)} tensor(s) {what} ({_some(names)})" for what, names in found if names]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
