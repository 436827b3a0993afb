"""The main branch alone, for inference: as a state dict, or as a program that runs without any code of ours."""

import copy
from pathlib import Path

import torch
from torch import Tensor

from dhm.backbones.adapter import FAMILY, TorchvisionBackbone
from dhm.backbones.imagenet_resnet import ImageNetResNet
from dhm.network import BranchedNetwork
from dhm.released import released_names

SUFFIX = ".pt2"  # torch.export.save warns of any other


def main_state(network: BranchedNetwork, *, torchvision_names: bool = False) -> dict[str, Tensor]:
    """Copies of the main branch's weights and statistics, on the CPU.

    Args:
        torchvision_names: as torchvision's network of the same name has them (of `torchvision/NAME` that of NAME),
            instead of our own.

    Raises:
        ValueError: torchvision has no network of this family.
    """
    state = _by_torchvision(network) if torchvision_names else dict(network.main_only().state_dict())
    copies = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
    state.update(copies)  # in place: torchvision's keeps its note of versions
    return state


def _by_torchvision(network: BranchedNetwork) -> dict[str, Tensor]:
    main = network.main_only()
    if isinstance(main, TorchvisionBackbone):
        return main.torchvision_state_dict()
    if isinstance(main, ImageNetResNet):
        names = released_names(network)
        return {names[f"backbone.{name}"]: tensor for name, tensor in main.state_dict().items()}
    raise ValueError(
        f"torchvision has no {type(main).__name__}: only ImageNet ResNets and {FAMILY}/NAME have names there; "
        "export with our own"
    )


def save_program(network: BranchedNetwork, path: Path, *, channels: int = 3, size: tuple[int, int]) -> None:
    """Write the main branch, in evaluation mode and on the CPU, as a program of torch.export.

    `torch.export.load(path).module()` maps images (B, channels, H, W), normalised and of any number, to logits.

    Args:
        path: the file, named *.pt2.
        channels: of an image.
        size: height and width of an image, in pixels; the program takes no other.

    Raises:
        ValueError: another name, or a folder that is not there.
    """
    if path.suffix != SUFFIX or not path.parent.is_dir():
        raise ValueError(f"{path}: give a file named *{SUFFIX} in a folder that exists")
    main = copy.deepcopy(network.main_only()).cpu().eval()  # a copy, so that training can go on
    images = torch.zeros(2, channels, *size, dtype=next(main.parameters()).dtype)
    program = torch.export.export(main, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, path)
