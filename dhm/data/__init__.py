"""Images: reading them, splitting them by the seed, and batches, from memory on the device or from files."""

from dhm.data.batches import Batches, HeldOutSet, ImageSet, Normaliser
from dhm.data.dataset import DataError, DataSet, HeldOut, RunImages, TrainingBatches
from dhm.data.raw import RawData, Split, split
from dhm.data.sources import DATASETS, FromFiles, Loader, load
from dhm.data.streaming import StreamedData

__all__ = [
    "DATASETS",
    "Batches",
    "DataError",
    "DataSet",
    "FromFiles",
    "HeldOut",
    "HeldOutSet",
    "ImageSet",
    "Loader",
    "Normaliser",
    "RawData",
    "RunImages",
    "Split",
    "StreamedData",
    "TrainingBatches",
    "load",
    "split",
]
