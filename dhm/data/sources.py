"""The data sets that a recipe may name."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from dhm.data.cache import Source, read_cached
from dhm.data.cifar import find_cifar10, find_cifar100
from dhm.data.digits import load_digits
from dhm.data.folders import find_image_folders
from dhm.data.raw import RawData
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
        return self.find(root).read(spec.image_size)


DATASETS: Registry[Loader] = Registry("data set")
DATASETS.register("digits", load_digits)
DATASETS.register("cifar10", FromFiles(find_cifar10))
DATASETS.register("cifar100", FromFiles(find_cifar100))
DATASETS.register("image_folder", FromFiles(find_image_folders))


def load(spec: DataSpec, root: Path | None = None, cache: Path | None = None) -> RawData:
    """The data set that `spec` names.

    Args:
        spec: its name and `image_size` are used.
        root: where it lies; `digits` needs none.
        cache: folder for decoded images, made when it is missing; None keeps none.

    Raises:
        ValueError: an unknown name; or a DataError, which names the path and the remedy.
    """
    loader = DATASETS.get(spec.name)
    root = None if root is None else root.expanduser()
    if cache is None or not isinstance(loader, FromFiles):
        return loader(root, spec)
    return read_cached(loader.find(root), spec.image_size, cache.expanduser())
