"""Finds a table or a figure by the name of its file."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from analysis import figures, tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.data import GridData
    from analysis.plan import Plan
    from analysis.tables.table import Table

_NO_TABLES = ("table", "render")  # what tables are made with
STORE_TABLES = ("coverage", "published")  # of all grids, not of one


@dataclass(frozen=True, kw_only=True)
class Needs:
    """The tables that a plan has, and what its figures read.

    Args:
        metrics: see `metrics`; of all figures.
        files: see `files`; of all figures.
    """

    tables: tuple[str, ...]
    metrics: tuple[str, ...]
    files: tuple[str, ...]


def needs(plan: "Plan") -> Needs:
    """Return what a plan's tables and figures are and read."""
    return Needs(tables=tuple(tables_of(plan)), metrics=metrics(plan.figures), files=files(plan.figures))


def figure_names() -> list[str]:
    """Return the names of all figures, sorted."""
    return _names(figures)


def table_names() -> list[str]:
    """Return the names of the tables of a grid, sorted."""
    return [name for name in _names(tables) if name not in _NO_TABLES + STORE_TABLES]


def tables_of(plan: "Plan") -> list[str]:
    """Return the names of the tables that a plan has: all but those whose module says that it does not apply."""
    return [name for name in table_names() if _applies(name, plan)]


def figure(name: str) -> "Callable[[GridData], Figure]":
    """Return the function that builds a figure. ValueError lists the names."""
    return cast("Callable[[GridData], Figure]", _builder(figures, name, figure_names()))


def check(name: str, factors: Mapping[str, Sequence[Any]]) -> None:
    """ValueError where a figure says of the levels of some factors that it could never draw them."""
    said = getattr(importlib.import_module(f"{figures.__name__}.{name}"), "check", None)
    if said is not None:
        said(factors)


def words(name: str) -> str:
    """Return what a figure shows, in a sentence: the first line of its module."""
    return str(importlib.import_module(f"{figures.__name__}.{name}").__doc__).strip().splitlines()[0]


def sources(name: str, grid: "GridData") -> Mapping[str, Any]:
    """Return the runs behind a figure by what they are called in it: those of each variant, unless its module says."""
    said = getattr(importlib.import_module(f"{figures.__name__}.{name}"), "sources", None)
    if said is not None:
        return cast("Mapping[str, Any]", said(grid))
    return {variant: {"runs": found} for variant, found in grid.run_ids(grid.plan.names).items()}


def table(name: str) -> "Callable[[GridData], Table]":
    """Return the function that builds a table of a grid. ValueError lists the names."""
    return cast("Callable[[GridData], Table]", _builder(tables, name, table_names()))


def of_all(name: str) -> "Callable[..., Table]":
    """Return the function that builds one of `STORE_TABLES`, from all grids."""
    return cast("Callable[..., Table]", _builder(tables, name, list(STORE_TABLES)))


def metrics(names: Sequence[str]) -> tuple[str, ...]:
    """Return the metrics whose curves figures draw, as their modules say; one that ends in `/` stands for all below.

    A figure that there is not draws none.
    """
    return _said(names, "METRICS")


def files(names: Sequence[str]) -> tuple[str, ...]:
    """Return the artifacts that figures draw, as their modules say. A figure that there is not draws none."""
    return _said(names, "FILES")


def _said(names: Sequence[str], what: str) -> tuple[str, ...]:
    modules = [importlib.import_module(f"{figures.__name__}.{name}") for name in names if name in figure_names()]
    return tuple(said for module in modules for said in cast("tuple[str, ...]", getattr(module, what, ())))


def _names(package: ModuleType) -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name[0] != "_")


def _applies(name: str, plan: "Plan") -> bool:
    applies = getattr(importlib.import_module(f"{tables.__name__}.{name}"), "applies", None)
    return applies is None or bool(applies(plan))


def _builder(package: ModuleType, name: str, names: list[str]) -> object:
    if name not in names:
        kind = package.__name__.rpartition(".")[2].removesuffix("s")
        raise ValueError(f"no {kind} {name!r}; there are {', '.join(names)}")
    return importlib.import_module(f"{package.__name__}.{name}").build
