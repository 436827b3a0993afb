"""The embedded data set: handwritten digits that scikit-learn ships."""

import importlib.util
from pathlib import Path

import numpy as np
import torch

from dhm.data.dataset import DataError
from dhm.data.pixels import resize_all
from dhm.data.raw import RawData
from dhm.recipe import DataSpec

TRAINING_POOL = 1000
SIDE = 8
FILE = "datasets/data/digits.csv.gz"  # beneath scikit-learn: a row an image, its 64 pixels and its label


def load_digits(root: Path | None, spec: DataSpec) -> RawData:
    """1,797 grey images of 8 by 8 pixels: the first 1,000 are the training pool, the last 797 the test set.

    Both in the file's order, so that the split is the same everywhere and in every run. The values 0 to 16
    are scaled to 0 to 255. Nothing is read from `root`.

    Raises:
        DataError: no scikit-learn, or one without the file.
    """
    values = torch.from_numpy(np.loadtxt(_file(), delimiter=","))
    pixels = (values[:, :-1].reshape(-1, 1, SIDE, SIDE) * 255 / 16).round().to(torch.uint8)
    images = resize_all(pixels, spec.image_size, spec.resize)
    labels = values[:, -1].to(torch.int64)
    return RawData(
        train_images=images[:TRAINING_POOL],
        train_labels=labels[:TRAINING_POOL],
        test_images=images[TRAINING_POOL:],
        test_labels=labels[TRAINING_POOL:],
        classes=tuple(str(digit) for digit in range(10)),
    )


def _file() -> Path:
    """Where it lies. scikit-learn itself, which takes a second to import, is not asked."""
    found = importlib.util.find_spec("sklearn")
    path = None if found is None or found.origin is None else Path(found.origin).parent / FILE
    if path is None or not path.is_file():
        raise DataError(f"the digits are not there ({path or 'no scikit-learn'}): install scikit-learn 1.5 or newer")
    return path
