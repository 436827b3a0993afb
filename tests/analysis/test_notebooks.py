"""The notebooks as a visitor meets them: kept with output, with any store, and without one."""

import ast
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from analysis import notebooks, results, store

jupytext = pytest.importorskip("jupytext", reason="notebooks need jupytext, of the dev extra")
nbformat = pytest.importorskip("nbformat", reason="notebooks need nbformat, of the dev extra")

FOLDER = Path(__file__).parents[2] / "notebooks"
SOURCES = sorted(FOLDER.glob("*.py"))
RECORDED = ("branch_positions", "main_results", "weights_and_depths")  # their grids are in the tests' store


def shown(notebook: Any) -> str:
    """All texts that a notebook shows."""
    told = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            told += [output.get("text", ""), *map(str, (output.get("data") or {}).values())]
    return "\n".join(told)


def images(notebook: Any) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.fixture(scope="module")
def executed(uri: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every notebook, executed on a store that has some of the grids; and one where there is no store."""
    nowhere = f"sqlite:///{tmp_path_factory.mktemp('nowhere') / 'mlflow.db'}"
    with ThreadPoolExecutor(2) as pool:
        made = {source.stem: pool.submit(notebooks.execute, source, uri) for source in SOURCES}
        made["nowhere"] = pool.submit(notebooks.execute, FOLDER / "branch_positions.py", nowhere)
        return {name: future.result() for name, future in made.items()}


def test_there_are_the_five() -> None:
    assert [source.stem for source in SOURCES] == sorted((*RECORDED, "inside_dhm", "your_own_grid"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_is_kept_with_its_output_beside_the_same_text(source: Path) -> None:
    kept = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(kept)
    text = [(cell.cell_type, cell.source) for cell in jupytext.read(source).cells]
    assert [(cell.cell_type, cell.source) for cell in kept.cells] == text, "run `make notebooks`"
    assert kept.metadata["jupytext"] == {"formats": "ipynb,py:percent"}
    assert not notebooks.absent(kept) and images(kept) > 0
    outputs = [output for cell in kept.cells for output in cell.get("outputs", ())]
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)
    assert str(Path.home()) not in shown(kept) and "site-packages" not in shown(kept), "a path of one machine"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_reads_results_through_analysis_alone(source: Path) -> None:
    found = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
    assert "analysis" in found and found <= {"analysis", "pathlib"}


@pytest.mark.parametrize("name", RECORDED)
def test_a_notebook_shows_what_is_recorded(executed: dict[str, Any], name: str) -> None:
    notebook = executed[name]
    assert images(notebook) >= 1 and "verdict" in shown(notebook)
    marked = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.get("metadata", {}).get("absent")
    ]
    assert all("'network'" in output.data["text/plain"] for output in marked), "made-up runs have no topology"


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("inside_dhm", "python -m experiments.run grid=gradient_agreement"),
        ("your_own_grid", "python -m experiments.run grid=learning_rate grid_dir=notebooks/grids"),
        ("nowhere", "python -m experiments.run grid=branch_positions"),
    ],
)
def test_a_notebook_whose_grid_was_not_run_says_what_to_run(executed: dict[str, Any], name: str, command: str) -> None:
    assert f"has not been run here.** Run `{command}`" in shown(executed[name])
    assert notebooks.absent(executed[name]) and images(executed[name]) == 0


def test_the_same_records_give_the_same_notebook(executed: dict[str, Any], uri: str) -> None:
    again = notebooks.execute(FOLDER / "branch_positions.py", uri)
    assert nbformat.writes(again) == nbformat.writes(executed["branch_positions"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One small notebook, and no store."""
    (tmp_path / "one.py").write_text(
        'from analysis.results import load\n\n# %% [markdown]\n# # One\n\n# %%\nload("depths")\n'
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'none.db'}")
    return tmp_path


def test_an_earlier_output_stays_where_nothing_is_recorded(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert notebooks.main(["--folder", str(folder)]) == 0
    assert "one.ipynb: written" in capsys.readouterr().out
    kept = nbformat.read(folder / "one.ipynb", as_version=4)
    assert notebooks.absent(kept)
    for cell in kept.cells:
        cell["outputs"] = [] if cell.cell_type == "code" else cell.get("outputs")
        if cell.cell_type != "code":
            del cell["outputs"]
    nbformat.write(kept, folder / "one.ipynb")
    before = (folder / "one.ipynb").read_bytes()
    assert notebooks.main(["--folder", str(folder), "one"]) == 0
    assert "one.ipynb: kept as it was" in capsys.readouterr().out
    assert (folder / "one.ipynb").read_bytes() == before


def test_mistakes_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert notebooks.main(["--folder", str(folder), "two"]) == 2
    assert "no notebook two; there are one" in capsys.readouterr().err
    (folder / "one.py").write_text("# %%\n1 / 0\n")
    assert notebooks.main(["--folder", str(folder)]) == 2
    told = capsys.readouterr().err
    assert "one.py does not run" in told and "ZeroDivisionError" in told
    assert not (folder / "one.ipynb").exists()


def test_results_are_found_by_name_and_say_what_they_lack(uri: str, tmp_path: Path) -> None:
    found = results.load("methods", uri=uri)
    assert isinstance(found, results.Result)
    comparison = found.table("comparison")
    assert not comparison.absent and comparison.text.startswith("| variant")
    assert list(found.effects()["variant"]) == ["plain", "dsl", "dhm"]
    picture = found.figure("methods")
    assert isinstance(picture, results.Picture) and picture.png.startswith(b"\x89PNG")
    picture.save(tmp_path / "methods.png")
    assert (tmp_path / "methods.png").read_bytes() == picture.png
    assert str(comparison) == comparison.text and len(str(picture)) < 500 > len(repr(picture)), "a script prints them"
    note = found.figure("weights")
    assert isinstance(note, results.Note) and note.absent and "needs the factor 'mimic.alpha'" in note.text
    absent = results.load("methods", "cifar100", uri=uri)
    assert isinstance(absent, results.Absent) and absent.effects().empty
    assert "grid=methods benchmark=cifar100 data.root=DIR" in absent.figure("methods").text


def test_a_grid_with_gaps_is_no_result(uri: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    shutil.copy(uri.removeprefix("sqlite:///"), tmp_path / "mlflow.db")
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    plan = next(plan for plan in store.plans(address) if plan.grid == "methods")
    MlflowClient(address).delete_run(store.runs(address, plan)["run_id"].iloc[0])
    found = results.load("methods", uri=address)
    for told in (found.table("comparison"), found.figure("methods"), found.answer()):
        assert isinstance(told, results.Note) and told.absent
        assert "1 of 15 cells are absent" in told.text
    assert "14 of 15 cells done" in json.dumps(found._repr_mimebundle_())
