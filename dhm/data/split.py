"""Which images a run trains on, validates on and tests on. All of it follows from the recipe and the seed."""

import dataclasses
import math
from collections.abc import Sequence

import torch

from dhm.data.dataset import DataError
from dhm.recipe import DataSpec
from dhm.streams import stream


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """Which of the training images a run trains on and which it validates on.

    Attributes:
        train, val: int64 positions among the training images, ascending; `val` may be empty.
        labels: int64, one for each of `train`, with the noise that the recipe asks for.
    """

    train: torch.Tensor
    val: torch.Tensor
    labels: torch.Tensor


def draw_parts(labels: torch.Tensor, classes: Sequence[str], spec: DataSpec, seed: int) -> Parts:
    """Keep `train_size` training images, hold out `val_fraction` of them, mislabel `label_noise` of the rest.

    No setting disturbs the draws of another. More noise keeps the same images, and the labels that were wrong
    stay wrong in the same way; a larger `train_size` keeps the images that a smaller one keeps. Which of these are held
    out is another matter: with `val_fraction` the larger one may train on an image that validates in the smaller, and
    the other way round. Labels of the validation and the test images stay true.

    Args:
        labels: int64 (N,), of all training images.

    Raises:
        DataError: a class has too few images, or none is left to train or to validate on.
    """
    generator = stream(seed, "split")
    turn = torch.randperm(len(classes), generator=generator).tolist()  # classes, in the order they get one more
    pools = [
        members[torch.randperm(len(members), generator=generator)]
        for members in (torch.nonzero(labels == label).flatten() for label in range(len(classes)))
    ]
    if spec.train_size:
        sizes = _balanced(pools, turn, spec.train_size, classes)
        pools = [pool[:size] for pool, size in zip(pools, sizes, strict=True)]
    # a pool's first images train, its last ones validate
    borders = [
        len(pool) - held for pool, held in zip(pools, _held_out(pools, turn, spec.val_fraction, classes), strict=True)
    ]
    train, val = (
        torch.cat([pool[part] for pool, part in zip(pools, parts, strict=True)]).sort().values
        for parts in (
            [slice(None, border) for border in borders],
            [slice(border, None) for border in borders],
        )
    )
    return Parts(train=train, val=val, labels=_noisy(labels, len(classes), train, spec.label_noise, seed))


def _balanced(pools: list[torch.Tensor], turn: list[int], size: int, classes: Sequence[str]) -> list[int]:
    """How many images of each class are kept: equally many, or one more."""
    each, more = divmod(size, len(pools))
    extra = [label for label in turn if len(pools[label]) > each][:more]
    sizes = [each + (label in extra) for label in range(len(pools))]
    fewest = min(len(pool) for pool in pools)
    if fewest < each or len(extra) < more:
        rare = classes[[len(pool) for pool in pools].index(fewest)]
        most = fewest * len(pools) + sum(len(pool) > fewest for pool in pools)
        raise DataError(
            f"data.train_size={size} needs {math.ceil(size / len(pools))} images of a class, but there are "
            f"{sum(map(len, pools))} training images and {fewest} of class {rare!r}: "
            f"give at most {most}, or 0 to keep all"
        )
    return sizes


def _held_out(pools: list[torch.Tensor], turn: list[int], fraction: float, classes: Sequence[str]) -> list[int]:
    """How many images of each class validate: the same share of each, the total rounded."""
    if fraction == 0:
        return [0] * len(pools)
    total = sum(len(pool) for pool in pools)
    held = [math.floor(fraction * len(pool)) for pool in pools]
    by_remainder = sorted(turn, key=lambda label: held[label] - fraction * len(pools[label]))
    for label in by_remainder[: round(fraction * total) - sum(held)]:
        held[label] += 1
    without = [classes[label] for label, pool in enumerate(pools) if held[label] == len(pool)]
    if sum(held) == 0 or without:
        what = f"no image to train on in {', '.join(without)}" if without else "no image to validate on"
        raise DataError(f"data.val_fraction={fraction} of {total} training images leaves {what}")
    return held


def _noisy(labels: torch.Tensor, num_classes: int, train: torch.Tensor, share: float, seed: int) -> torch.Tensor:
    """The labels of the images `train`, a share of them replaced by another class, each equally probable.

    Drawn for every image of the data set: another choice of images leaves an image's wrong class as it is.
    """
    generator = stream(seed, "noise")
    rank = torch.randperm(len(labels), generator=generator)
    shift = torch.randint(1, num_classes, rank.shape, generator=generator)
    kept = labels[train]
    wrong = rank[train].argsort()[: round(share * len(train))]
    kept[wrong] = (kept[wrong] + shift[train[wrong]]) % num_classes
    return kept
