"""Batches of images that stay in memory on the device: a training step never waits for a file."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import torch

from dhm.data.dataset import Batch, DataError
from dhm.data.split import draw_parts
from dhm.recipe import DataSpec
from dhm.replicas import ALONE, Replica
from dhm.streams import stream

CHUNK = 4096  # images handled at once where a whole set passes


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """uint8 images (N, C, H, W) and int64 labels (N,)."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same set on a device."""
        return ImageSet(self.images.to(device), self.labels.to(device))


@dataclasses.dataclass(frozen=True)
class Normaliser:
    """Per-channel mean and standard deviation of pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, spec: DataSpec, images: torch.Tensor) -> "Normaliser":
        """The recipe's own mean and std, or where it has none those of `images`, the run's training images.

        Raises:
            DataError: the recipe's do not have one value a channel.
        """
        cls.check(spec, images.shape[1])
        return cls(spec.mean, spec.std) if spec.mean else cls.measured(images)

    @staticmethod
    def check(spec: DataSpec, channels: int) -> None:
        """A DataError where the recipe has a mean and a std, and not one value a channel."""
        if spec.mean and len(spec.mean) != channels:
            raise DataError(
                f"data.mean={list(spec.mean)}: the images have {channels} channel(s); give one value "
                "a channel in data.mean and data.std, or neither to have them measured"
            )

    @classmethod
    def measured(cls, images: torch.Tensor) -> "Normaliser":
        """Of uint8 images (N, C, H, W), from exact counts of their values: no order of sums changes it."""
        values = torch.arange(256, dtype=torch.float64) / 255
        means, stds = [], []
        for channel in range(images.shape[1]):
            counts = torch.zeros(256, dtype=torch.int64)
            for chunk in images[:, channel].split(CHUNK):
                counts += torch.bincount(chunk.flatten(), minlength=256).cpu()
            share = counts / counts.sum(dtype=torch.float64)
            mean = (share * values).sum()
            means.append(mean.item())
            std = math.sqrt((share * (values - mean).square()).sum().item())
            stds.append(std or 1.0)  # a channel that never varies becomes 0, not NaN
        return cls(tuple(means), tuple(stds))

    def on(
        self, device: torch.device | str, memory_format: torch.memory_format = torch.contiguous_format
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Makes uint8 images (B, C, H, W) normalised float32 ones in a memory format, on a device."""
        mean, std = (torch.tensor(x, dtype=torch.float64).view(-1, 1, 1) for x in (self.mean, self.std))
        factor, summand = (
            (1 / (255 * std)).to(device, torch.float32),
            (-mean / std).to(device, torch.float32),
        )

        def normalise(pixels: torch.Tensor) -> torch.Tensor:
            images = pixels.to(torch.float32).mul_(factor).add_(summand)
            # the layout comes last: on a CPU that is quicker than to compute in channels_last
            return images.contiguous(memory_format=memory_format)

        return normalise


