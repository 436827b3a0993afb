"""DenseNets for small images (released models/cifar/densenet.py): three dense blocks, a transition after the first two.

A stage is a dense block and the transition that follows it, so the nodes are the transitions' outputs.
"""

import math

import torch
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

STAGES = 3
BOTTLENECK = 4  # channels of the bottleneck's 1 by 1 convolution, in growth rates


class DenseLayer(nn.Module):
    """BatchNorm, ReLU and 3 by 3 convolution to `growth` new channels, put beside the old ones.

    With `bottleneck` a 1 by 1 convolution to 4 `growth` channels comes first.
    """

    def __init__(self, in_channels: int, growth: int, *, bottleneck: bool, dropout: float) -> None:
        super().__init__()
        self.reduce: nn.Module | None = None
        if bottleneck:
            inner = BOTTLENECK * growth
            self.reduce = _activated(in_channels, nn.Conv2d(in_channels, inner, 1, bias=False), dropout)
            in_channels = inner
        self.grow = _activated(in_channels, conv3x3(in_channels, growth), dropout)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C + growth, H, W)."""
        new = maps if self.reduce is None else self.reduce(maps)
        return torch.cat((maps, self.grow(new)), 1)


def _activated(in_channels: int, conv: nn.Conv2d, dropout: float) -> nn.Sequential:
    after = [SeededDropout(dropout)] if dropout else []
    # The ReLU cannot work in place on maps that are read again, but BatchNorm's output is its own.
    return nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True), conv, *after)


class Transition(nn.Module):
    """BatchNorm, ReLU, a 1 by 1 convolution and 2 by 2 average pooling."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.conv = _activated(in_channels, nn.Conv2d(in_channels, out_channels, 1, bias=False), dropout)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, out_channels, H / 2, W / 2), sizes rounded up."""
        return F.avg_pool2d(self.conv(maps), 2, ceil_mode=True)


class DenseNet(Backbone):
    """DenseNet, or DenseNet-BC with bottlenecks and transitions that halve the channels.

    Args:
        depth: layers, 3 n + 4 (with bottlenecks 6 n + 4).
        growth: growth rate, new channels a layer.
    """

    takes_dropout = True

    def __init__(
        self,
        *,
        depth: int,
        growth: int,
        bottleneck: bool = False,
        compression: float = 1.0,
        in_channels: int = 3,
        num_classes: int,
        dropout: float = 0.0,
    ) -> None:
        layers, rest = divmod(depth - 4, 2 * STAGES if bottleneck else STAGES)
        if rest or layers < 1:
            form = "6 n + 4" if bottleneck else "3 n + 4"
            raise ValueError(f"a DenseNet{'-BC' if bottleneck else ''} has {form} layers; {depth} is not one of them")
        super().__init__(depths=(layers,) * STAGES, num_classes=num_classes, dropout=dropout)
        self.growth, self.bottleneck, self.compression = growth, bottleneck, compression
        self.stem_channels = 2 * growth if bottleneck else 16
        self.assemble(stem=conv3x3(in_channels, self.stem_channels), stem_channels=self.stem_channels)

    def stage(
        self, index: int, *, in_channels: int, blocks: int, width: float, continued: bool = False
    ) -> tuple[nn.Module, int]:
        """See `Backbone.stage`. The transition at its end reduces the maps, also where the stage is continued."""
        growth = scaled(self.growth, width)
        parts: list[nn.Module] = []
        channels = in_channels
        for _ in range(blocks):
            parts.append(DenseLayer(channels, growth, bottleneck=self.bottleneck, dropout=self.dropout))
            channels += growth
        if index < STAGES - 1:
            compressed = math.floor(channels * self.compression)
            parts.append(Transition(channels, compressed, self.dropout))
            channels = compressed
        return nn.Sequential(*parts), channels

    def node_channels(self, index: int, block: int) -> int:
        """See `Backbone.node_channels`. Every layer adds the growth rate."""
        if block == 0:
            return self.info[index].channels
        before = self.stem_channels if index == 0 else self.info[index - 1].channels
        return before + block * self.growth

    def stage_stride(self, index: int) -> int:
        """See `Backbone.stage_stride`."""
        return 2 if index < STAGES - 1 else 1

    def classifier_for(self, channels: int) -> nn.Module:
        """See `Backbone.classifier_for`."""
        return PooledLinear(channels, self.num_classes, preactivation=True)


def _register(
    depth: int, growth: int, shallow: tuple[int, int], deep: int, *, bc: bool = False, released: bool = True
) -> None:
    ARCHITECTURES.register(
        f"densenet_{'bc_' if bc else ''}{depth}_{growth}",
        Architecture(
            family=DenseNet,
            options={
                "depth": depth,
                "growth": growth,
                "bottleneck": bc,
                "compression": 0.5 if bc else 1.0,
            },
            branches=released_branches(shallow, deep, 3.0),
            released=released,
        ),
    )


_register(10, 6, (2, 1), 2, released=False)
_register(40, 12, (12, 6), 12)
_register(100, 12, (16, 16), 32)
_register(100, 24, (16, 16), 32)
_register(100, 12, (16, 16), 32, bc=True)
_register(250, 24, (22, 22), 41, bc=True)
_register(190, 40, (16, 16), 31, bc=True)
