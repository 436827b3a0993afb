"""What networks cost on a data set: counted once, and kept beside the store.

Counting loads torch's compiler, a second and more; a number that is kept takes none of it.
"""

import contextlib
import dataclasses
import functools
import json
from importlib import metadata
from pathlib import Path
from typing import Any

from analysis.files import write_whole
from dhm.cost import Cost, measure, network_of
from dhm.data import DataSet
from dhm.fields import identity
from dhm.recipe import Recipe
from experiments.grid import digest
from experiments.recording.provenance import code_hash
from experiments.stores import Stores

FILE = "costs.json"
BACKWARD = 2  # forward passes that a backward pass takes as long as


def cost_of(recipe: Recipe, data: DataSet, stores: Stores) -> Cost:
    """What a recipe's network costs, for one image.

    Raises:
        ValueError: the network cannot be built, or takes no image of this size.
    """
    shape: dict[str, Any] = {"channels": data.channels, "size": data.image_shape, "num_classes": data.num_classes}
    key = digest({"network": identity(network_of(recipe)), **shape})
    path, made_by = stores.root / FILE, _made_by()
    kept = _kept(path, made_by)
    if key not in kept:
        kept[key] = measure(recipe, **shape)
        _write(path, made_by, kept)
    return kept[key]


def operations_of(recipe: Recipe, data: DataSet, stores: Stores) -> float:
    """What a cell of a recipe does, in training and evaluation; see `cost_of`."""
    return cost_of(recipe, data, stores).flops * recipe.epochs * images_of(recipe, data)


def images_of(recipe: Recipe, data: DataSet) -> float:
    """Forward passes of an epoch, or what takes as long: of training images, and of those that are held out."""
    train, test = data.sizes
    train = recipe.data.train_size or train
    held_out = recipe.data.val_fraction * train
    return (1 + BACKWARD) * (train - held_out) + held_out + test


@functools.cache
def _made_by() -> str:
    """What builds and counts networks; another one may come to other numbers."""
    return f"code {code_hash()}, " + ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "torchvision"))


@functools.lru_cache(maxsize=8)
def _kept(path: Path, made_by: str) -> dict[str, Cost]:
    """What is kept, by network and shape, to be added to; what something else counted, or nobody can read, is not."""
    try:
        content = json.loads(path.read_text())
        if content["made_by"] == made_by:
            return {key: Cost(**numbers) for key, numbers in content["costs"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return {}


def _write(path: Path, made_by: str, kept: dict[str, Cost]) -> None:
    """Keep it where there is a store. Of processes that write at once the last one's stays; it may be lost."""
    content = {"made_by": made_by, "costs": {key: dataclasses.asdict(found) for key, found in kept.items()}}
    with contextlib.suppress(OSError):  # no store yet, or a full disk
        write_whole(path, json.dumps(content, indent=1) + "\n")
