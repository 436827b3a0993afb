"""A data set that lives in memory, as it was read, and the images of a run that are drawn from it."""

import dataclasses
import functools
import hashlib
import json

import torch

from dhm.data.batches import Batches, HeldOutSet, ImageSet, check_run
from dhm.data.dataset import DataError, RunImages
from dhm.data.split import draw_parts
from dhm.recipe import DataSpec
from dhm.replicas import ALONE, Replica


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RawData:
    """The images of a data set in the order of its files.

    Args:
        train_images, test_images: uint8 (N, C, H, W), one size for both splits.
        train_labels, test_labels: int64 (N,), positions in `classes`.
        classes: names.
    """

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        for name, images, labels in (
            ("training", self.train_images, self.train_labels),
            ("test", self.test_images, self.test_labels),
        ):
            if images.ndim != 4 or images.dtype != torch.uint8 or images.numel() == 0:
                raise DataError(f"{name} images: expected uint8 (N, C, H, W), got {_describe(images)}")
            if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
                raise DataError(
                    f"{name} labels: expected int64 ({len(images)},), one an image, got {_describe(labels)}"
                )
            if int(labels.min()) < 0 or int(labels.max()) >= len(self.classes):
                raise DataError(f"{name} labels: they must lie in 0 to {len(self.classes) - 1}")
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise DataError(
                f"training images are {tuple(self.train_images.shape[1:])} and test images "
                f"{tuple(self.test_images.shape[1:])} (C, H, W): they must be equal"
            )
        if len(self.classes) < 2:
            raise DataError(f"classes {list(self.classes)}: at least two are needed")

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return self.train_images.shape[1]

    @property
    def sizes(self) -> tuple[int, int]:
        """How many images there are to train on, and to test on."""
        return len(self.train_labels), len(self.test_labels)

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        height, width = self.train_images.shape[2:]
        return height, width

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits over all pixels, shapes, labels and class names, in their order."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for tensor in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(_describe(tensor).encode())
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()[:16]

    def check(self, spec: DataSpec, seed: int) -> int:
        """See `DataSet.check`."""
        return check_run(spec, seed, self.train_labels, self.classes, self.channels)

    def open(
        self,
        spec: DataSpec,
        seed: int,
        *,
        batch_size: int,
        device: torch.device | str = "cpu",
        workers: int = 0,
        channels_last: bool = False,
        replica: Replica = ALONE,
    ) -> RunImages:
        """See `DataSet.open`. No image is left to decode, so `workers` have nothing to do."""
        parts = split(self, spec, seed)
        train = Batches(
            parts.train, spec, batch_size=batch_size, device=device, channels_last=channels_last, replica=replica
        )
        val, test = (
            HeldOutSet(part, train.normaliser, device=device, channels_last=channels_last)
            for part in (parts.val, parts.test)
        )
        return RunImages(train=train, val=val, test=test)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The images of one run, each part in the order of the data set; `val` may be empty."""

    train: ImageSet
    val: ImageSet
    test: ImageSet


def split(raw: RawData, spec: DataSpec, seed: int) -> Split:
    """The images of `draw_parts`, and the test images."""
    parts = draw_parts(raw.train_labels, raw.classes, spec, seed)
    everything = len(parts.train) == len(raw.train_images)  # then the images need no copy
    return Split(
        train=ImageSet(raw.train_images if everything else raw.train_images[parts.train], parts.labels),
        val=ImageSet(raw.train_images[parts.val], raw.train_labels[parts.val]),
        test=ImageSet(raw.test_images, raw.test_labels),
    )


def _describe(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
