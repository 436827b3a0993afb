"""CIFAR-10 and CIFAR-100, in the authors' own format or as folders of images."""

import contextlib
import dataclasses
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dhm.data.dataset import DataError
from dhm.data.folders import LAYOUT, TESTS, TRAIN, ImageFolders, existing, find_image_folders
from dhm.data.pixels import resize_all
from dhm.data.raw import RawData
from dhm.recipe import DataSpec

if TYPE_CHECKING:
    from torchvision import datasets

DOWNLOAD_TIMEOUT = 10.0  # seconds without an answer

# Of the training images' pixels in [0, 1], as the released cifar.py has them.
MEAN = (0.49139968, 0.48215827, 0.44653124)
STD = (0.24703233, 0.24348505, 0.26158768)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PickledCifar:
    """The Python version of CIFAR beneath `root`, as torchvision reads it; `kind` is torchvision's class."""

    root: Path
    kind: "type[datasets.CIFAR10]"

    layout = "pickled"

    @property
    def files(self) -> list[str]:
        """The files of both splits and the one of class names, beneath `root`."""
        names = [name for name, _ in (*self.kind.train_list, *self.kind.test_list)]
        return [f"{self.kind.base_folder}/{name}" for name in (*names, self.kind.meta["filename"])]

    def read(self, spec: DataSpec) -> RawData:
        """Unpickle both splits, after torchvision has compared every file with its published checksum."""
        try:
            train, test = (self.kind(self.root, train=training) for training in (True, False))
        except RuntimeError as error:
            raise DataError(
                f"{self.root / self.kind.base_folder} is incomplete or damaged ({error}): "
                f"unpack {self.kind.url} there again"
            ) from error
        return RawData(
            train_images=resize_all(_images(train), spec.image_size, spec.resize),
            train_labels=torch.tensor(train.targets),
            test_images=resize_all(_images(test), spec.image_size, spec.resize),
            test_labels=torch.tensor(test.targets),
            classes=tuple(train.classes),
        )


def find_cifar10(root: Path | None) -> PickledCifar | ImageFolders:
    """`cifar-10-batches-py/`, or `train/CLASS` and `test/CLASS`; downloaded where `root` has neither."""
    return _find("CIFAR10", root)


def find_cifar100(root: Path | None) -> PickledCifar | ImageFolders:
    """`cifar-100-python/`, or `train/CLASS` and `test/CLASS`; downloaded where `root` has neither."""
    return _find("CIFAR100", root)


def _find(name: str, root: Path | None) -> PickledCifar | ImageFolders:
    from torchvision import datasets  # noqa: PLC0415  (2 s to import; only those who read CIFAR need it)

    kind: type[datasets.CIFAR10] = getattr(datasets, name)
    content = f"a folder that holds {kind.base_folder}/ (unpack {kind.url} there), or {LAYOUT}"
    root = existing(root, content)
    if not (root / kind.base_folder).is_dir():
        if any((root / split).is_dir() for split in (TRAIN, *TESTS)):
            return find_image_folders(root)
        _download(kind, root, content)
    return PickledCifar(root=root, kind=kind)


def _download(kind: "type[datasets.CIFAR10]", root: Path, content: str) -> None:
    """Into a folder of its own first, so that neither a crash nor a second process leaves half a data set."""
    target = root / kind.base_folder
    try:
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder, _short_timeout():
            kind(folder, download=True)
            with contextlib.suppress(FileExistsError):
                (Path(folder) / kind.base_folder).rename(target)
    except Exception as error:  # torchvision lets through whatever urllib, tarfile and the disk raise
        if not target.is_dir():
            raise DataError(
                f"{root} has no {kind.__name__}, and downloading it failed ({error}): data.root must be {content}"
            ) from error


@contextlib.contextmanager
def _short_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _images(dataset: "datasets.CIFAR10") -> torch.Tensor:
    return torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
