"""Evaluate a checkpoint of the authors' released code:

    python -m dhm.evaluate arch=resnet50 weights=FILE.pth data.root=/imagenet

Words:
    arch=NAME         a released architecture: resnet18 ... resnet152 (ImageNet), resnet32, wrn_28_10, ... (CIFAR)
    weights=FILE      its state dict, or a checkpoint of the released training scripts
    data.root=DIR     where the images lie
    data=NAME         imagenet: DIR/val/CLASS (or DIR/test/CLASS), in the order of the class folders' names
                      cifar10, cifar100: as torchvision downloads them, or DIR/train/CLASS and DIR/test/CLASS
                      image_folder: DIR/test/CLASS (or DIR/val/CLASS)
                      by default imagenet or cifar100, by the architecture
    batch_size=N      images at once (50)
    device=NAME       cpu (the default), cuda, cuda:1
    workers=N         processes that decode images (4)

  --json              print the result as JSON instead of a table
"""

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from dhm.backbones import ARCHITECTURES
from dhm.backbones.imagenet_resnet import ImageNetResNet
from dhm.data import DataError, HeldOut, cifar, imagenet, load
from dhm.data.dataset import Batch
from dhm.data.folders import ImageFolders
from dhm.data.streaming import Reader, StreamedHeldOut
from dhm.metrics import ENSEMBLES, RunningMean, top_k_wrong, with_ensembles
from dhm.network import BranchedNetwork
from dhm.recipe import DataSpec
from dhm.registry import unknown
from dhm.released import load_released

