"""Executes the notebooks and keeps their output: `python -m analysis.notebooks`.

A notebook is a text file, notebooks/NAME.py, that is reviewed, and NAME.ipynb made of it, that is looked at. Where a
grid that it shows has not been run here, an earlier output stays.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import analysis
from analysis.results import ABSENT

FOLDER = Path("notebooks")
_PATIENCE = 600  # seconds for a cell


def execute(source: Path, uri: str = "") -> Any:
    """Return a notebook with its output. nbclient's CellExecutionError where a cell fails.

    Args:
        source: its text, in jupytext's percent format.
        uri: tracking store, instead of the repository's.
    """
    # These come with the dev extra; nothing else needs them.
    import jupytext  # noqa: PLC0415
    from nbclient import NotebookClient  # noqa: PLC0415
    from traitlets.config import Config  # noqa: PLC0415

    notebook = jupytext.read(source)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # the same at every build
    root = str(Path(analysis.__file__).parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, **({"MLFLOW_TRACKING_URI": uri} if uri else {})}
    with tempfile.TemporaryDirectory() as sockets:
        # Sockets in a folder of one's own are nobody else's; Windows has none.
        private = {} if os.name == "nt" else {"transport": "ipc", "ip": f"{sockets}/kernel"}
        config = Config({"KernelManager": private})
        client = NotebookClient(notebook, timeout=_PATIENCE, kernel_name="python3", record_timing=False, config=config)
        client.execute(cwd=str(source.parent), env=environment)
    notebook.metadata = {
        "jupytext": {"formats": "ipynb,py:percent"},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def absent(notebook: Any) -> bool:
    """Say whether a result that a notebook shows is not there."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return any(output.get("metadata", {}).get(ABSENT) for output in outputs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns 0, or 2 where there is no notebook or one does not run."""
    parser = argparse.ArgumentParser(prog="python -m analysis.notebooks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="notebooks, by their names (default: all)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where they are (default: %(default)s)")
    options = parser.parse_args(arguments)
    there = {path.stem: path for path in sorted(options.folder.glob("*.py"))}
    unknown = set(options.names) - set(there)
    if unknown or not there:
        known = ", ".join(there) or f"none in {options.folder}"
        print(f"error: no notebook {', '.join(sorted(unknown))}; there are {known}", file=sys.stderr)
        return 2
    try:
        from nbclient.exceptions import CellExecutionError  # noqa: PLC0415
    except ImportError as error:
        print(f"error: {error}; it comes with `pip install --editable '.[dev]'`", file=sys.stderr)
        return 2
    for source in (there[name] for name in options.names or there):
        try:
            print(_build(source), flush=True)
        except CellExecutionError as error:
            print(f"error: {source} does not run:\n{error}", file=sys.stderr)
            return 2
    return 0


def _build(source: Path) -> str:
    import nbformat  # noqa: PLC0415

    made, path = execute(source), source.with_suffix(".ipynb")
    if absent(made) and path.is_file() and not absent(nbformat.read(path, as_version=4)):
        return f"{path}: kept as it was, since a grid that it shows has not been run here; it says which when opened"
    nbformat.write(made, path)
    return f"{path}: written"


if __name__ == "__main__":
    sys.exit(main())
