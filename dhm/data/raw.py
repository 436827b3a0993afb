"""A data set as it was read: nothing is drawn, left out or normalised yet."""

import dataclasses
import functools
import hashlib
import json

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torchvision.transforms import functional as F


class DataError(ValueError):
    """The images cannot be used as they are; says which, and what to do."""


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

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits over all pixels, shapes, labels and class names, in their order."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for tensor in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(_describe(tensor).encode())
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()[:16]


def to_square(image: Image.Image, size: int) -> Image.Image:
    """The shorter side resized to `size` (bilinear, antialiased), then the central square.

    Pillow does it in integers, so that the pixels, and with them the fingerprint, are the same everywhere.
    """
    resized = F.resize(image, [size], interpolation=F.InterpolationMode.BILINEAR)
    square: Image.Image = F.center_crop(resized, [size, size])
    return square


def resize_all(images: torch.Tensor, size: int) -> torch.Tensor:
    """`to_square` of each of (N, C, H, W) uint8 images; size 0 leaves them as they are."""
    if size == 0:
        return images
    resized = [to_square(F.to_pil_image(image), size) for image in images]
    return torch.stack([torch.from_numpy(planes(np.asarray(image))) for image in resized])


def planes(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(H, W) or (H, W, C) pixels as contiguous (C, H, W)."""
    return np.array(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1), order="C")


def _describe(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
