"""What the command line does, from Python: enumerate, run, analyse."""

import io
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from rich.console import Console

from analysis import store
from analysis.build import build
from experiments import api
from experiments.run import main
from tests.experiments.conftest import Workplace
from tests.pages import ROOT, blocks

POOL = {"pool.cpu_slots": 2, "pool.gpus": "none"}


def test_three_calls_are_a_study(workplace: Workplace) -> None:
    study = api.plan("methods", {"data.train_size": 50}, seeds=2, epochs=1, store=workplace.store)
    assert [cell.name for cell in study.cells][:3] == ["plain s0", "dsl s0", "dhm s0"]
    assert store.plans(workplace.uri) == [], "nothing is recorded"

    told = io.StringIO()
    ended = api.run(study, POOL, results=workplace.root / "results", console=Console(file=told, highlight=False))
    assert (ended.outcome.done, ended.outcome.trained, ended.outcome.missing) == (6, 6, 0)
    assert ended.tracking_uri == workplace.uri
    lines = [line for line in told.getvalue().splitlines() if "% error in" in line]
    assert len(lines) == 6 and lines[-1].startswith("[6/6] "), "a line a cell, as a notebook shows them"

    (built,) = build(ended.tracking_uri, workplace.root / "results", [ended.plan.plan_id])
    assert any(path.name == "comparison.md" for path in built.paths)

    again = api.run(study, POOL, results=workplace.root / "results", console=Console(quiet=True))
    assert (again.outcome.done, again.outcome.trained) == (6, 0)


def test_a_study_from_python_is_that_of_the_command_line(
    methods: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    study = api.plan("methods", POOL, epochs=2, seeds=2, store=methods.store)
    (recorded,) = store.plans(methods.uri)
    assert study.plan.plan_id == recorded.plan_id
    ids = set(store.runs(methods.uri)["cell_id"])
    assert {cell.cell_id for cell in study.cells} == ids
    assert main([*study.words, "plan=true"]) == 0
    assert study.plan.plan_id in capsys.readouterr().out


def test_a_notebook_gets_plain_lines(
    methods: Workplace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)  # a kernel's output says so of itself
    study = api.plan("methods", POOL, epochs=2, seeds=2, store=methods.store)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert api.run(study).outcome.done == 6
    shown = capsys.readouterr().out
    assert "6 done, 0 to run" in shown and "\x1b" not in shown


def test_a_mistake_is_a_value_error_with_the_remedy(tmp_path: Path) -> None:
    for mistake, words in (({"epocs": 3}, "epochs"), ({"factors.positions": ["1"]}, "positions"), ({"seeds": 0}, "1")):
        with pytest.raises(ValueError, match=words):
            api.plan("methods", mistake, store=tmp_path)
    with pytest.raises(ValueError, match="Did you mean 'methods'"):
        api.plan("method", store=tmp_path)


def test_a_grid_of_ones_own_can_be_planned_again(tmp_path: Path) -> None:
    (tmp_path / "rates.yaml").write_text(
        "question: Which?\nfactors: {optim.lr: [0.1, 0.2]}\nbaseline: {optim.lr: 0.1}\n"
    )
    for _ in range(2):
        assert len(api.plan("rates", grid_dir=tmp_path, store=tmp_path / "it's here", seeds=1).cells) == 2


def test_names_stay() -> None:
    assert api.__all__ == ["Cell", "Ended", "Outcome", "Plan", "Study", "benchmarks", "grids", "plan", "run"]
    assert "branch_positions" in api.grids() and "digits" in api.benchmarks()
    for package in ("dhm", "experiments", "analysis"):
        assert (ROOT / package / "py.typed").exists()
    script = "import sys, experiments; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.strip() == "False", "the package itself stays light"


def test_the_page_about_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workplace: Workplace) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "results").mkdir()
    workplace.store.rename(tmp_path / "results" / "store")
    names: dict[str, object] = {}
    for block in blocks(ROOT / "docs" / "how-to" / "python.md", "python"):
        exec(block.text, names)
    assert list(tmp_path.glob("results/digits/methods*/comparison.md"))


def test_a_study_is_short_in_a_notebook_and_a_name_is_none(tmp_path: Path) -> None:
    study = api.plan("methods", seeds=2, store=tmp_path)
    assert repr(study) == f"Study(digits/methods, plan {study.plan.plan_id}: 3 variants, 6 cells)"
    with pytest.raises(ValueError, match=r"give what plan\(\.\.\.\) returned"):
        api.run("methods")
