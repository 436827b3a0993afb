"""What training and evaluation ask of a data set, wherever its images are kept.

`RawData` keeps all images in memory and its batches on the device; `StreamedData` leaves them in their files and
decodes them while training. Which of the two `load` makes follows from the data set and the recipe.
"""

import dataclasses
from collections.abc import Iterator
from typing import Protocol

import torch

from dhm.recipe import DataSpec
from dhm.replicas import ALONE, Replica

Batch = tuple[torch.Tensor, torch.Tensor]
"""Normalised float32 images (B, C, H, W) and int64 labels (B,), on the run's device."""


class DataError(ValueError):
    """The images cannot be used as they are; says which, and what to do."""


class TrainingBatches(Protocol):
    """The training images of a run, augmented, in batches."""

    @property
    def images(self) -> int:
        """Images an epoch, of all replicas together."""

    def __len__(self) -> int:
        """Batches an epoch."""

    def epoch(self, seed: int, epoch: int) -> Iterator[Batch]:
        """A replica's shares of an epoch's batches: a seed and an epoch give the same images in the same order, at any
        batch size and with any number of replicas."""


class HeldOut(Protocol):
    """Images that a run does not train on."""

    @property
    def labels(self) -> torch.Tensor:
        """int64 (N,), in the order of `batches`."""

    def __len__(self) -> int:
        """Number of images."""

    def batches(self, at_most: int) -> Iterator[Batch]:
        """All images in their order: as few batches of `at_most` or fewer as there can be, as equal as can be."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RunImages:
    """The images of one run; `val` may be empty."""

    train: TrainingBatches
    val: HeldOut
    test: HeldOut


class DataSet(Protocol):
    """A data set that a recipe names."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, by label."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour."""

    @property
    def sizes(self) -> tuple[int, int]:
        """How many images there are to train on, and to test on."""

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the images that a network sees, in pixels."""

    @property
    def fingerprint(self) -> str:
        """Differs wherever the content does; part of every run's identity."""

    def check(self, spec: DataSpec, seed: int) -> int:
        """How many images a run of `spec` at `seed` trains on; quick, decodes nothing.

        Raises:
            DataError: no run can be made of them.
        """

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
        """The images of one run: which train, validate and test follows from the recipe and the seed.

        Args:
            batch_size: images in a batch of training, the shares of all replicas together.
            replica: whose share of the training batches is read.
            workers: processes that decode images, where any are decoded; they change no image.
            channels_last: memory format of the batches.

        Raises:
            DataError: `spec` does not fit the images.
        """
