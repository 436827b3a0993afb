"""What every backbone is: a stem, stages and a classifier, each stage able to say what it hands on.

A side branch is built from the same parts (`Backbone.stage`, `Backbone.classifier_for`), so a family writes its blocks
once, and nothing outside it names a layer.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dhm.recipe import BranchSpec
from dhm.registry import Registry


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StageInfo:
    """What a stage hands to whoever follows it.

    Args:
        channels: of its output.
        stride: of its output against the image; 4 for maps of 8 by 8 from an image of 32 by 32.
        depth: its number of blocks.
    """

    channels: int
    stride: int
    depth: int


class Backbone(nn.Module):
    """A network as stem, stages and classifier.

    Subclasses set `stem_channels`, the stem, and what `stage` and `classifier_for` build, then call `assemble`.

    Attributes:
        stem: image (B, in_channels, H, W) to maps (B, stem_channels, H', W').
        stages: modules in a row; the output of each is a node, where side branches may fork.
        classifier: last maps to logits (B, num_classes).
        info: one `StageInfo` a stage.
    """

    stem: nn.Module
    stages: nn.ModuleList
    classifier: nn.Module
    info: tuple[StageInfo, ...]
    takes_dropout: ClassVar[bool] = False

    def __init__(self, *, depths: tuple[int, ...], num_classes: int, dropout: float) -> None:
        super().__init__()
        if dropout and not self.takes_dropout:
            raise ValueError(f"{type(self).__name__} has no dropout: leave dropout at 0")
        self.depths = depths
        self.num_classes = num_classes
        self.dropout = dropout

    def assemble(self, *, stem: nn.Module, stem_channels: int, stem_stride: int = 1) -> None:
        """Build the main branch from the family's parts."""
        self.stem = stem
        self.stages = nn.ModuleList()
        infos: list[StageInfo] = []
        channels, stride = stem_channels, stem_stride
        for index, depth in enumerate(self.depths):
            module, channels = self.stage(index, in_channels=channels, blocks=depth, width=1.0)
            stride *= self.stage_stride(index)
            self.stages.append(module)
            infos.append(StageInfo(channels=channels, stride=stride, depth=depth))
        self.info = tuple(infos)
        self.classifier = self.classifier_for(channels)

    def stage(
        self, index: int, *, in_channels: int, blocks: int, width: float, continued: bool = False
    ) -> tuple[nn.Module, int]:
        """A stage of this family, and the channels that it hands on.

        Args:
            index: which stage of the backbone it follows, 0-based: sets its channels and its stride.
            in_channels: channels that it is given.
            blocks: its depth.
            width: factor on its channels (for DenseNet, on its growth rate).
            continued: whether it goes on from a block inside that stage, and so does not reduce the maps again.
        """
        raise NotImplementedError

    def node_channels(self, index: int, block: int) -> int:
        """Channels at a node: after a block (from 1) of a stage (from 0), or with block 0 at the stage's output."""
        return self.info[index].channels

    def stage_stride(self, index: int) -> int:
        """By how much a stage reduces its maps."""
        raise NotImplementedError

    def classifier_for(self, channels: int) -> nn.Module:
        """What ends a branch of this family: maps (B, channels, H, W) to logits (B, num_classes)."""
        raise NotImplementedError

    def initialise(self, module: nn.Module, generator: torch.Generator) -> None:
        """Draw the weights of a part of this family anew."""
        initialise_cifar(module, generator)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, in_channels, H, W)."""
        maps = self.stem(images)
        for stage in self.stages:
            maps = stage(maps)
        logits: Tensor = self.classifier(maps)
        return logits


def scaled(channels: int, width: float) -> int:
    """Channels times a width factor, at least one."""
    return max(1, round(channels * width))


def initialise_cifar(module: nn.Module, generator: torch.Generator) -> None:
    """Convolutions normal(0, sqrt(2 / (k k out))), BatchNorm 1 and 0, linear layers uniform as torch has it."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            fan_out = part.kernel_size[0] * part.kernel_size[1] * part.out_channels
            nn.init.normal_(part.weight, 0.0, math.sqrt(2.0 / fan_out), generator=generator)
        elif isinstance(part, nn.BatchNorm2d):
            part.reset_parameters()
        elif isinstance(part, nn.Linear):
            bound = 1.0 / math.sqrt(part.in_features)
            nn.init.uniform_(part.weight, -bound, bound, generator=generator)
            if part.bias is not None:
                nn.init.uniform_(part.bias, -bound, bound, generator=generator)


class PooledLinear(nn.Sequential):
    """Global average pooling and a linear layer; BatchNorm and ReLU first, for the pre-activation families."""

    def __init__(self, channels: int, num_classes: int, *, preactivation: bool = False) -> None:
        first = [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)] if preactivation else []
        super().__init__(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(channels, num_classes))


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3 by 3 convolution with padding and no bias."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


class SeededDropout(nn.Module):
    """Dropout that draws from a generator of its own head, so that a side branch does not disturb the main branch.

    `seed_dropout` gives it the generator; without one it refuses to train.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.generator: torch.Generator | None = None

    def forward(self, maps: Tensor) -> Tensor:
        """Maps with values dropped and the others scaled up; in evaluation the maps themselves."""
        if not self.training:
            return maps
        assert self.generator is not None, "seed_dropout was not called"
        keep = 1.0 - self.probability
        # Drawn in one order, whatever the memory format of the maps.
        mask = torch.empty(maps.shape, dtype=maps.dtype, device=maps.device).bernoulli_(keep, generator=self.generator)
        return maps * mask.div_(keep)

    def extra_repr(self) -> str:
        """For printing the module."""
        return f"p={self.probability}"


def seed_dropout(module: nn.Module, generator: torch.Generator) -> None:
    """Let every dropout layer inside a module draw from a generator."""
    for part in module.modules():
        if isinstance(part, SeededDropout):
            part.generator = generator


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """A named backbone: its family, the family's arguments, and the side branches that its authors gave it.

    Args:
        branches: the released side branches, or, where the architecture is our own, branches in their manner.
        released: whether the authors' code has this architecture.
    """

    family: Callable[..., Backbone]
    options: Mapping[str, Any]
    branches: tuple[BranchSpec, ...]
    released: bool = True

    def build(self, *, in_channels: int = 3, num_classes: int, dropout: float = 0.0) -> Backbone:
        """The backbone, with weights that are yet to be drawn (`Backbone.initialise`)."""
        return self.family(in_channels=in_channels, num_classes=num_classes, dropout=dropout, **self.options)


ARCHITECTURES: Registry[Architecture] = Registry("architecture")


def released_branches(shallow: tuple[int, int], deep: int, deep_width: float) -> tuple[BranchSpec, BranchSpec]:
    """The two branches of a three-stage network, as released: after stage 1, and a wider one after stage 2."""
    return (
        BranchSpec(after=1, blocks=shallow),
        BranchSpec(after=2, blocks=(deep,), width=deep_width),
    )
