"""Images: reading them, splitting them by the seed, and batches that stay in memory on the device."""

from dhm.data.batches import Batches, Normaliser, eval_batches
from dhm.data.raw import DataError, RawData
from dhm.data.sources import DATASETS, FromFiles, Loader, load
from dhm.data.split import ImageSet, Split, split

__all__ = [
    "DATASETS",
    "Batches",
    "DataError",
    "FromFiles",
    "ImageSet",
    "Loader",
    "Normaliser",
    "RawData",
    "Split",
    "eval_batches",
    "load",
    "split",
]
