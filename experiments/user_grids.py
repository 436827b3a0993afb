"""A user's own grids: YAML files in a folder, with the fields of `Grid`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dhm.registry import unknown
from experiments.grid import GRIDS, Grid

REQUIRED = ("question", "factors", "baseline")


def register_folder(folder: Path, wanted: str | None = None) -> list[str]:
    """Register every YAML file of a folder as a grid that has the file's name, or the one that is wanted.

    Returns:
        the names.

    Raises:
        ValueError: no such folder, a file that is no grid, or a name that is taken.
    """
    if not folder.is_dir():
        raise ValueError(f"grid_dir={folder}: there is no such folder")
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml"))
    if not paths:
        raise ValueError(f"grid_dir={folder}: it has no .yaml file")
    if any(path.stem == wanted for path in paths):
        paths = [path for path in paths if path.stem == wanted]  # a mistake in another file is no hindrance
    for path in paths:
        if path.stem in GRIDS:
            raise ValueError(f"{path}: the grid {path.stem!r} is there already: give the file another name")
    return [GRIDS.register(path.stem, read_grid(path)).name for path in paths]


def read_grid(path: Path) -> Grid:
    """A grid from a YAML file.

    Raises:
        ValueError: the file cannot be read, or is no grid; names the file and the field.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: a grid is a mapping with {', '.join(REQUIRED)}")
    known = [field.name for field in dataclasses.fields(Grid) if field.name != "name"]
    for name in content:
        if name not in known:
            raise ValueError(f"{path}: {unknown('field', name, known)}")
    for name in REQUIRED:
        if name not in content:
            raise ValueError(f"{path}: the field {name!r} must be given")
    return Grid(**{"name": path.stem, "title": path.stem.replace("_", " "), **_typed(path, content)})


def _typed(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    fields = dict(content)
    for name in ("factors", "baseline", "base"):
        if name in fields and not (isinstance(fields[name], Mapping) and all(isinstance(k, str) for k in fields[name])):
            raise ValueError(f"{path}: {name} is a mapping of names to values, not {fields[name]!r}")
    for name, levels in fields["factors"].items():
        if not isinstance(levels, list):
            raise ValueError(f"{path}: factors.{name} is a list of levels, not {levels!r}")
    for name in ("title", "question", "reading"):
        if name in fields and not isinstance(fields[name], str):
            raise ValueError(f"{path}: {name} is text, not {fields[name]!r}")
    for name in ("seeds", "diagnostics_every"):
        if name in fields and (isinstance(fields[name], bool) or not isinstance(fields[name], int)):
            raise ValueError(f"{path}: {name} is a whole number, not {fields[name]!r}")
    if "exclude" in fields and not (
        isinstance(fields["exclude"], list) and all(isinstance(point, Mapping) for point in fields["exclude"])
    ):
        raise ValueError(f"{path}: exclude is a list of points, each with some factors and their levels")
    if "figures" in fields:
        fields["figures"] = tuple(fields["figures"]) if isinstance(fields["figures"], list) else (fields["figures"],)
    return fields
