"""The data sets that a recipe may name."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from dhm.data.cache import Source, read_cached
from dhm.data.cifar import find_cifar10, find_cifar100
from dhm.data.dataset import DataError, DataSet
from dhm.data.digits import load_digits
from dhm.data.folders import LAYOUT, ImageFolders, find_image_folders
from dhm.data.imagenet import find_imagenet
from dhm.data.raw import RawData
from dhm.data.streaming import StreamedData
from dhm.recipe import DataSpec
from dhm.registry import Registry

Loader = Callable[[Path | None, DataSpec], RawData]


@dataclasses.dataclass(frozen=True)
class FromFiles:
    """A loader of files on disk: `load` keeps what it decodes.

    Args:
        find: lists the files beneath a root, or raises a DataError that says what should be there.
    """

    find: Callable[[Path | None], Source]

    def __call__(self, root: Path | None, spec: DataSpec) -> RawData:
        """Find, and decode."""
        return self.find(root).read(spec)


DATASETS: Registry[Loader] = Registry("data set")
DATASETS.register("digits", load_digits)
DATASETS.register("cifar10", FromFiles(find_cifar10))
DATASETS.register("cifar100", FromFiles(find_cifar100))
DATASETS.register("image_folder", FromFiles(find_image_folders))
DATASETS.register("imagenet", FromFiles(find_imagenet))


def load(spec: DataSpec, root: Path | None = None, cache: Path | None = None) -> DataSet:
    """The data set that `spec` names: streamed from its files for random resized crops, else `RawData` in memory.

    A crop of any part of an image needs the whole image, and sets that are trained so are large.

    Args:
        spec: its name, `augment`, `image_size`, `resize` and `decoder` are used.
        root: where it lies; `digits` needs none.
        cache: folder for decoded images and for fingerprints, made when it is missing; None keeps none.

    Raises:
        ValueError: an unknown name; or a DataError, which names the path and the remedy.
    """
    loader = DATASETS.get(spec.name)
    _check(spec)
    root = None if root is None else root.expanduser()
    cache = None if cache is None else cache.expanduser()
    source = loader.find(root) if isinstance(loader, FromFiles) else None
    if spec.augment == "resized_crop":
        if not isinstance(source, ImageFolders):
            raise DataError(
                f"data.augment=resized_crop decodes images from files of their own, and {spec.name} has none here: "
                f"give data.augment=shift, or a data set in a folder that holds {LAYOUT}"
            )
        return StreamedData(source, spec.image_size, cache)
    if source is None:
        return loader(root, spec)
    return source.read(spec) if cache is None else read_cached(source, spec, cache)


def _check(spec: DataSpec) -> None:
    """Here and not in the recipe, whose fields a command line changes one after the other."""
    if spec.augment == "resized_crop" and spec.image_size == 0:
        raise DataError("data.augment=resized_crop makes every image one size: say which with data.image_size=224")
    if spec.resize and not 0 < spec.image_size <= spec.resize:
        raise DataError(
            f"data.resize={spec.resize} is the shorter side before the centre crop of data.image_size="
            f"{spec.image_size}: give a data.image_size above 0 that is not larger"
        )
    if spec.decoder == "dali":
        if spec.augment != "resized_crop":
            raise DataError(
                f"data.decoder=dali reads images while a network trains, and for data.augment={spec.augment} they are "
                "read before: leave it out, or give data.augment=resized_crop"
            )
        from dhm.data.dali import installed  # noqa: PLC0415  (it is an extra)

        installed()
