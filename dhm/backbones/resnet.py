"""CIFAR ResNets (released models/cifar/resnet.py): three stages of basic blocks, 16, 32 and 64 channels."""

from torch import Tensor, nn
from torch.nn import functional as F

from dhm.backbones.base import (
    ARCHITECTURES,
    Architecture,
    Backbone,
    PooledLinear,
    conv3x3,
    released_branches,
    scaled,
)

CHANNELS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Two 3 by 3 convolutions and a shortcut.

    Where the shape changes the shortcut is 2 by 2 average pooling and zeros for the channels that are new, without
    weights. A branch that narrows has no channels to add: there a 1 by 1 convolution, `projection`, takes its place.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.added_channels = max(0, out_channels - in_channels)
        self.projection = nn.Conv2d(in_channels, out_channels, 1, bias=False) if out_channels < in_channels else None

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride), sizes rounded up."""
        out = F.relu(self.bn1(self.conv1(maps)), inplace=True)
        out = self.bn2(self.conv2(out))
        if self.stride > 1:
            maps = F.avg_pool2d(maps, self.stride, ceil_mode=True)
        if self.projection is not None:
            maps = self.projection(maps)
        elif self.added_channels:
            maps = F.pad(maps, (0, 0, 0, 0, 0, self.added_channels))
        return F.relu(out + maps, inplace=True)


class CifarResNet(Backbone):
    """ResNet for small images, of 6 n + 2 layers."""

    def __init__(self, *, depth: int, in_channels: int = 3, num_classes: int, dropout: float = 0.0) -> None:
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"a CIFAR ResNet has 6 n + 2 layers (8, 14, 20, 32, ...); {depth} is not one of them")
        super().__init__(depths=(blocks,) * len(CHANNELS), num_classes=num_classes, dropout=dropout)
        stem = nn.Sequential(conv3x3(in_channels, CHANNELS[0]), nn.BatchNorm2d(CHANNELS[0]), nn.ReLU(inplace=True))
        self.assemble(stem=stem, stem_channels=CHANNELS[0])

    def stage(
        self, index: int, *, in_channels: int, blocks: int, width: float, continued: bool = False
    ) -> tuple[nn.Module, int]:
        """See `Backbone.stage`."""
        channels = scaled(CHANNELS[index], width)
        first = BasicBlock(in_channels, channels, 1 if continued else self.stage_stride(index))
        return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1))), channels

    def stage_stride(self, index: int) -> int:
        """See `Backbone.stage_stride`."""
        return 1 if index == 0 else 2

    def classifier_for(self, channels: int) -> nn.Module:
        """See `Backbone.classifier_for`."""
        return PooledLinear(channels, self.num_classes)


def _register(depth: int, shallow: tuple[int, int], deep: int, *, released: bool) -> None:
    ARCHITECTURES.register(
        f"resnet{depth}",
        Architecture(
            family=CifarResNet,
            options={"depth": depth},
            branches=released_branches(shallow, deep, 2.0),
            released=released,
        ),
    )


_register(8, (1, 1), 1, released=False)
_register(14, (2, 1), 2, released=False)
_register(20, (3, 2), 3, released=False)
_register(32, (5, 3), 5, released=True)
_register(110, (9, 9), 18, released=True)
_register(1202, (100, 100), 200, released=True)
