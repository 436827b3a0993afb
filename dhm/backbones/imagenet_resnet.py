"""ImageNet ResNets (released models/imagenet/resnet.py): four stages of torchvision's own blocks.

The initialisation of the other families is Kaiming's for ReLU over the fan-out, which is what these are given too.
"""

from typing import Literal

from torch import nn

from dhm.backbones.base import ARCHITECTURES, Architecture, Backbone, PooledLinear, scaled
from dhm.recipe import BranchSpec

Block = Literal["BasicBlock", "Bottleneck"]

STEM_CHANNELS = 64
STEM_STRIDE = 4  # a convolution and a pooling, each of stride 2
CHANNELS = (64, 128, 256, 512)  # before the block's expansion


class ImageNetResNet(Backbone):
    """ResNet for large images, with basic blocks or, past 34 layers, with bottlenecks.

    Args:
        block: torchvision's name for it.
        depths: blocks of each stage.
    """

    def __init__(
        self,
        *,
        block: Block,
        depths: tuple[int, ...],
        in_channels: int = 3,
        num_classes: int,
        dropout: float = 0.0,
    ) -> None:
        from torchvision.models import resnet  # noqa: PLC0415  (2 s to import; only those who build one need it)

        super().__init__(depths=depths, num_classes=num_classes, dropout=dropout)
        self.block = getattr(resnet, block)
        stem = nn.Sequential(
            nn.Conv2d(in_channels, STEM_CHANNELS, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(STEM_CHANNELS),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.assemble(stem=stem, stem_channels=STEM_CHANNELS, stem_stride=STEM_STRIDE)

    def stage(
        self, index: int, *, in_channels: int, blocks: int, width: float, continued: bool = False
    ) -> tuple[nn.Module, int]:
        """See `Backbone.stage`."""
        planes, stride = scaled(CHANNELS[index], width), 1 if continued else self.stage_stride(index)
        channels = planes * self.block.expansion
        shortcut = None
        if stride > 1 or in_channels != channels:
            shortcut = nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
        first = self.block(in_channels, planes, stride, shortcut)
        return nn.Sequential(first, *(self.block(channels, planes) for _ in range(blocks - 1))), channels

    def stage_stride(self, index: int) -> int:
        """See `Backbone.stage_stride`."""
        return 1 if index == 0 else 2

    def classifier_for(self, channels: int) -> nn.Module:
        """See `Backbone.classifier_for`."""
        return PooledLinear(channels, self.num_classes)


def _register(
    depth: int,
    block: Block,
    depths: tuple[int, int, int, int],
    shallow: tuple[int, int],
    deep: int,
) -> None:
    ARCHITECTURES.register(
        f"resnet{depth}",
        Architecture(
            family=ImageNetResNet,
            options={"block": block, "depths": depths},
            branches=(BranchSpec(after=2, blocks=shallow), BranchSpec(after=3, blocks=(deep,), width=2.0)),
        ),
    )


_register(18, "BasicBlock", (2, 2, 2, 2), (1, 2), 2)
_register(34, "BasicBlock", (3, 4, 6, 3), (3, 2), 3)
_register(50, "Bottleneck", (3, 4, 6, 3), (3, 2), 3)
_register(101, "Bottleneck", (3, 4, 23, 3), (12, 2), 3)
_register(152, "Bottleneck", (3, 8, 36, 3), (18, 2), 3)
