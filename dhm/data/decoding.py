"""From image files to batches of pixels, while a network trains: what a decoder is given, and what it gives."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from dhm.data.folders import ImageFolders

Key = tuple[int, int | None]
"""A file's position, and the seed of its augmentation; without a seed it is seen as in evaluation."""


class Files:
    """Paths of images, by position.

    They are one array of bytes: a list would be copied page by page into every worker that counts its references.
    """

    def __init__(self, images: ImageFolders) -> None:
        self._root = images.root
        self._paths: npt.NDArray[np.bytes_] = np.array([os.fsencode(file) for file in images.files])

    def __getitem__(self, index: int) -> Path:
        return self._root / os.fsdecode(self._paths[index])


class Decoder(Protocol):
    """Reads what keys name: the random view that a seed gives, or the central one."""

    def batches(self, keys: Iterable[list[Key]], count: int, batch_size: int) -> Iterator[torch.Tensor]:
        """uint8 images (B, 3, H, W) for each list of keys, laid out as they were decoded, colours innermost.

        Args:
            count: how many lists there are.
            batch_size: that no list is longer than.

        Raises:
            DataError: a file cannot be read.
        """
