"""A user's own grids: YAML files in a folder, with the fields of `Grid`.

A file may come from anybody, so it is data alone: it runs no code, fills in nothing, and names no place.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dhm.registry import unknown
from experiments.grid import GRIDS, Grid

REQUIRED = ("question", "factors", "baseline")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,63}")  # also of folders and of pages
LARGEST = 2**20  # bytes
OURS = ("name", "source")  # fields that a file does not give


class _Loader(yaml.SafeLoader):
    """Plain values, each key once. `1e-3` is a number, which YAML 1.1 takes for text."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("write a value again instead of pointing at it with * and &")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        made = super().construct_mapping(node, deep=deep)
        if len(made) < len(node.value):
            keys = [key.value for key, _ in node.value]
            twice = next((key for key in keys if keys.count(key) > 1), "a key")
            raise yaml.YAMLError(f"{twice!r} stands twice")
        return made


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def register_folder(folder: Path, wanted: str | None = None) -> list[str]:
    """Register every YAML file of a folder as a grid that has the file's name, or the one that is wanted.

    Returns:
        the names.

    Raises:
        ValueError: no such folder, a file that is no grid, or a name that is taken.
    """
    if not folder.is_dir():
        raise ValueError(f"grid_dir={folder}: there is no such folder")
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml") and path.is_file())
    if not paths:
        raise ValueError(f"grid_dir={folder}: it has no .yaml file")
    if wanted is not None and (wanted in GRIDS or any(path.stem == wanted for path in paths)):
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
    if not NAME.fullmatch(path.stem):
        raise ValueError(f"{path}: a grid has its file's name, of letters, digits, _, + and -, at most 64 of them")
    content = _content(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: a grid is a mapping with {', '.join(REQUIRED)}")
    known = [field.name for field in dataclasses.fields(Grid) if field.name not in OURS]
    for name in content:
        if name not in known:
            raise ValueError(f"{path}: {unknown('field', name, known)}")
    for name in REQUIRED:
        if name not in content:
            raise ValueError(f"{path}: the field {name!r} must be given")
    title = path.stem.replace("_", " ")
    return Grid(**{"name": path.stem, "source": str(path), "title": title, **_typed(path, content)})


def _content(path: Path) -> Any:
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"{path} has {path.stat().st_size:,} bytes: no grid is that large")
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
        _require_plain(content, "")
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    except RecursionError as error:
        raise ValueError(f"{path}: it is nested too deeply for a grid") from error
    return content


def _require_plain(value: Any, place: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _require_plain(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list):
        for item in value:
            _require_plain(item, place)
    elif value is not None and not isinstance(value, str | int | float):
        raise yaml.YAMLError(f"{place} holds a {type(value).__name__}, {value!r}: put text in quotes")


def _typed(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    fields = dict(content)
    for name in ("factors", "baseline", "base"):
        if name in fields and not (isinstance(fields[name], Mapping) and all(isinstance(k, str) for k in fields[name])):
            raise ValueError(f"{path}: {name} is a mapping of names to values, not {fields[name]!r}")
    if not fields["factors"]:
        raise ValueError(f"{path}: factors is empty: name one, with its levels")
    for name, levels in fields["factors"].items():
        if not isinstance(levels, list) or not levels:
            raise ValueError(f"{path}: factors.{name} is a list of levels, not {levels!r}")
        if len({repr(level) for level in levels}) < len(levels):
            raise ValueError(f"{path}: factors.{name}: a level stands twice in {levels!r}")
    for name in ("title", "question", "reading"):
        if name in fields and not isinstance(fields[name], str):
            raise ValueError(f"{path}: {name} is text, not {fields[name]!r}")
    for name in ("seeds", "diagnostics_every"):
        if name in fields and (isinstance(fields[name], bool) or not isinstance(fields[name], int) or fields[name] < 0):
            raise ValueError(f"{path}: {name} is a whole number, not {fields[name]!r}")
    if "exclude" in fields and not (
        isinstance(fields["exclude"], list) and all(isinstance(point, Mapping) for point in fields["exclude"])
    ):
        raise ValueError(f"{path}: exclude is a list of points, each with some factors and their levels")
    if "figures" in fields:
        fields["figures"] = tuple(fields["figures"]) if isinstance(fields["figures"], list) else (fields["figures"],)
    return fields
