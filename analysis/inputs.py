"""What tables and figures are made of, as digests: where one is what it was, the same would come of it again."""

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

import analysis
from analysis.data import GridData
from analysis.plan import Plan

LIBRARIES = ("fonttools", "matplotlib", "numpy", "pandas", "pillow", "scipy", "seaborn")  # that compute and draw


def of_plan(plan: Plan) -> str:
    """Digest of a plan, without what changes when nothing was run."""
    return _digest(*plan.content.items())


def of_grid(grid: GridData) -> str:
    """Digest of all that a table or a figure of a grid is given."""
    rest = [getattr(grid, field.name) for field in fields(grid) if field.name != "plan"]
    return _digest(of_plan(grid.plan), *rest)


def of_store(grids: Sequence[GridData]) -> str:
    """Digest of all that a table of all grids is given. Of the times at which they were run the order counts alone."""
    times = sorted({grid.plan.updated for grid in grids})
    return _digest(*(part for grid in grids for part in (of_grid(grid), times.index(grid.plan.updated))))


def code() -> str | None:
    """Digest of this package and of what it computes and draws with; None where it is not what this process has loaded.

    A process may run for days, in which files change that it has loaded, or will load.
    """
    found = [platform.python_version(), *(f"{name} {metadata.version(name)}" for name in LIBRARIES)]
    root = Path(analysis.__file__).parent
    for path in sorted(root.rglob("*")):
        if path.suffix in (".py", ".csv"):
            about = path.stat()
            if max(about.st_mtime, about.st_ctime) >= analysis.LOADED:
                return None
            found += [path.relative_to(root).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()]
    return _digest(*found)


def of_file(path: Path) -> str | None:
    """Digest of a file's content; None where it cannot be read."""
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError:
        return None


def _digest(*values: Any) -> str:
    found = hashlib.blake2b(digest_size=16)
    for value in values:
        for part in _parts(value) if isinstance(value, pd.DataFrame) else (repr(value).encode(),):
            found.update(len(part).to_bytes(8))
            found.update(part)
    return found.hexdigest()


def _parts(frame: pd.DataFrame) -> list[bytes]:
    """A frame as bytes, two parts a column: every bit of a number counts, and the type of what is none."""
    parts = []
    for name, column in frame.items():
        numeric = pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_extension_array_dtype(
            column.dtype
        )
        parts.append(repr((name, str(column.dtype), len(column))).encode())
        parts.append(column.to_numpy().tobytes() if numeric else "\0".join(map(repr, column.tolist())).encode())
    return parts
