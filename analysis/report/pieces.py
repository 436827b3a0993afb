"""Tables and figures as a page needs them, read from the files that a build wrote and their sidecars."""

import base64
import json
import mimetypes
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis import catalogue, style

_POINT = 120  # pixels of a page for an inch of a figure: letters of 7 points are then 12 pixels high
_CELL = re.compile(r"(?<!\\)\|")
_ESCAPED = re.compile(r"\\([\\|*<(\[])")


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file inside the page. `uri` holds all of it."""

    name: str
    uri: str


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A table (`heads`, `aligns`, `rows`) or a figure (`image`, `width` in pixels), with what stands under it."""

    name: str
    title: str
    caption: str
    downloads: tuple[Download, ...]
    sidecar: dict[str, Any]
    heads: tuple[str, ...] = ()
    aligns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    image: str = ""
    width: int = 0

    @property
    def words(self) -> str:
        """What a figure shows, for who cannot see it."""
        return f"{self.caption} Its numbers are in the tables, and the runs behind them in the file {self.name}.json."


def read(sidecar: Path) -> Piece:
    """Read what a sidecar stands beside. ValueError where the files are not those of a build."""
    told = json.loads(sidecar.read_text(encoding="utf-8"))
    files = [sidecar.with_name(name) for name in told["files"]]
    name = sidecar.stem
    common: dict[str, Any] = {
        "name": name,
        "title": name.replace("_", " ").capitalize(),
        "downloads": tuple(Download(name=file.name, uri=data_uri(file)) for file in [*files, sidecar]),
        "sidecar": told,
    }
    by_suffix = {file.suffix: file for file in files}
    if ".png" in by_suffix:
        png = by_suffix[".png"].read_bytes()
        width = round(int.from_bytes(png[16:20], "big") / style.DPI * _POINT)
        return Piece(**common, caption=catalogue.words(name), image=data_uri(by_suffix[".png"]), width=width)
    if ".md" not in by_suffix:
        raise ValueError(f"{sidecar} is no sidecar of a table or a figure: it names {', '.join(told['files'])}")
    heads, aligns, rows = table(by_suffix[".md"].read_text(encoding="utf-8"))
    return Piece(**common, caption=str(told["caption"]), heads=heads, aligns=aligns, rows=rows)


def table(markdown: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return heads, alignments (l or r) and rows of a table as `analysis.tables.table.markdown` writes it."""
    heads, rules, *rows = (_cells(line) for line in markdown.splitlines() if line.startswith("|"))
    return heads, tuple("r" if rule.endswith(":") else "l" for rule in rules), tuple(rows)


def data_uri(path: Path) -> str:
    """Return a file as an address that holds all of it."""
    known = {".md": "text/markdown", ".tex": "text/plain"}
    kind = known.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def sidecars(paths: Sequence[Path]) -> list[Path]:
    """Return the sidecars among some paths, sorted by name."""
    return sorted(path for path in paths if path.suffix == ".json")


def _cells(line: str) -> tuple[str, ...]:
    return tuple(_ESCAPED.sub(r"\1", cell.strip()) for cell in _CELL.split(line)[1:-1])
