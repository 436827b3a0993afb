"""Writes the page, and prints it where a browser is there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from analysis import coverage, schema, store
from analysis.built import Built
from analysis.files import write_whole
from analysis.plan import Plan
from analysis.report import browser, pieces
from analysis.report.pieces import Piece
from analysis.summary import summary

NAME = "report"


@dataclass(frozen=True, kw_only=True)
class Section:
    """What the page says of one plan. `facts` are its provenance, by what they are."""

    anchor: str
    plan: Plan
    answer: str
    coverage: str
    tables: tuple[Piece, ...]
    figures: tuple[Piece, ...]
    facts: Mapping[str, str]
    refusals: tuple[str, ...]


def write(uri: str, out: Path, built: Sequence[Built], *, allow_incomplete: bool = False) -> list[Path]:
    """Write report.html of what a build wrote into `out`, and report.pdf where there is a browser.

    The same records and files give the same bytes of the page.

    Args:
        built: what `analysis.build.build` returned.
    """
    runs = store.runs(uri)
    sections = [_section(number, item, runs, allow_incomplete) for number, item in enumerate(built, start=1)]
    whole = [_of_store(path, out) for path in _of_all(out)]
    page = out / f"{NAME}.html"
    write_whole(page, render(sections, whole, runs))
    printed = browser.to_pdf(page)
    return [page, *([printed] if printed else [])]


def render(sections: Sequence[Section], whole: Sequence[Piece], runs: pd.DataFrame) -> str:
    """Return the page. Whatever is written into it is escaped."""
    environment = Environment(
        loader=PackageLoader("analysis.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    done = runs[runs["status"] == "FINISHED"]
    last = done["end_time"].max()
    return environment.get_template("page.html").render(
        sections=sections,
        whole=whole,
        records=len(done),
        until="" if pd.isna(last) else f"{last:%Y-%m-%d %H:%M} UTC",
        only_digits={section.plan.benchmark for section in sections} == {"digits"},
    )


def _section(number: int, built: Built, runs: pd.DataFrame, allow_incomplete: bool) -> Section:
    plan: Plan = built.plan
    made = [pieces.read(path) for path in pieces.sidecars(built.paths)]
    own = runs[runs[schema.PLAN] == plan.plan_id]
    frame = coverage.coverage(plan, own)
    usable = own[own["run_id"].isin(frame["run_id"])]
    order = {name: place for place, name in enumerate(plan.figures)}
    return Section(
        anchor=f"plan-{number}",
        plan=plan,
        answer=_answer(plan, own, allow_incomplete),
        coverage=built.coverage,
        tables=tuple(piece for piece in made if not piece.image),
        figures=tuple(sorted((piece for piece in made if piece.image), key=lambda piece: order.get(piece.name, 0))),
        facts={
            "command": plan.command,
            "data": f"{plan.data_words} (fingerprint {plan.data})",
            "seeds": ", ".join(map(str, plan.seeds)),
            "changed": ", ".join(plan.overrides) or "nothing",
            "code": ", ".join(sorted(map(str, usable[schema.CODE].dropna().unique()))),
            "commit": ", ".join(sorted(map(str, usable[schema.COMMIT].dropna().unique())))
            + (" with uncommitted changes" if bool(usable[schema.DIRTY].any()) else ""),
            "in MLflow": f"experiment {plan.experiment}, runs with tags.plan = '{plan.plan_id}' (make ui)",
        },
        refusals=built.refusals,
    )


def _answer(plan: Plan, runs: pd.DataFrame, allow_incomplete: bool) -> str:
    """Return the answer without the question, which the page has above it."""
    lines = summary(plan, runs, allow_incomplete=allow_incomplete).splitlines()
    return "\n".join(line for line in lines if line != plan.question)


def _of_store(sidecar: Path, out: Path) -> Piece:
    piece = pieces.read(sidecar)
    return piece if sidecar.parent == out else replace(piece, title=f"{piece.title}: {sidecar.parent.name}")


def _of_all(out: Path) -> list[Path]:
    """Return the sidecars of tables that are of no single plan, coverage first."""
    found = [path for path in [*out.glob("*.json"), *out.glob("*/*.json")] if path.with_suffix(".md").is_file()]
    return sorted(found, key=lambda path: (len(path.parts), path))
