"""ImageNet (ILSVRC 2012): folders of images by WordNet id, sorted out of the archives where they are not yet."""

import tempfile
from pathlib import Path

from dhm.data.dataset import DataError
from dhm.data.folders import ImageFolders, existing, find_image_folders

# How the released utils/dataloaders.py sees its images, in evaluation: sizes in pixels, pixels in [0, 1].
IMAGE_SIZE, RESIZE = 224, 256
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def find_imagenet(root: Path | None) -> ImageFolders:
    """`train/WNID` and `val/WNID`; what is missing of the two is unpacked from the archives in `root`.

    The validation images are the test set, as everywhere; classes are named by their WordNet ids, and a folder
    `test/`, whose labels nobody has, is left alone.

    Raises:
        DataError: neither the folders nor the archives are there, or an archive is not what was published.
    """
    root = existing(root, _content())
    for split in ("train", "val"):
        if not (root / split).is_dir():
            _unpack(root, split)
    return find_image_folders(root, tests=("val",))


def _unpack(root: Path, split: str) -> None:
    """By torchvision, which compares checksums, into a folder of its own first: a crash leaves no half of a split."""
    from torchvision.datasets import imagenet  # noqa: PLC0415  (2 s to import; only readers of ImageNet need it)

    try:
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=root) as folder:
            if split == "train":
                imagenet.parse_train_archive(root, folder=f"{folder}/{split}")
            else:
                if not (root / imagenet.META_FILE).is_file():
                    imagenet.parse_devkit_archive(root)
                imagenet.parse_val_archive(root, folder=f"{folder}/{split}")
            (Path(folder) / split).rename(root / split)
    except (RuntimeError, OSError, EOFError) as error:
        raise DataError(
            f"{root} has no {split}/ folder, and unpacking the archive failed ({error}): data.root must be {_content()}"
        ) from error


def _content() -> str:
    from torchvision.datasets import imagenet  # noqa: PLC0415  (2 s to import; only readers of ImageNet need it)

    archives = ", ".join(name for name, _ in imagenet.ARCHIVE_META.values())
    return (
        "a folder that holds train/WNID/*.JPEG and val/WNID/*.JPEG, or the archives "
        f"{archives}, from which they are made"
    )
