"""Any classifier of torchvision as a backbone: `torchvision/resnet50` is `torchvision.models.resnet50` cut into stages.

Dropout and stochastic depth inside these models draw from torch's global stream, not from a stream of the main branch.
Training seeds the global stream at every epoch, so a run is repeatable; but that methods drop the same at one seed is
not promised, as it is for the other families: whatever else draws from that stream shifts it. Side branches do not.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_parameter_registration_hook

from dhm.backbones.base import ARCHITECTURES, Architecture, Backbone, PooledLinear, StageInfo, scaled
from dhm.backbones.cuts import Cuts, find_cuts, split
from dhm.recipe import BranchSpec

FAMILY = "torchvision"
PARTS = re.compile(r"^(stem\.1|stages\.\d+\.\d+|classifier)\.")
# These two bring auxiliary heads, which are side branches already: they are built without, and without a warning.
INCEPTIONS = ("googlenet", "inception_v3")


class TorchvisionBackbone(Backbone):
    """A torchvision model by its name there. With equal weights its logits are the model's own, bit for bit.

    Args:
        name: one of `torchvision.models.list_models(module=torchvision.models)`.
        in_channels: of an image; for other than 3 the first convolution has weights of another shape.

    Raises:
        ValueError: a model that cannot be cut into stages, or a dropout.
    """

    def __init__(self, *, name: str, in_channels: int = 3, num_classes: int, dropout: float = 0.0) -> None:
        if dropout:
            raise ValueError(f"{FAMILY}/{name} keeps the dropout that torchvision gives it: leave dropout at 0")
        self.cuts = cuts_of(name)
        super().__init__(depths=tuple(map(len, self.cuts.stages)), num_classes=num_classes, dropout=dropout)
        self.name, self.in_channels = name, in_channels
        make = _make_on_meta if torch.empty(0).is_meta else _make
        parts = split(make(name, in_channels=in_channels, num_classes=num_classes), self.cuts)
        self.stem = nn.Sequential(ImageSize(f"{FAMILY}/{name}", self.cuts.smallest), next(parts))
        self.stages = nn.ModuleList(nn.Sequential(*(next(parts) for _ in stage)) for stage in self.cuts.stages)
        self.classifier = next(parts)
        infos: list[StageInfo] = []
        stride = self.cuts.stem_stride
        for blocks, by in zip(self.cuts.stages, self.cuts.strides, strict=True):
            stride *= by
            infos.append(StageInfo(channels=blocks[-1].channels, stride=stride, depth=len(blocks)))
        self.info = tuple(infos)

    def stage(
        self, index: int, *, in_channels: int, blocks: int, width: float, continued: bool = False
    ) -> tuple[nn.Module, int]:
        """See `Backbone.stage`. Whatever the model is made of, it is of pre-activation bottlenecks."""
        channels = scaled(self.info[index].channels, width)
        first = PreactivationBottleneck(in_channels, channels, 1 if continued else self.stage_stride(index))
        rest = (PreactivationBottleneck(channels, channels, 1) for _ in range(blocks - 1))
        return nn.Sequential(first, *rest), channels

    def node_channels(self, index: int, block: int) -> int:
        """See `Backbone.node_channels`."""
        return self.cuts.stages[index][block - 1].channels

    def stage_stride(self, index: int) -> int:
        """See `Backbone.stage_stride`."""
        return self.cuts.strides[index]

    def classifier_for(self, channels: int) -> nn.Module:
        """See `Backbone.classifier_for`. Side branches end in it; the main branch keeps the model's own classifier."""
        return PooledLinear(channels, self.num_classes, preactivation=True)

    def initialise(self, module: nn.Module, generator: torch.Generator) -> None:
        """See `Backbone.initialise`.

        The main branch takes the weights of a model that torchvision makes anew while the generator stands in for
        torch's global stream. So every family is initialised by its own rule, layer scales and position tables
        included, where a rule by type of layer would not know them. For images of other than 3 channels the first
        convolution has Kaiming's normal weights, over the fan-out.
        """
        if module is not self:
            super().initialise(module, generator)
            return
        with _as_global_stream(generator), torch.device("cpu"):
            model = _make(self.name, in_channels=self.in_channels, num_classes=self.num_classes)
        self.load_torchvision_state_dict(model.state_dict())

    def torchvision_state_dict(self) -> dict[str, Tensor]:
        """The weights by torchvision's names: the torchvision model, without auxiliary heads, loads them strictly.

        With them comes what it notes about versions: MNASNets take weights without a version for those of older ones.
        """
        state = _make_on_meta(self.name, in_channels=self.in_channels, num_classes=self.num_classes).state_dict()
        state.update((_original(name), tensor) for name, tensor in self.state_dict().items())
        return state

    def load_torchvision_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of the torchvision model. Names or shapes that do not fit are torch's RuntimeError."""
        ours = {_original(name): name for name in self.state_dict()}
        self.load_state_dict({ours.get(name, name): tensor for name, tensor in state.items()})


