"""Who follows CONTRIBUTING gets what it promises: its code goes into a copy of the packages, where its commands run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from analysis import store
from tests.pages import ROOT, commands, write_files

PAGE = ROOT / "CONTRIBUTING.md"
METHOD = ROOT / "docs" / "how-to" / "another-method.md"
TINY = ["epochs=1", "seeds=1", "data.train_size=50", "pool.gpus=none", "pool.cpu_slots=2"]
ADDED = {"plain_cnn.py", "confidence_penalty.py", "learning_rates.py", "polite.py"}
ADDED |= {"spread.py", "spread_of_methods.yaml"}
DRIVER = "import json, sys; from tests.pages import call; print([call(words) for words in json.loads(sys.argv[1])])"


def copy_of_packages(folder: Path) -> Path:
    """The packages and what tests need of them, to be changed at will."""
    for name in ("dhm", "experiments", "analysis", "tests/analysis", "tests/engines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "pages.py"):
        shutil.copy(ROOT / "tests" / name, folder / "tests" / name)
    shutil.copy(ROOT / "pyproject.toml", folder / "pyproject.toml")
    return folder


def call_there(folder: Path, given: list[list[str]]) -> subprocess.CompletedProcess[str]:
    """Give commands in a copy of the packages, one after the other in one process."""
    return subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(given)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        check=False,
    )


def small(words: list[str]) -> list[str]:
    """What makes a command of ours quick."""
    if "experiments.run" not in words:
        return []
    return TINY[:3] if "pool=polite" in words else TINY  # the pool that the page adds has neither GPUs nor cpu_slots


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages in which every step of the page was taken."""
    place = copy_of_packages(tmp_path_factory.mktemp("contributor"))
    assert {path.name for path in write_files(PAGE, place)} == ADDED
    assert [path.name for path in write_files(METHOD, place)] == ["logit_penalty.py"], "another method is one file"
    asked = [words for page in (PAGE, METHOD) for words in commands(page) if words[0] == "python"]
    assert len(asked) == 12
    done = call_there(place, [[*words, *small(words)] for words in asked])
    assert done.stdout.strip().splitlines()[-1] == str([0] * len(asked)), done.stdout + done.stderr
    assert "4 passed" in done.stdout, "the pool was held to the contract"
    return place


def test_what_was_added_is_recorded_and_drawn(followed: Path) -> None:
    uri = f"sqlite:///{followed}/results/store/mlflow.db"
    plans = store.plans(uri)
    assert sorted(plan.grid for plan in plans) == [*["loss_terms"] * 4, *["methods"] * 3, "spread_of_methods"]
    assert {variant.arch for plan in plans for variant in plan.variants} == {"resnet8", "plain_cnn"}
    runs = store.runs(uri)
    for term in ("confidence_penalty 0.1", "logit_penalty 0.01"):
        with_term = runs["variant"].str.endswith(term)
        assert set(runs["variant"][with_term]) == {f"plain with {term}", f"dhm with {term}"}
        assert (runs[f"loss/{term.split()[0]}/main"].notna() >= with_term).all()
    assert list(followed.glob("results/digits/spread_of_methods*/spread.png"))


@pytest.mark.usefixtures("followed")
def test_what_was_added_is_as_ruff_wants_it(followed: Path) -> None:
    files = [str(path) for path in followed.rglob("*.py") if path.name in ADDED]
    ruff = Path(sys.executable).parent / "ruff"
    done = subprocess.run([ruff, "check", *files], cwd=followed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_hooks_are_what_make_check_does() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entries = " ".join(hook["entry"] for hook in hooks)
    makefile = (ROOT / "Makefile").read_text()
    for tool in ("ruff check", "ruff format", "mypy"):
        assert tool in entries and f"$(BIN)/{tool}" in makefile


def test_the_citation_is_of_this_project_and_of_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    (paper,) = citation["references"]
    assert paper["title"] == "Dynamic Hierarchical Mimicking Towards Consistent Optimization Objectives"
    assert [author["family-names"] for author in paper["authors"]] == ["Li", "Chen"]
