"""Completion offers what there is, in real shells, and answers at once because it loads nothing heavy."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import experiments.grids
from dhm.backbones import ARCHITECTURES
from dhm.registry import Registry
from experiments import completion
from experiments.benchmarks import BENCHMARKS, RECIPES
from experiments.completion import choices
from experiments.factors import FACTORS
from experiments.grid import GRIDS
from experiments.run import main
from tests.experiments.test_startup import HEAVY

ROOT = Path(__file__).parents[2]
ASKED = "source <(dhm-run --completion bash); COMP_LINE=$1; COMP_POINT=${2:-${#COMP_LINE}}; "
# What readline does with the function that `complete` was given.
ASKED += "COMP_WORDS=($COMP_LINE); _dhm_run dhm-run; printf '%s\\n' \"${COMPREPLY[@]}\""


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a shell that finds the command, as an installed package puts it on the PATH."""
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "dhm-run"
    command.write_text(f"#!{sys.executable}\nimport sys\nfrom experiments.run import main\nsys.exit(main())\n")
    command.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(folder)}


def in_bash(line: str, shell: dict[str, str], *more: str) -> list[str]:
    command = ["bash", "--norc", "-c", more[1] + ASKED if more else ASKED, "bash", line, *more[:1]]
    done = subprocess.run(command, cwd=ROOT, env=shell, capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("name", "registry"),
    [("grid", GRIDS), ("benchmark", BENCHMARKS), ("recipe", RECIPES), ("factors", FACTORS), ("arch", ARCHITECTURES)],
)
def test_names_are_those_of_the_registries(name: str, registry: Registry[object]) -> None:
    """They stand there once more, because the registries would load torch."""
    assert experiments.grids
    offered = [word.removesuffix("=") for word in choices(["factors." if name == "factors" else f"{name}="])]
    parted = "." if name == "factors" else "="
    assert sorted(word.partition(parted)[2] for word in offered) == sorted(registry)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("dhm-run gr", ["grid=", "grid_dir="]),
        ("dhm-run grid=me", ["methods"]),
        ("dhm-run grid=methods benchmark=cifar", ["cifar10", "cifar100"]),
        ("dhm-run recipe=", ["documented", "released"]),
        ("dhm-run pool=", ["local", "ray", "slurm"]),
        ("dhm-run pool=slurm pool.pa", ["pool.partition="]),
        ("dhm-run pool.pa", []),
        ("dhm-run pool.comp", ["pool.compile="]),
        ("dhm-run plan=", ["false", "true"]),
        ("dhm-run opti", ["optim."]),
        ("dhm-run 'factors.positions=[1,2]' factors.m", ["factors.method="]),
        ("dhm-run --j", ["--json"]),
        ("dhm-run grid_dir=notebooks/grids grid=learning", ["learning_rate"]),
        ("dhm-run grid=methods data.root=/", []),
    ],
)
def test_bash_offers(line: str, offered: list[str], shell: dict[str, str]) -> None:
    assert in_bash(line, shell) == offered


def test_bash_after_a_space_offers_every_setting(shell: dict[str, str]) -> None:
    offered = in_bash("dhm-run grid=methods ", shell)
    assert {"seeds=", "epochs=", "data.", "pool.", "plan=", "store="} <= set(offered)
    assert "grid=methods" not in offered


def test_bash_completes_where_the_cursor_is_and_with_any_word_breaks(shell: dict[str, str]) -> None:
    assert in_bash("dhm-run grid=me seeds=2", shell, "15", "") == ["methods"]
    assert in_bash("dhm-run grid=me", shell, "15", "COMP_WORDBREAKS=' '; ") == ["grid=methods"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not on the PATH")
def test_zsh_completes(shell: dict[str, str], tmp_path: Path) -> None:
    """In a terminal of its own: what stands in the line after the tabulators, told by a key of its own, Ctrl-X."""
    prepare = (
        "PS1=; autoload -Uz compinit && compinit -u; source <(dhm-run --completion zsh); "
        "tell() { print -r -- \"<$BUFFER>\" }; zle -N tell; bindkey '^X' tell; print rea''dy"
    )
    (tmp_path / "prepare").write_text(prepare)
    script = (
        "zmodload zsh/zpty; zpty shell 'zsh -f -i'\n"
        f"zpty -w shell '. {tmp_path / 'prepare'}'; zpty -r -m shell out '*ready*'\n"
        "zpty -n -w shell $'dhm-run grid=metho\\tplan=tr\\t--js\\t\\x18'; zpty -r -m shell out '*<*>*'\n"
        "print -r -- $out\n"
    )
    command = ["zsh", "-f", "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=shell, capture_output=True, text=True, check=True, timeout=300)
    assert "<dhm-run grid=methods plan=true --json>" in done.stdout.replace(" >", ">")


def test_it_loads_nothing_heavy() -> None:
    code = (
        "import json, sys\nfrom experiments.run import main\nmain(['--complete', 'grid=', 'optim.'])\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_a_shell_that_there_is_nothing_for_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([completion.SCRIPT, "fish"]) == 2
    assert "Choose one of: bash, zsh" in capsys.readouterr().err
    assert main([completion.SCRIPT]) == 2
    assert "wants a shell: bash or zsh" in capsys.readouterr().err
