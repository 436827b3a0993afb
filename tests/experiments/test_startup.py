"""A command answers before it has loaded what it does not need. Held by what is loaded, not by time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import usage
from experiments.benchmarks import RECIPES
from experiments.factors import FACTORS
from experiments.run import main

ROOT = Path(__file__).parents[2]
HEAVY = (
    *("torch", "torch._dynamo", "torchvision", "mlflow", "optuna", "pandas", "scipy", "sklearn", "matplotlib"),
    *("seaborn", "triton"),
)
SCRIPT = """
import json, sys
from experiments.run import main
code = main(sys.argv[1:])
print(json.dumps({"code": code, "loaded": [name for name in %r if name in sys.modules]}))
"""
CALL = "code = main(sys.argv[1:])"
CAUGHT = f"try:\n    {CALL}\nexcept SystemExit as told:\n    code = told.code"


def loaded(*words: str) -> tuple[int, set[str], str]:
    """Exit code, what of HEAVY a fresh process had loaded at the end of a command, and what it printed."""
    command = [sys.executable, "-c", SCRIPT % (HEAVY,), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    shown = json.loads(done.stdout.splitlines()[-1])
    return shown["code"], set(shown["loaded"]), done.stdout + done.stderr


def test_help_loads_nothing_heavy() -> None:
    code, there, told = loaded("--help")
    assert (code, there) == (0, set())
    assert "data.root" in told


def test_a_misspelt_setting_is_told_before_anything_heavy_is_loaded() -> None:
    code, there, told = loaded("grid=methods", "epocs=3")
    assert (code, there) == (2, set())
    assert "Did you mean 'epochs'" in told


@pytest.mark.parametrize(("words", "meant"), [("grid=metods", "methods"), ("grid=methods retry=fail", "failed")])
def test_a_misspelt_name_is_told_before_anything_heavy_is_loaded(words: str, meant: str) -> None:
    code, there, told = loaded(*words.split())
    assert (code, there) == (2, set())
    assert f"Did you mean '{meant}'?" in told


@pytest.mark.parametrize("module", ["status", "clean", "reproduce", "stores.__main__"])
@pytest.mark.parametrize("word", ["--help", "--unknown"])
def test_the_smaller_commands_answer_before_anything_heavy_is_loaded(module: str, word: str) -> None:
    script = SCRIPT.replace("experiments.run", f"experiments.{module}").replace(CALL, CAUGHT)
    command = [sys.executable, "-c", script % (HEAVY,), word]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    expected = {"code": 0 if word == "--help" else 2, "loaded": []}
    assert json.loads(done.stdout.splitlines()[-1]) == expected
    assert "usage" in done.stdout if word == "--help" else "unknown" in done.stderr


def test_the_list_of_grids_loads_neither_the_record_nor_what_draws() -> None:
    code, there, told = loaded()
    assert code == 0
    assert not there & {"torchvision", "mlflow", "pandas", "matplotlib", "seaborn"}
    assert "branch_positions" in told and "cifar100" in told


def test_a_plan_loads_nothing_that_only_runs_and_pictures_need(tmp_path: Path) -> None:
    """Nor, once its networks are counted, the compiler with which torch counts them."""
    words = ("grid=methods", "plan=true", f"store={tmp_path}")
    assert main(words) == 0
    assert json.loads((tmp_path / "costs.json").read_text())["costs"]
    code, there, told = loaded(*words)
    assert code == 0
    assert there == {"torch", "optuna", "pandas"}
    assert "15 missing" in told


def test_what_is_preloaded_for_runs_has_what_they_would_load_themselves() -> None:
    """Lazy imports must cost the runs nothing: the fork server has loaded them all."""
    script = (
        "import importlib, sys\n"
        "import experiments.pools.parts.server as server\n"
        "for name in server.PRELOAD: importlib.import_module(name)\n"
        "wanted = ('torch._dynamo', 'torchvision.models.resnet', 'torchvision.transforms.functional',\n"
        "          'torchvision.datasets.folder', 'mlflow', 'experiments.trial')\n"
        "print([name for name in wanted if name not in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_pools_and_what_engines_start_load_no_engine_and_nothing_heavy() -> None:
    """A command reads a pool's settings before anything else; a job of an engine is a fresh interpreter."""
    script = (
        "import sys\n"
        "from experiments import pools\n"
        "print([pools.config_of(name).__module__ for name in pools.names()])\n"
        "import experiments.pools.parts.agent\n"
        f"print([name for name in {(*HEAVY, 'ray', 'submitit', 'hydra', 'omegaconf')} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    asked, there = done.stdout.splitlines()
    assert "experiments.pools.slurm" in asked and there == "[]"


def test_help_names_every_factor_and_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    """It does so in its own words, because the registries would load torch."""
    from rich.console import Console

    usage.help_page(Console(width=200))
    told = capsys.readouterr().out
    for name in (*FACTORS, *RECIPES):
        assert name in told
