"""Wide ResNets (released models/cifar/wrn.py): three stages of pre-activation blocks, 16 k, 32 k and 64 k channels."""

from torch import Tensor, nn
from torch.nn import functional as F

from dhm.backbones.base import (
    ARCHITECTURES,
    Architecture,
    Backbone,
    PooledLinear,
    SeededDropout,
    conv3x3,
    released_branches,
    scaled,
)

STEM_CHANNELS = 16
CHANNELS = (16, 32, 64)


class PreactivationBlock(nn.Module):
    """BatchNorm, ReLU and 3 by 3 convolution twice, dropout between; a 1 by 1 convolution where the channels change."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.dropout = SeededDropout(dropout) if dropout else nn.Identity()
        self.conv2 = conv3x3(out_channels, out_channels)
        # A stage that strides without changing its channels (a narrow branch) needs a shortcut too.
        reshapes = in_channels != out_channels or stride > 1
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False) if reshapes else None

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride), sizes rounded up."""
        activated = F.relu(self.bn1(maps), inplace=True)
        out = self.dropout(F.relu(self.bn2(self.conv1(activated)), inplace=True))
        shortcut = maps if self.shortcut is None else self.shortcut(activated)
        merged: Tensor = self.conv2(out) + shortcut
        return merged


class WideResNet(Backbone):
    """Wide ResNet for small images, of 6 n + 4 layers and widening factor k."""

    takes_dropout = True

    def __init__(
        self, *, depth: int, widening: float, in_channels: int = 3, num_classes: int, dropout: float = 0.0
    ) -> None:
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise ValueError(f"a wide ResNet has 6 n + 4 layers (10, 16, 22, 28, ...); {depth} is not one of them")
        super().__init__(depths=(blocks,) * len(CHANNELS), num_classes=num_classes, dropout=dropout)
        self.widening = widening
        self.assemble(stem=conv3x3(in_channels, STEM_CHANNELS), stem_channels=STEM_CHANNELS)

    def stage(
        self, index: int, *, in_channels: int, blocks: int, width: float, continued: bool = False
    ) -> tuple[nn.Module, int]:
        """See `Backbone.stage`."""
        channels = scaled(CHANNELS[index], self.widening * width)
        first = PreactivationBlock(in_channels, channels, 1 if continued else self.stage_stride(index), self.dropout)
        rest = (PreactivationBlock(channels, channels, 1, self.dropout) for _ in range(blocks - 1))
        return nn.Sequential(first, *rest), channels

    def stage_stride(self, index: int) -> int:
        """See `Backbone.stage_stride`."""
        return 1 if index == 0 else 2

    def classifier_for(self, channels: int) -> nn.Module:
        """See `Backbone.classifier_for`."""
        return PooledLinear(channels, self.num_classes, preactivation=True)


def _register(
    name: str, depth: int, widening: float, shallow: tuple[int, int], deep: int, *, released: bool = True
) -> None:
    ARCHITECTURES.register(
        name,
        Architecture(
            family=WideResNet,
            options={"depth": depth, "widening": widening},
            branches=released_branches(shallow, deep, 2.0),
            released=released,
        ),
    )


_register("wrn_10_1", 10, 1, (1, 1), 1, released=False)
_register("wrn_16_8", 16, 8, (2, 1), 2)
_register("wrn_28_10", 28, 10, (4, 2), 4)
