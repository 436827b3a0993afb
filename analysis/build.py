"""Builds every table and figure of the store into a folder: `python -m analysis.build`."""

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import catalogue, coverage, inputs, published, schema, store
from analysis.built import Built
from analysis.data import GridData, IncompleteError
from analysis.files import write_whole
from analysis.memory import Memory
from analysis.plan import Plan, folder
from analysis.reading import with_drawn

if TYPE_CHECKING:
    from analysis.tables.table import Table

STORE = f"sqlite:///{store.USUAL}"
OUT = "results"


def build(
    uri: str,
    out: str | Path,
    plan_ids: Sequence[str] | None = None,
    *,
    allow_incomplete: bool = False,
    everything: bool = False,
) -> list[Built]:
    """Write the tables and figures of all plans, or of some; `coverage` of all, and all beside published figures.

    A sidecar names the runs behind each file. The same records give the same bytes: what stands as an earlier build
    made it of the same records, by the same code, is left as it is, unless `everything` is to be made. A plan that
    refuses does not stop the others. StoreError where there is no store or no plan; ValueError for an unknown plan id.
    """
    out = Path(out)
    plans = store.plans(uri)
    if not plans:
        raise store.StoreError(
            f"the tracking store {uri} has no grid yet. Run one first, as in `python -m experiments.run "
            "grid=branch_positions`."
        )
    unknown = set(plan_ids or ()) - {plan.plan_id for plan in plans}
    if unknown:
        known = ", ".join(f"{plan.plan_id} ({plan.words})" for plan in plans)
        raise ValueError(f"no plan {', '.join(sorted(unknown))}; there are {known}")
    runs = store.runs(uri)
    grids = [GridData(plan=plan, runs=_own(runs, plan), allow_incomplete=allow_incomplete) for plan in plans]
    wanted = [grid for grid in grids if plan_ids is None or grid.plan.plan_id in plan_ids]
    memory = Memory(store.kept_beside(uri), forget=everything)
    built = [_build_grid(uri, grid, out / folder(grid.plan, plans), memory) for grid in wanted]
    _build_of_all(grids, out, memory)
    memory.save()
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns 0, 1 where something was not built, 2 where there is nothing to build from."""
    parser = argparse.ArgumentParser(prog="python -m analysis.build", description=__doc__)
    default = os.environ.get("MLFLOW_TRACKING_URI") or STORE
    parser.add_argument("--store", default=default, metavar="DIR|URI", help="tracking store (default: %(default)s)")
    parser.add_argument("--out", default=OUT, metavar="DIR", help="where to write (default: %(default)s)")
    parser.add_argument("--plan", action="append", metavar="ID", help="only this plan; may be given several times")
    parser.add_argument("--allow-incomplete", action="store_true", help="build with cells missing, and say so")
    parser.add_argument("--all", action="store_true", help="make again what has not changed, too")
    parser.add_argument("--report", action="store_true", help="also all of it in one page to mail: report.html")
    parser.add_argument("--quiet", action="store_true", default=bool(os.environ.get("DHM_QUIET")))
    given = sys.argv[1:] if arguments is None else arguments
    # `store=DIR` and `results=DIR`, as the other commands have them.
    words = [re.sub(r"^results=", "out=", word) for word in given]
    options = parser.parse_args([f"--{word}" if re.match(r"(store|out|plan)=", word) else word for word in words])
    if "://" not in options.store:
        options.store = f"sqlite:///{Path(options.store) / 'mlflow.db'}"
    try:
        how = {"allow_incomplete": options.allow_incomplete, "everything": options.all}
        results = build(options.store, options.out, options.plan, **how)
        pages = _pages(options, results) if options.report else []
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for result in results:
        if not options.quiet:
            print(result)
        for refusal in result.refusals:
            print(f"  not built: {refusal}", file=sys.stderr, flush=True)
    if not options.quiet:
        print(f"All plans: {Path(options.out) / 'coverage.md'}")
        beside = ", ".join(str(Path(options.out) / name / "published.md") for name in published.BENCHMARKS)
        print(f"Beside published figures: {beside}")
        for page in pages:
            print(f"All of it: {page}")
    return 1 if any(result.refusals for result in results) else 0


def _pages(options: argparse.Namespace, results: Sequence[Built]) -> list[Path]:
    from analysis.report import write  # noqa: PLC0415  (a page is asked for now and then, tables after every run)

    return write(options.store, Path(options.out), results, allow_incomplete=options.allow_incomplete)


def _own(runs: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """The records of a plan, with the columns that it would have alone."""
    own = runs[runs[schema.PLAN] == plan.plan_id]
    always = {*store.COLUMNS, schema.EPOCHS, *(f"{store.FACTOR}{name}" for name in plan.factors)}
    return own[[name for name in own.columns if name in always or own[name].notna().any()]]


def _build_grid(uri: str, grid: GridData, directory: Path, memory: Memory) -> Built:
    plan, kept = grid.plan, 0
    paths: list[Path] = []
    refusals: list[str] = []
    try:
        cells, needs = grid.cells, memory.needs(plan)
        whole = with_drawn(uri, grid, cells, needs.metrics, needs.files)
    except IncompleteError as error:
        left = f" Files in {directory} are of an earlier build." if directory.is_dir() else ""
        refusals.append(f"{plan.words}: {error}{left}")
    else:
        made_of = inputs.of_grid(whole)
        makers = [(name, partial(_make_table, whole, name)) for name in needs.tables]
        makers += [(name, partial(_make_figure, whole, name)) for name in plan.figures]
        for name, make in makers:
            try:
                found, anew = memory.made(directory / name, made_of, make)
            except ValueError as error:
                refusals.append(f"{plan.words}: {error}")
            else:
                paths += found
                kept += 0 if anew else len(found)
    sentence = coverage.sentence(plan, grid.coverage)
    return Built(plan=plan, paths=tuple(paths), kept=kept, refusals=tuple(refusals), coverage=sentence)


def _build_of_all(grids: Sequence[GridData], out: Path, memory: Memory) -> None:
    """Write the tables that tell of all grids."""
    made_of, origin = inputs.of_store(grids), {"plans": {grid.plan.plan_id: grid.plan.experiment_id for grid in grids}}

    def cover(stem: Path) -> list[Path]:
        return _write_table(catalogue.of_all("coverage")(grids), stem, origin)

    def compare(stem: Path, benchmark: str) -> list[Path]:
        return _write_table(catalogue.of_all("published")(grids, benchmark), stem, origin)

    memory.made(out / "coverage", made_of, cover)
    for benchmark in published.BENCHMARKS:
        memory.made(out / benchmark / "published", made_of, partial(compare, benchmark=benchmark))


def _make_table(grid: GridData, name: str, stem: Path) -> list[Path]:
    return _write_table(catalogue.table(name)(grid), stem, _origin(grid))


def _make_figure(grid: GridData, name: str, stem: Path) -> list[Path]:
    figure = catalogue.figure(name)(grid)
    from analysis import style  # noqa: PLC0415  (2 s to import; what is not drawn needs no drawing)

    stem.parent.mkdir(parents=True, exist_ok=True)
    written = style.save(figure, stem)
    return [*written, _write_sidecar(stem, written, {**_origin(grid), "rows": catalogue.sources(name, grid)})]


def _write_table(table: "Table", stem: Path, origin: Mapping[str, Any]) -> list[Path]:
    from analysis.tables.render import FORMATS  # noqa: PLC0415  (with what tables are computed, as `style`)

    stem.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix, render in FORMATS.items():
        path = stem.with_name(stem.name + suffix)
        write_whole(path, render(table))
        written.append(path)
    numbers = json.loads(table.frame.to_json(orient="records", double_precision=15))
    told = {"caption": table.caption, "rows": table.sources, "numbers": numbers}
    return [*written, _write_sidecar(stem, written, {**origin, **told})]


def _origin(grid: GridData) -> dict[str, Any]:
    """Say where a grid's numbers come from, without what changes when nothing was run."""
    return {
        "plan": grid.plan.content,
        "metric": schema.FINAL_TOP1,
        "code": sorted(set(map(str, grid.cells[schema.CODE]))),
        "commits": sorted(set(map(str, grid.cells[schema.COMMIT].dropna()))),
        "uncommitted_changes": bool(grid.cells[schema.DIRTY].any()),
        "remarks": list(grid.remarks),
    }


def _write_sidecar(stem: Path, files: Sequence[Path], content: Mapping[str, Any]) -> Path:
    path = stem.with_name(stem.name + ".json")
    write_whole(
        path, json.dumps({"files": [file.name for file in files], **content}, indent=1, ensure_ascii=False) + "\n"
    )
    return path


if __name__ == "__main__":
    sys.exit(main())