# Test images as the released code sees them.
CIFAR_VIEW: dict[str, Any] = {"image_size": 32, "mean": cifar.MEAN, "std": cifar.STD}
IMAGENET_VIEW: dict[str, Any] = {
    "image_size": imagenet.IMAGE_SIZE,
    "resize": imagenet.RESIZE,
    "mean": imagenet.MEAN,
    "std": imagenet.STD,
}
FOLDERS = {"imagenet": ("val", "test"), "image_folder": ("test", "val")}
MISTAKE = 2  # exit code
JSON = "--json"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the words of the command line say; see the module."""

    arch: str
    weights: Path
    root: Path
    data: str
    batch_size: int = 50
    device: str = "cpu"
    workers: int = 4


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class HeadError:
    """Errors in percent; no top-5 error where there are no more than five classes."""

    top1_error: float
    top5_error: float | None


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    words = sys.argv[1:] if words is None else words
    if {"--help", "-h", "help"} & set(words):
        print(__doc__)
        return 0
    try:
        as_json = JSON in words
        settings = parse([word for word in words if word != JSON])
        torch.backends.cudnn.allow_tf32 = False
        network = load_released(settings.weights, settings.arch).to(settings.device)
        images, classes = held_out(settings)
        if classes != network.backbone.num_classes:
            raise ValueError(
                f"{settings.root} has {classes} classes, {settings.weights} {network.backbone.num_classes}: "
                "give the data set that it was trained on"
            )
        errors = head_errors(network, _reported(images.batches(settings.batch_size), len(images)))
        report = {
            **{name: str(getattr(settings, name)) for name in ("arch", "weights", "data", "root")},
            "images": len(images),
            "classes": classes,
            "heads": {name: dataclasses.asdict(error) for name, error in errors.items()},
        }
        print(json.dumps(report, indent=1) if as_json else _table(settings, len(images), errors))
    except torch.OutOfMemoryError:
        print(f"error: not enough memory on the device: give batch_size below {settings.batch_size}", file=sys.stderr)
        return MISTAKE
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return MISTAKE
    return 0


def parse(words: Sequence[str]) -> Settings:
    """The settings that words `name=value` give.

    Raises:
        ValueError: a word that is unknown, missing, given twice or has no such value.
    """
    known = {"data.root" if field.name == "root" else field.name for field in dataclasses.fields(Settings)}
    given: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name not in known:
            raise unknown("word", name, {*known, JSON})
        if not equals or not value:
            raise ValueError(f"{name} has no value: give {name}=VALUE")
        if name in given:
            raise ValueError(f"{name} is given twice: {name}={given[name]} and {word}")
        given[name] = value
    for name in ("arch", "weights", "data.root"):
        if name not in given:
            raise ValueError(f"{name} is missing: give {name}=... (--help lists the words)")
    choices = ("imagenet", "image_folder") if _large(given["arch"]) else ("cifar100", "cifar10", "image_folder")
    data = given.get("data", choices[0])
    if data not in choices:
        raise unknown(f"data for {given['arch']}", data, choices)
    least = {"batch_size": 1, "workers": 0}
    options: dict[str, Any] = {name: _whole(name, given[name], least[name]) for name in least if name in given}
    if "device" in given:
        options["device"] = _usable(given["device"])
    root = Path(given["data.root"]).expanduser()
    if not root.is_dir():
        raise ValueError(f"data.root={root} is not a folder")
    weights = Path(given["weights"]).expanduser()
    return Settings(arch=given["arch"], weights=weights, root=root, data=data, **options)


def _large(arch: str) -> bool:
    return ARCHITECTURES.get(arch).family is ImageNetResNet


def _whole(name: str, value: str, least: int) -> int:
    if not value.isdecimal() or int(value) < least:
        raise ValueError(f"{name}={value}: give a whole number of at least {least}")
    return int(value)


def _usable(name: str) -> str:
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device={name} cannot be used here ({reason}): give device=cpu") from error
    return name


def held_out(settings: Settings) -> tuple[HeldOut, int]:
    """The test images, and the number of their classes. A folder of test images needs no training images beside it.

    Raises:
        DataError: the images are not there.
    """
    if settings.data not in FOLDERS:
        spec = DataSpec(name=settings.data, **CIFAR_VIEW)
        data = load(spec, settings.root)
        run = data.open(spec, 0, batch_size=settings.batch_size, device=settings.device)
        return run.test, data.num_classes
    spec = DataSpec(name=settings.data, **(IMAGENET_VIEW if _large(settings.arch) else CIFAR_VIEW))
    folders = _listed(settings.root, FOLDERS[settings.data])
    none = torch.arange(0)
    reader = Reader(folders, spec, none, device=settings.device, workers=settings.workers, channels_last=False)
    labels = torch.tensor([label for _, label in folders.test])
    images = StreamedHeldOut(reader, torch.arange(len(labels)), labels, settings.batch_size)
    return images, len(folders.classes)


def _listed(root: Path, names: Sequence[str]) -> ImageFolders:
    """The images of the first folder that is there, and none to train on."""
    folder = next((root / name for name in names if (root / name).is_dir()), None)
    if folder is None:
        raise DataError(f"{root} has neither {' nor '.join(f'{name}/' for name in names)}: give data.root=DIR with one")
    from torchvision.datasets import ImageFolder  # noqa: PLC0415  (2 s to import, which --help need not wait for)

    try:
        found = ImageFolder(folder)
    except FileNotFoundError as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{folder} must hold one folder of images a class: {reason}") from error
    return ImageFolders(root=Path(), classes=tuple(found.classes), train=(), test=tuple(found.samples))


@torch.inference_mode()
def head_errors(network: BranchedNetwork, batches: Iterable[Batch]) -> dict[str, HeadError]:
    """Errors of the main branch and of every side branch by name, and where there are several heads of their
    ensembles, see `with_ensembles`.

    Args:
        batches: normalised images (B, C, H, W) and labels (B,), on the network's device.
    """
    network.eval()
    names = ["main", *network.sides]
    mean = RunningMean()
    for images, labels in batches:
        scores = with_ensembles(network(images).stacked())
        wrong = torch.stack([top_k_wrong(scores, labels, k).double().mean(-1) for k in (1, 5)])
        mean.add(wrong, len(labels))
    names += ENSEMBLES if len(names) > 1 else ()
    errors = [100 * share for share in mean.read()]  # top-1 of every name, then top-5
    small = network.backbone.num_classes <= 5
    return {
        name: HeadError(top1_error=errors[index], top5_error=None if small else errors[index + len(names)])
        for index, name in enumerate(names)
    }


def _reported(batches: Iterable[Batch], total: int) -> Iterator[Batch]:
    """The batches, with a line about how many images are done where somebody looks."""
    shown, done = sys.stderr.isatty(), 0
    for images, labels in batches:
        yield images, labels
        done += len(labels)
        if shown:
            print(f"\r{done} of {total} images", end="" if done < total else "\n", file=sys.stderr, flush=True)


def _table(settings: Settings, images: int, errors: dict[str, HeadError]) -> str:
    width = max(map(len, errors)) + 2
    lines = [
        f"{settings.arch} of {settings.weights} on {images} images of {settings.data} in {settings.root}; errors in %",
        "",
        f"{'head':<{width}}{'top-1':>8}{'top-5':>8}",
    ]
    for name, error in errors.items():
        top5 = "-" if error.top5_error is None else f"{error.top5_error:.3f}"
        lines.append(f"{name:<{width}}{error.top1_error:>8.3f}{top5:>8}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
