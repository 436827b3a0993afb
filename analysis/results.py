"""Recorded results as a notebook shows them: tables and figures by their names, or what to type to have them."""

import base64
import io
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

import analysis
from analysis import build, catalogue, coverage, effects, reading, store, style
from analysis.data import GridData
from analysis.plan import Plan
from analysis.summary import summary
from analysis.tables.table import markdown, provenance

ABSENT = "absent"  # marks in a notebook what could not be shown
_DPI = 150

Bundle = tuple[dict[str, str], dict[str, Any]]


@dataclass(frozen=True)
class Note:
    """A few words in Markdown. `absent` where they stand for a result that there is not."""

    text: str
    absent: bool = False

    def __str__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, **_: Any) -> Bundle:
        return {"text/markdown": self.text, "text/plain": self.text}, {ABSENT: True} if self.absent else {}


@dataclass(frozen=True)
class Picture:
    """A figure as an image, with its words for who cannot see it. `width` in pixels."""

    png: bytes = field(repr=False)
    words: str
    width: int

    def __str__(self) -> str:
        return f"{self.words} (an image: save(FILE) keeps it)"

    def save(self, path: str | Path) -> None:
        """Write it to a PNG file."""
        Path(path).write_bytes(self.png)

    def _repr_mimebundle_(self, **_: Any) -> Bundle:
        image = base64.b64encode(self.png).decode()
        return {"image/png": image, "text/plain": self.words}, {"image/png": {"width": self.width}}


@dataclass(frozen=True)
class Absent:
    """A grid that was not run: whatever is asked of it says what to type."""

    grid: str
    command: str

    @property
    def note(self) -> Note:
        """What to type."""
        return Note(f"**{self.grid} has not been run here.** Run `{self.command}`, then this notebook again.", True)

    def answer(self) -> Note:
        """In place of the answer."""
        return self.note

    def table(self, name: str) -> Note:
        """In place of a table."""
        return self.note

    def figure(self, name: str) -> Note:
        """In place of a figure."""
        return self.note

    def effects(self) -> pd.DataFrame:
        """No effects: a frame without rows."""
        return pd.DataFrame(columns=list(effects.COLUMNS))

    def _repr_mimebundle_(self, **_: Any) -> Bundle:
        return self.note._repr_mimebundle_()


@dataclass(frozen=True)
class Result:
    """What is recorded of a grid."""

    uri: str
    plan: Plan

    def answer(self) -> Note:
        """The grid's question and its answer, as the command line gives it."""
        grid = self._load()
        told = summary(self.plan, grid.runs)
        try:
            return Note(f"```text\n{told}\n```\n\n{provenance(grid)}")
        except ValueError as error:
            return Note(f"```text\n{told}\n```\n\n{error}", True)

    def table(self, name: str) -> Note:
        """Return a table by its name in `analysis.tables`; where the grid is not complete, a note that says so."""
        try:
            return Note(markdown(catalogue.table(name)(self._load())))
        except ValueError as error:
            return Note(str(error), True)

    def figure(self, name: str) -> Picture | Note:
        """Return a figure by its name in `analysis.figures`; where it cannot be drawn, a note that says why."""
        try:
            drawn = catalogue.figure(name)(self._load(name))
        except ValueError as error:
            return Note(str(error), True)
        file = io.BytesIO()
        with style.look():
            drawn.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
        words = f"{self.plan.title} on {self.plan.benchmark}. {catalogue.words(name)}"
        return Picture(file.getvalue(), words, round(drawn.get_figwidth() * 110))

    def effects(self) -> pd.DataFrame:
        """Return the effects as numbers, a row a variant, see `analysis.effects`. IncompleteError where cells miss."""
        return effects.effects(self._load())

    def _load(self, *figures: str) -> GridData:
        return reading.load(self.uri, replace(self.plan, figures=figures))

    def _repr_mimebundle_(self, **_: Any) -> Bundle:
        frame = coverage.coverage(self.plan, store.runs(self.uri, self.plan))
        told = f"**{self.plan.title}.** {self.plan.question}\n\n{coverage.sentence(self.plan, frame)}"
        return Note(told)._repr_mimebundle_()


def load(
    grid: str, benchmark: str = "digits", *, plan_id: str = "", command: str = "", uri: str = ""
) -> Result | Absent:
    """Find what is recorded of a grid: of its own recipe if that was run, else of the latest change of it.

    Args:
        plan_id: which plan, where other recipes or levels of the grid were run as well.
        command: what to type to have it, where that is more than the grid's name.
        uri: tracking store; the repository's own by default, or that of MLFLOW_TRACKING_URI.
    """
    root = Path(analysis.__file__).resolve().parents[1]
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or build.STORE.replace("///", f"///{root}/")
    try:
        found = [plan for plan in store.plans(uri) if (plan.grid, plan.benchmark) == (grid, benchmark)]
        found = [plan for plan in found if plan_id in ("", plan.plan_id)]
    except store.NoStoreError:
        found = []
    if not found:
        words = "" if benchmark == "digits" else f" benchmark={benchmark} data.root=DIR"
        return Absent(grid, command or f"python -m experiments.run grid={grid}{words}")
    return Result(uri, max(found, key=lambda plan: (not plan.overrides, plan.updated)))
