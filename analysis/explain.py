"""Names the runs behind a number: `python -m analysis.explain results/digits/methods/comparison.md dhm difference`.

Without a cell it lists what can be asked. A cell is a row, or a row and a column; what is known stands in the JSON
beside every table and figure.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

UI = "http://127.0.0.1:5000"  # where `make ui` serves MLflow


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns 0, or 2 where what was asked for does not exist."""
    parser = argparse.ArgumentParser(prog="python -m analysis.explain", description=__doc__)
    parser.add_argument("file", metavar="FILE", help="a table or figure, in any of its formats")
    parser.add_argument("cell", metavar="CELL", nargs="*", help="a row, or a row and a column, as they are listed")
    parser.add_argument("--ui", default=UI, metavar="URL", help="where MLflow is served (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        print(explain(options.file, " ".join(options.cell), ui=options.ui))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def explain(file: str | Path, cell: str = "", *, ui: str = UI) -> str:
    """Return what is behind a cell of a table or figure, or what can be asked, in lines. ValueError if unknown."""
    path = Path(file)
    sidecar = _read(path)
    rows: Mapping[str, Any] = sidecar["rows"]
    numbers = dict(zip(rows, sidecar.get("numbers", ()), strict=False))
    columns = {row: _columns(source, numbers.get(row, {})) for row, source in rows.items()}
    if not cell:
        return "\n".join(_listing(path, columns))
    row, column = _found(cell, columns, path)
    source = rows[row]
    told = [f"{path}: {row}{f', {column}' if column else ''}"]
    nested = isinstance(source, dict) and column in source and isinstance(source[column], dict)
    shown = numbers.get(row, {})
    if nested:
        source = source[column]
        shown = {key: value for key, value in shown.items() if key.startswith(f"{column} ")}
    elif column:
        shown = {column: shown[column]}
    told += [f"  {name} = {_value(value)}" for name, value in shown.items()]
    told += _runs(source, sidecar, row, ui)
    against = source.get("against") if isinstance(source, dict) else None
    if against and isinstance(rows.get(against), dict):
        told += [f"Held against {against}:", *_runs(rows[against], sidecar, against, ui)]
    if "commits" in sidecar:
        changes = " with uncommitted changes" if sidecar.get("uncommitted_changes") else ""
        told.append(f"Code {', '.join(sidecar['code'])}, commit {', '.join(sidecar['commits'])}{changes}.")
    return "\n".join([*told, *sidecar.get("remarks", ())])


def _read(path: Path) -> dict[str, Any]:
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        raise ValueError(
            f"{sidecar} does not exist: name a table or figure that `python -m analysis.build` wrote, such as "
            "results/digits/branch_positions/comparison.md"
        )
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{sidecar} cannot be read ({error}): `python -m analysis.build` writes it anew") from None
    if not isinstance(content, dict) or not isinstance(content.get("rows"), dict):
        raise ValueError(f"{sidecar} names no rows: it was not written by `python -m analysis.build`")
    return content


def _columns(source: Any, numbers: Mapping[str, Any]) -> list[str]:
    """A matrix has a cell for each level, with runs of its own; other tables have numbers of one set of runs."""
    if isinstance(source, dict) and source and all(isinstance(v, dict) and "runs" in v for v in source.values()):
        return list(source)
    return list(numbers)


def _listing(path: Path, columns: Mapping[str, list[str]]) -> list[str]:
    sample = next(iter(columns), "ROW")
    told = [f"{path} has the rows", *(f"  {row}" for row in columns)]
    shared = list(dict.fromkeys(column for found in columns.values() for column in found))
    if shared:
        told += ["and the columns", f"  {', '.join(shared)}"]
    return [*told, f"Ask for one: python -m analysis.explain {path} '{sample}'"]


def _found(cell: str, columns: Mapping[str, list[str]], path: Path) -> tuple[str, str]:
    if cell in columns:
        return cell, ""
    # A row's name may begin another's: "dhm" and "dhm at 1".
    for row in sorted(columns, key=len, reverse=True):
        if cell.startswith(f"{row} ") and cell.removeprefix(f"{row} ") in columns[row]:
            return row, cell.removeprefix(f"{row} ")
    for row in sorted(columns, key=len, reverse=True):
        if cell.startswith(f"{row} "):
            if not columns[row]:
                raise ValueError(
                    f"what stands beside {path} has no numbers of {row!r}: name the row alone to see its runs, or "
                    "have it written anew by `python -m analysis.build`"
                )
            raise ValueError(
                f"row {row!r} of {path} has no column {cell.removeprefix(f'{row} ')!r}; there are "
                f"{', '.join(columns[row])}"
            )
    raise ValueError(f"no row {cell!r} in {path}; there are {', '.join(columns)}")


def _runs(source: Any, sidecar: Mapping[str, Any], row: str, ui: str) -> Iterator[str]:
    experiment = (source.get("experiment_id") if isinstance(source, dict) else None) or (
        sidecar["plan"]["experiment_id"] if "plan" in sidecar else sidecar.get("plans", {}).get(row)
    )
    if isinstance(source, dict) and "published" in source:
        figure = source["published"]
        yield f"  published: {figure['value']} % ({figure['standing']}; {figure['source']})"
    found = list(_named(source))
    if not found:
        yield "  no runs"
    width = max((len(name) for name, _ in found), default=0)
    for name, run in found:
        yield f"  {name:<{width}}  {f'{ui}/#/experiments/{experiment}/runs/{run}' if run else '-'}"


def _named(source: Any) -> Iterator[tuple[str, str | None]]:
    """Give the runs of a row, each with what tells it from the others."""
    if isinstance(source, list):  # cells with their state
        for cell in source:
            why = f" ({cell['why']})" if cell["why"] else ""
            yield f"{cell['variant']} s{cell['seed']}, {cell['state']}{why}", cell["run_id"]
    elif "runs" in source:
        yield from (((f"seed {name}" if name.isdigit() else name), run) for name, run in source["runs"].items())
    elif "run" in source:
        yield "the run", source["run"]
    else:
        for at, part in source.items():
            yield from ((f"{at}, {name}", run) for name, run in _named(part))


def _value(value: Any) -> str:
    return "–" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
