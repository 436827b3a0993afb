"""Images in folders: `train/CLASS/*` and `test/CLASS/*`, or `val/CLASS/*` in its place."""

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from dhm.data.dataset import DataError
from dhm.data.pixels import View, decode, planes, to_square
from dhm.data.raw import RawData
from dhm.recipe import DataSpec

LAYOUT = "train/CLASS/*.png and test/CLASS/*.png (val/ will do for test/, .jpg and the like for .png)"
TRAIN, TESTS = "train", ("test", "val")
MEMORY_LIMIT = 8 * 2**30  # of decoded images; more of them are streamed
CHUNK = 256  # images that are decoded ahead of being stored
SMALL_FILE = 16 * 2**10  # bytes; below it threads cost more than they bring (measured: PNG of 2 KiB, JPEG of 20)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFolders:
    """What was found beneath `root`: classes sorted by name, a split's files by class and then by name.

    Files are strings, because a Path costs more than the rest of what is done with a file that is cached.
    """

    root: Path
    classes: tuple[str, ...]
    train: tuple[tuple[str, int], ...]
    test: tuple[tuple[str, int], ...]

    layout = "folders"

    @property
    def files(self) -> list[str]:
        """All image files, beneath `root`."""
        return [file for file, _ in (*self.train, *self.test)]

    def read(self, spec: DataSpec) -> RawData:
        """Decode every image. All are made RGB, unless all are grey: then they keep their one channel."""
        pixels = _decode_all(self.root, self.files, spec)
        images = pixels.split([len(self.train), len(self.test)])
        labels = [torch.tensor([label for _, label in files]) for files in (self.train, self.test)]
        return RawData(
            train_images=images[0],
            train_labels=labels[0],
            test_images=images[1],
            test_labels=labels[1],
            classes=self.classes,
        )


def find_image_folders(root: Path | None, tests: Sequence[str] = TESTS) -> ImageFolders:
    """List the images of `root/train/CLASS` and of `root/test/CLASS`, folders within a class included.

    Args:
        tests: names of the folder of test images; the first that is there is taken.

    Raises:
        DataError: there is no such folder, or a split, a class or a class's images are missing.
    """
    root = existing(root, f"a folder that holds {LAYOUT}")
    test = next((name for name in tests if (root / name).is_dir()), tests[0])
    splits = TRAIN, test
    for split in splits:
        if not (root / split).is_dir():
            raise DataError(f"{root} has no {split}/ folder: data.root must hold {LAYOUT}{_undivided(root)}")
    classes = {split: _class_names(root / split) for split in splits}
    for split, names in classes.items():
        if not names:
            raise DataError(f"{root / split} has no class folders: it must hold one folder of images a class")
    only = [
        f"only {split}/ has {', '.join(sorted(set(classes[split]) - set(classes[other])))}"
        for split, other in (splits, splits[::-1])
        if set(classes[split]) - set(classes[other])
    ]
    if only:
        raise DataError(f"{root}: {TRAIN}/ and {test}/ must have the same classes; {'; '.join(only)}")
    train, held_out = (
        tuple(
            (f"{split}/{name}/{file}", label)
            for label, name in enumerate(names)
            for file in _images_of(root / split / name)
        )
        for split, names in classes.items()
    )
    return ImageFolders(root=root, classes=tuple(classes[TRAIN]), train=train, test=held_out)


def existing(root: Path | None, content: str) -> Path:
    """`root` if it is a folder; otherwise an error that says what to give."""
    if root is None:
        raise DataError(f"this data set is read from disk: give data.root=DIR, {content}")
    if not root.is_dir():
        raise DataError(f"data.root={root} is not a folder: correct the path, or create {content}")
    return root


def _undivided(root: Path) -> str:
    """What to do with a folder of classes that nobody divided yet; nothing where it is none."""
    found = [name for name in _class_names(root) if name not in (TRAIN, *TESTS)]
    if len(found) < 2:
        return ""
    return f". If {found[0]}/ and {found[1]}/ are classes, move about a fifth of each into test/, the rest into train/"


def _class_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images_of(folder: Path) -> list[str]:
    from torchvision.datasets.folder import IMG_EXTENSIONS  # noqa: PLC0415  (2 s to import; only readers of files need it)

    found = [
        f"{parent}/{name}"[len(str(folder)) + 1 :]
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(IMG_EXTENSIONS) and not name.startswith(".")
    ]
    if not found:
        raise DataError(
            f"{folder} has no images ({', '.join(IMG_EXTENSIONS)}): add some, or remove the class from both splits"
        )
    return sorted(found)


def _decode_all(root: Path, files: Sequence[str], spec: DataSpec) -> torch.Tensor:
    """uint8 (N, C, H, W); grey until the first colour image, then RGB throughout."""
    view: View = functools.partial(to_square, size=spec.image_size, shorter=spec.resize)
    if spec.image_size == 0:
        view = _whole
    first = planes(decode(root / files[0], view))
    images = _empty(len(files), first.shape, root)
    for index, pixels in enumerate(_decoded(root, files, view)):
        if pixels.shape[1:] != first.shape[1:]:
            raise DataError(
                f"{root / files[index]} is {_size(pixels)} pixels, {root / files[0]} is {_size(first)}: "
                "set data.image_size=32 (or another size) to bring all images to one size"
            )
        if len(pixels) > images.shape[1]:
            grey = images
            images = _empty(len(files), pixels.shape, root)
            images[:index] = grey[:index]
        images[index] = torch.from_numpy(pixels)
    return images


def _whole(image: Image.Image) -> Image.Image:
    return image


def _decoded(root: Path, files: Sequence[str], view: View) -> Iterator[npt.NDArray[np.uint8]]:
    def decoded(path: Path) -> npt.NDArray[np.uint8]:
        return planes(decode(path, view))

    small = (root / files[0]).stat().st_size < SMALL_FILE
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), CHUNK):
            paths = [root / file for file in files[start : start + CHUNK]]
            yield from map(decoded, paths) if small else pool.map(decoded, paths)


def _empty(count: int, shape: tuple[int, ...], root: Path) -> torch.Tensor:
    size = count * shape[0] * shape[1] * shape[2]
    if size > MEMORY_LIMIT:
        raise DataError(
            f"{root}: {count} decoded images of {shape[2]} by {shape[1]} pixels take {size / 2**30:.1f} GiB, "
            f"more than the {MEMORY_LIMIT / 2**30:.0f} GiB that are kept in memory: set a smaller data.image_size, "
            "or data.augment=resized_crop, which decodes images while it trains"
        )
    return torch.empty((count, *shape), dtype=torch.uint8)


def _size(pixels: npt.NDArray[np.uint8]) -> str:
    return f"{pixels.shape[2]} by {pixels.shape[1]}"
