"""The walls of the house: who may import whom."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("dhm", "experiments", "analysis", "benchmarks", "tests")
STUDY_LIBRARIES = {"hydra", "omegaconf", "optuna", "mlflow", "pandas"}

# Each room of dhm may import those that stand before it.
FLOORS = (
    ("registry",),
    ("fields", "streams"),
    ("recipe",),
    ("steps", "replicas"),
    ("backbones",),
    ("recompute",),
    ("branches",),
    ("network",),
    ("losses", "optim", "metrics", "checkpoint", "data", "cost", "processes"),
    ("training", "released"),
    ("diagnostics", "engine", "export", "evaluate"),
)


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def top_level(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("dhm", STUDY_LIBRARIES | {"experiments", "analysis", "benchmarks", "tests"}),
        ("analysis", {"dhm", "experiments", "benchmarks", "tests", "hydra", "omegaconf", "optuna", "torch"}),
        ("experiments", {"benchmarks", "tests"}),
    ],
)
def test_walls(package: str, forbidden: set[str]) -> None:
    files = modules(package)
    assert files
    for path in files:
        assert not top_level(path) & forbidden, path.relative_to(ROOT)


def test_only_recording_writes_to_mlflow_and_only_the_store_reads_it() -> None:
    users = {
        path.relative_to(ROOT).as_posix()
        for package in ("dhm", "experiments", "analysis")
        for path in modules(package)
        if "mlflow" in top_level(path)
    }
    stores = {"experiments/stores/check.py", "experiments/stores/move.py"}  # of whole stores, not of a study
    record = {f"experiments/recording/{name}.py" for name in ("tracking", "opening", "recorder")}
    readers = {path for path in users if path.startswith("analysis/store/")}
    assert readers and users - readers == {*record, *stores}


def test_what_runs_and_records_a_cell_knows_nothing_of_how_it_is_scheduled() -> None:
    for room in ("recording", "pools", "grids", "stores"):
        files = modules(f"experiments/{room}")
        assert files
        for path in [*files, ROOT / "experiments/trial.py", ROOT / "experiments/grid.py"]:
            assert not any(name.startswith("experiments.scheduling") for name in imports(path)), path


def test_nobody_imports_the_command_line() -> None:
    for package in ("dhm", "experiments", "analysis"):
        for path in modules(package):
            assert "experiments.run" not in imports(path), path


def test_the_rooms_of_dhm_import_downwards() -> None:
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    rooms = {path.stem for path in (ROOT / "dhm").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__"} == set(floor), "a new room needs its floor here"
    for path in modules("dhm"):
        room = path.relative_to(ROOT / "dhm").parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "dhm" and len(parts) > 1 and parts[1] != room:
                assert floor[parts[1]] < floor[room], f"{path}: {name}"


def test_no_two_files_need_each_other() -> None:
    named = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in ("dhm", "experiments", "analysis", "benchmarks")
        for path in modules(package)
    }
    needs = {name: (imports(path) & named.keys()) - {name} for name, path in named.items()}
    # A package is what its files need, and importing one of them is not needing its own package.
    needs = {name: {other for other in found if not name.startswith(f"{other}.")} for name, found in needs.items()}
    assert sum(map(len, needs.values())) > 500
    try:
        list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        pytest.fail(" needs ".join(error.args[1]))


def test_files_stay_small() -> None:
    for package in OURS:
        for path in modules(package):
            limit = 800 if package == "tests" else 300
            assert len(path.read_text().splitlines()) <= limit, path.relative_to(ROOT)


def test_a_pool_is_one_file_of_less_than_two_hundred_lines() -> None:
    files = sorted((ROOT / "experiments" / "pools").glob("*.py"))
    assert len(files) > 3
    for path in files:
        assert len(path.read_text().splitlines()) < 200, path.name


@pytest.mark.parametrize("module", ["analysis.schema", "analysis.plan_record"])
def test_what_a_training_process_takes_from_analysis_is_light(module: str) -> None:
    script = f"import sys, {module}; print([n for n in ('pandas', 'matplotlib', 'mlflow') if n in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.strip() == "[]"


def test_a_run_loads_no_plotting_library() -> None:
    script = "import sys, experiments.trial; print([n for n in ('matplotlib', 'seaborn', 'hydra') if n in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.strip() == "[]"