class PreactivationBottleneck(nn.Module):
    """BatchNorm, ReLU and convolution three times, of 1, 3 and 1 pixels, with half the channels between.

    Where the shape changes the shortcut is a 1 by 1 convolution of the activated maps.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        inner = scaled(out_channels, 0.5)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out_channels, 1, bias=False)
        reshapes = in_channels != out_channels or stride > 1
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False) if reshapes else None

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride), sizes rounded up."""
        activated = F.relu(self.bn1(maps), inplace=True)
        out = self.conv2(F.relu(self.bn2(self.conv1(activated)), inplace=True))
        out = self.conv3(F.relu(self.bn3(out), inplace=True))
        shortcut = maps if self.shortcut is None else self.shortcut(activated)
        merged: Tensor = out + shortcut
        return merged


class ImageSize(nn.Module):
    """Hands images on, unless they are too small for the model: a ValueError, where torch's would name some layer."""

    def __init__(self, name: str, smallest: int) -> None:
        super().__init__()
        self.name = name
        self.smallest = smallest

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) as they are."""
        height, width = images.shape[2:]
        if min(height, width) < self.smallest:
            raise ValueError(
                f"{self.name} takes images from {self.smallest} by {self.smallest} pixels on, not {height} by {width}: "
                f"choose another arch, or enlarge the images with data.image_size={self.smallest}"
            )
        return images


@functools.cache
def cuts_of(name: str) -> Cuts:
    """Where a torchvision model is cut into stages. One that cannot be is a ValueError."""
    try:
        return find_cuts(_make_on_meta(name, in_channels=3, num_classes=10))
    except ValueError as error:
        raise ValueError(f"{FAMILY}/{name} cannot be cut into stages: {error}. Choose another arch") from error


def architecture(name: str) -> Architecture:
    """A torchvision model with side branches of our own: at the last two nodes before the last stage, a block a stage.

    Raises:
        ValueError: a model that cannot be cut into stages.
    """
    stages = len(cuts_of(name).stages)
    nodes = range(max(1, stages - 2), stages)
    return Architecture(
        family=TorchvisionBackbone,
        options={"name": name},
        branches=tuple(BranchSpec(after=node, blocks=(1,) * (stages - node)) for node in nodes),
        released=False,
    )


def _make(name: str, *, in_channels: int, num_classes: int) -> nn.Module:
    """The model as torchvision makes it, for images of so many channels; draws from torch's global stream."""
    from torchvision import models  # noqa: PLC0415  (2 s to import; only those who name such a model need it)

    options = {"aux_logits": False, "init_weights": True} if name in INCEPTIONS else {}
    model: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **options)
    first = next(part for part in model.modules() if isinstance(part, nn.Conv2d) and part.in_channels == 3)
    if in_channels != 3:
        first.in_channels = in_channels
        first.weight = nn.Parameter(first.weight.new_empty(first.out_channels, in_channels, *first.kernel_size))
        nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
    return model


def _make_on_meta(name: str, *, in_channels: int, num_classes: int) -> nn.Module:
    """The model on the meta device. Only its parameters are made there: RegNet computes its widths with tensors."""

    def without_memory(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        return None if parameter is None else nn.Parameter(parameter.to("meta"), parameter.requires_grad)

    # torch lets the hook return a parameter, and types it as if it could not
    handle = register_module_parameter_registration_hook(without_memory)  # type: ignore[arg-type]
    try:
        with torch.device("cpu"):
            return _make(name, in_channels=in_channels, num_classes=num_classes).to("meta")
    finally:
        handle.remove()


@contextmanager
def _as_global_stream(generator: torch.Generator) -> Iterator[None]:
    """Torch's global stream on the CPU, seeded by a generator; afterwards it is as it was."""
    state = torch.get_rng_state()
    seed = torch.randint(2**63 - 1, (), generator=generator)
    try:
        torch.default_generator.manual_seed(int(seed))
        yield
    finally:
        torch.set_rng_state(state)


def _original(name: str) -> str:
    return PARTS.sub("", name)


def _names() -> list[str]:
    from torchvision import models  # noqa: PLC0415  (as above)

    names: list[str] = models.list_models(module=models)
    return names


ARCHITECTURES.register_family(FAMILY, _names, architecture)
