"""Names that a command line may give, known without loading what they name.

A misspelt grid is told at once, and a shell completes them all. Those of registries are found by their files or stand
here once more, since the registries would load torch; a test holds them to these.
"""

from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig

from dhm.registry import unknown

GRIDS = tuple(sorted(path.stem for path in (Path(__file__).parent / "grids").glob("[!_]*.py")))  # a grid a file
BENCHMARKS = ("digits", "cifar10", "cifar100", "image_folder", "imagenet")
RECIPES = ("documented", "released")
RETRY = ("failed", "stale", "running")
FACTORS = ("arch", "method", "positions", "branch_depth", "fork_probability", "term")
ARCHITECTURES = (
    *("resnet8", "resnet14", "resnet20", "resnet32", "resnet110", "resnet1202"),
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("wrn_10_1", "wrn_16_8", "wrn_28_10"),
    *("densenet_10_6", "densenet_40_12", "densenet_100_12", "densenet_100_24"),
    *("densenet_bc_100_12", "densenet_bc_190_40", "densenet_bc_250_24"),
)
KNOWN = {"grid": GRIDS, "benchmark": BENCHMARKS, "recipe": RECIPES, "retry": RETRY, "arch": ARCHITECTURES}


def of_folder(folder: str | None) -> list[str]:
    """The grids of a user's folder: each has the name of its file."""
    return [] if folder is None else sorted(path.stem for path in Path(folder).expanduser().glob("*.y*ml"))


def check(settings: DictConfig) -> None:
    """A ValueError for a grid or a class of cells that there is not. Of the others, somebody may have added one."""
    check_retry(settings.retry)
    if settings.grid is not None and settings.grid_dir is None and settings.grid not in GRIDS:
        raise unknown_grid(settings.grid, GRIDS)


def unknown_grid(name: str, known: Iterable[str]) -> ValueError:
    """The error for a grid that there is not."""
    return ValueError(f"{unknown('grid', name, known)}. One of your own, in YAML, needs grid_dir=DIR")


def check_retry(retry: str | None) -> None:
    """A ValueError unless it is a class of cells that can be run again, or none."""
    if retry is not None and retry not in RETRY:
        raise unknown("retry", retry, RETRY)
