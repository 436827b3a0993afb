"""The embedded data set: handwritten digits that scikit-learn ships."""

from pathlib import Path

import torch

from dhm.data.pixels import resize_all
from dhm.data.raw import RawData
from dhm.recipe import DataSpec

TRAINING_POOL = 1000


def load_digits(root: Path | None, spec: DataSpec) -> RawData:
    """1,797 grey images of 8 by 8 pixels: the first 1,000 are the training pool, the last 797 the test set.

    Both in the file's order, so that the split is the same everywhere and in every run. The values 0 to 16
    are scaled to 0 to 255. Nothing is read from `root`.
    """
    import sklearn.datasets  # noqa: PLC0415  (1.5 s to import; only this data set needs it)

    digits = sklearn.datasets.load_digits()
    values = torch.from_numpy(digits.images)
    pixels = (values * 255 / 16).round().to(torch.uint8).unsqueeze(1)
    images = resize_all(pixels, spec.image_size, spec.resize)
    labels = torch.from_numpy(digits.target).to(torch.int64)
    return RawData(
        train_images=images[:TRAINING_POOL],
        train_labels=labels[:TRAINING_POOL],
        test_images=images[TRAINING_POOL:],
        test_labels=labels[TRAINING_POOL:],
        classes=tuple(str(name) for name in digits.target_names),
    )
