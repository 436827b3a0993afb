"""The project's own files agree with each other."""

import importlib
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
TARGETS = ("run", "test", "check", "ui", "report")


@pytest.fixture(scope="module")
def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_conda_installs_the_project_by_pip_so_that_pyproject_is_the_one_list(pyproject: dict) -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, by_pip = environment["dependencies"]
    assert python == f"python{pyproject['project']['requires-python']}"
    assert pip == "pip"
    assert by_pip == {"pip": ["--editable .[dev]"]}
    assert "dev" in pyproject["project"]["optional-dependencies"]
    assert environment["name"] == pyproject["project"]["name"]


def test_the_installed_command_is_the_module(pyproject: dict) -> None:
    ((name, place),) = pyproject["project"]["scripts"].items()
    module, _, function = place.partition(":")
    assert name == "dhm-run" and callable(getattr(importlib.import_module(module), function))


def test_every_target_explains_itself() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    told = dict(re.findall(r"^([a-z-]+)\s+(\S.*)$", shown, flags=re.MULTILINE))
    assert set(TARGETS) <= set(told)
    declared = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(declared) == set(told)


def test_ci_does_what_the_readme_says() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    readme = (ROOT / "README.md").read_text()
    for command in ("make check", "make test", "make run"):
        assert command in script
        assert command in readme
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_readme_names_files_and_commands_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (ROOT / link).exists(), link
    for module in re.findall(r"python -m ([a-z_.]+)", readme):
        path = ROOT / Path(*module.split("."))
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_the_store_is_ignored_and_the_results_are_not() -> None:
    def ignored(path: str) -> bool:
        return subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False).returncode == 0

    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    assert ignored("results/store/mlflow.db")
    assert ignored("data/cifar100")
    assert not ignored("results/digits/branch_positions/comparison.md")
