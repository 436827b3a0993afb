"""Benchmarks: a data set, its default backbone, and the recipe for each backbone on it."""

import dataclasses
from collections.abc import Callable

from dhm.backbones import ARCHITECTURES
from dhm.backbones.base import Architecture
from dhm.backbones.densenet import DenseNet
from dhm.backbones.imagenet_resnet import ImageNetResNet
from dhm.backbones.resnet import CifarResNet
from dhm.backbones.wide_resnet import WideResNet
from dhm.data import cifar, imagenet
from dhm.recipe import DataSpec, MimicSpec, OptimSpec, Recipe
from dhm.registry import Registry, unknown

RECIPES = ("documented", "released")  # as the authors' TRAINING.md has it; as the released code runs, without dropout


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A data set with what is usual on it.

    Args:
        summary: one line.
        arch: the default backbone.
        depths: backbones of one family by depth, for grids that vary it.
        schedule: epochs, optimiser and dropout for a backbone.
        source: where the recipe of a backbone comes from, in words.
        classes: how many it has; none where the images are the user's own.
    """

    name: str
    summary: str
    data: DataSpec
    arch: str
    depths: tuple[str, ...]
    schedule: Callable[[Architecture], tuple[int, OptimSpec, float]]
    source: Callable[[str], str]
    needs_root: bool = True
    classes: int | None = None

    def base(self, arch: str | None = None, recipe: str = "documented") -> Recipe:
        """The full DHM recipe of a backbone: its own side branches, every pair of heads mimicking.

        Raises:
            ValueError: an unknown architecture or recipe.
        """
        name = arch or self.arch
        architecture = ARCHITECTURES.get(name)
        if recipe not in RECIPES:
            raise unknown("recipe", recipe, RECIPES)
        epochs, optim, dropout = self.schedule(architecture)
        return Recipe(
            arch=name,
            epochs=epochs,
            data=self.data,
            optim=optim,
            branches=architecture.branches,
            mimic=MimicSpec(),
            dropout=dropout if recipe == "documented" else 0.0,
        )


def _cifar_schedule(architecture: Architecture) -> tuple[int, OptimSpec, float]:
    if architecture.family is WideResNet:
        return 200, OptimSpec(milestones=(60, 120, 160), gamma=0.2, weight_decay=5e-4), 0.3
    if architecture.family is DenseNet:
        return 300, OptimSpec(milestones=(150, 225), batch_size=64), 0.0
    return 164, OptimSpec(milestones=(81, 122)), 0.0


def _cifar_source(arch: str) -> str:
    if arch in ("resnet110", "wrn_28_10", "densenet_bc_100_12"):
        return "the authors' TRAINING.md"
    if ARCHITECTURES.get(arch).family in (CifarResNet, WideResNet, DenseNet):
        return "the authors' TRAINING.md for another depth of the same family"
    return "the authors' TRAINING.md for CIFAR ResNets; they have none for this family on CIFAR"


def _imagenet_schedule(architecture: Architecture) -> tuple[int, OptimSpec, float]:
    return 90, OptimSpec(milestones=(31, 61), batch_size=256), 0.0


def _imagenet_source(arch: str) -> str:
    if arch == "resnet152":
        return "the authors' TRAINING.md"
    if ARCHITECTURES.get(arch).family is ImageNetResNet:
        return "the authors' TRAINING.md for another depth of the same family"
    return "the authors' TRAINING.md for ImageNet ResNets; they have none for this family on ImageNet"


def _digits_schedule(architecture: Architecture) -> tuple[int, OptimSpec, float]:
    # Mimicking between the deeper branches of deeper networks diverges at rates that eight layers need.
    deep = architecture.family is CifarResNet and architecture.options["depth"] > 8
    return 20, OptimSpec(lr=0.02 if deep else 0.1, batch_size=50, schedule="cosine", weight_decay=5e-4), 0.0


BENCHMARKS: Registry[Benchmark] = Registry("benchmark")


def _register(benchmark: Benchmark) -> None:
    BENCHMARKS.register(benchmark.name, benchmark)


_register(
    Benchmark(
        name="digits",
        summary="scikit-learn's digits, 8 by 8, embedded: 200 training images a seed, 797 test images; seconds a run",
        data=DataSpec(name="digits", train_size=200, pad=1, flip=False),
        arch="resnet8",
        depths=("resnet8", "resnet14", "resnet20"),
        schedule=_digits_schedule,
        source=lambda arch: "our own, chosen for speed and for a spread between seeds that arms can be told by",
        needs_root=False,
    )
)

for _name, _classes in (("cifar10", 10), ("cifar100", 100)):
    _register(
        Benchmark(
            name=_name,
            summary=f"CIFAR-{_classes}, in its own format or as folders train/CLASS and test/CLASS; needs data.root",
            data=DataSpec(name=_name, mean=cifar.MEAN, std=cifar.STD),
            classes=_classes,
            arch="resnet32",
            depths=("resnet32", "resnet110"),
            schedule=_cifar_schedule,
            source=_cifar_source,
        )
    )

_register(
    Benchmark(
        name="image_folder",
        summary="your own small images, as folders train/CLASS and test/CLASS, with the CIFAR recipes; needs data.root",
        data=DataSpec(name="image_folder"),
        arch="resnet32",
        depths=("resnet32", "resnet110"),
        schedule=_cifar_schedule,
        source=lambda arch: "the recipe for CIFAR; normalised by the training images",
    )
)

_register(
    Benchmark(
        name="imagenet",
        summary="ImageNet, as archives or as folders train/WNID and val/WNID, decoded while training; needs data.root",
        data=DataSpec(
            name="imagenet",
            augment="resized_crop",
            pad=0,
            image_size=imagenet.IMAGE_SIZE,
            resize=imagenet.RESIZE,
            mean=imagenet.MEAN,
            std=imagenet.STD,
        ),
        arch="resnet18",
        depths=("resnet18", "resnet50"),
        schedule=_imagenet_schedule,
        source=_imagenet_source,
    )
)