class Batches:
    """Training batches: random crops of zero-padded images, random flips, normalised.

    The set lies on the device as one padded uint8 tensor. A batch is copied out of it in whole stretches, each as long
    as a padded image and beginning where its crop does: gathering pixels is ten times slower on a CPU. No step reads
    anything back from the device. Images are padded before they are normalised: the border is black, as torchvision's
    RandomCrop leaves it.

    The last batch of an epoch is smaller where the batch size does not divide the set. Batch normalisation
    cannot train on a last batch of one image once the maps are 1 by 1: choose another batch size then.

    Args:
        train: the images; moved to `device`.
        spec: its padding, flips, mean and std are used.
        channels_last: memory format of the batches.
        replica: whose share of every batch this is; each replica has all images on its device.

    Attributes:
        normaliser: the recipe's, or measured on `train`; evaluation takes it too.
    """

    def __init__(
        self,
        train: ImageSet,
        spec: DataSpec,
        *,
        batch_size: int,
        device: torch.device | str = "cpu",
        channels_last: bool = False,
        replica: Replica = ALONE,
    ) -> None:
        self.normaliser = Normaliser.of(spec, train.images)
        self.batch_size = batch_size
        self._replica = replica
        self._pad, self._flip = spec.pad, spec.flip
        self._memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._labels = train.labels.to(device)
        _, channels, self._height, self._width = train.images.shape
        self._padded_shape = channels, self._height + 2 * spec.pad, self._width + 2 * spec.pad
        self._stretches = _stretches(train.images, spec.pad, device)

    @property
    def images(self) -> int:
        """Images an epoch, of all replicas together."""
        return len(self._labels)

    def __len__(self) -> int:
        """Batches an epoch."""
        return math.ceil(len(self._labels) / self.batch_size)

    def epoch(self, seed: int, epoch: int) -> Iterator[Batch]:
        """Float32 images (B, C, H, W) and labels (B,) of one epoch.

        All is drawn on the CPU and for the whole epoch, so that a seed and an epoch give the same images in
        the same order on every device and at every batch size.
        """
        count, device = len(self._labels), self._labels.device
        order = torch.randperm(count, generator=stream(seed, "order", epoch))
        augment = stream(seed, "augment", epoch)
        flips = torch.randint(2, (count,), generator=augment, dtype=torch.bool)
        offsets = torch.randint(2 * self._pad + 1, (2, count), generator=augment)
        normalise = self.normaliser.on(device, self._memory_format)
        starts = order * math.prod(self._padded_shape) + offsets[0] * self._padded_shape[-1] + offsets[1]
        parts = (x.to(device).split(self.batch_size) for x in (order, starts, flips))
        for batch in zip(*parts, strict=True):
            chosen, start, flipped = map(self._replica.share, batch)
            padded = self._stretches.index_select(0, start).view(-1, *self._padded_shape)
            images = padded[:, :, : self._height, : self._width]
            if self._flip:
                both = torch.stack((images, images.flip(-1)), 1).flatten(0, 1)
                images = both.index_select(0, 2 * torch.arange(len(flipped), device=device) + flipped)
            yield normalise(images), self._labels[chosen]


class HeldOutSet:
    """Images that lie on the device, to be looked at in their order.

    Args:
        images: moved to `device`.
        normaliser: that of the training images.
    """

    def __init__(
        self,
        images: ImageSet,
        normaliser: Normaliser,
        *,
        device: torch.device | str = "cpu",
        channels_last: bool = False,
    ) -> None:
        self._set = images.to(device)
        self._normalise = normaliser.on(device, torch.channels_last if channels_last else torch.contiguous_format)

    @property
    def labels(self) -> torch.Tensor:
        """int64 (N,)."""
        return self._set.labels

    def __len__(self) -> int:
        return len(self._set)

    def batches(self, at_most: int) -> Iterator[Batch]:
        """See `HeldOut.batches`; normalised."""
        if len(self):
            parts = (x.tensor_split(math.ceil(len(self) / at_most)) for x in (self._set.images, self._set.labels))
            for images, labels in zip(*parts, strict=True):
                yield self._normalise(images), labels


def check_run(spec: DataSpec, seed: int, labels: torch.Tensor, classes: Sequence[str], channels: int) -> int:
    """How many images a run of `spec` at `seed` trains on; a DataError where no run can be made.

    Args:
        labels: int64 (N,), of all training images.
        channels: of an image.
    """
    Normaliser.check(spec, channels)
    return len(draw_parts(labels, classes, spec, seed).train)


def _stretches(images: torch.Tensor, pad: int, device: torch.device | str) -> torch.Tensor:
    """Zero-padded images on a device, end to end, as the view of all stretches in them that are as long as one.

    Stretch i begins at pixel i. That of an image's last crop ends beyond the image, and of the last image's there is a
    margin for it.
    """
    count, channels, height, width = images.shape
    if pad == 0:
        return images.to(device).flatten().unfold(0, channels * height * width, 1)
    shape = (count, channels, height + 2 * pad, width + 2 * pad)
    margin = 2 * pad * (shape[-1] + 1)
    pixels = torch.zeros(math.prod(shape) + margin, dtype=torch.uint8, device=device)
    inner = pixels[: math.prod(shape)].view(shape)[:, :, pad : pad + height, pad : pad + width]
    for target, source in zip(inner.split(CHUNK), images.split(CHUNK), strict=True):
        target.copy_(source)
    return pixels.unfold(0, math.prod(shape[1:]), 1)
