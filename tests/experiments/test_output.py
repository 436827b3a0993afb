"""What the commands print where a script or a file reads it, and where a person does."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import experiments.grids  # noqa: F401  the registry is filled by importing
from experiments import status
from experiments.benchmarks import BENCHMARKS
from experiments.grid import GRIDS
from experiments.run import main
from tests.experiments.conftest import QUICK, Workplace

ROOT = Path(__file__).parents[2]
# "Select graphic rendition" with a colour among its numbers; bold and dim are none.
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;\d+)*m")
RUN, STATUS = ("-m", "experiments.run"), ("-m", "experiments.status")


def environment(**more: str) -> dict[str, str]:
    """Of a person's shell in a terminal that knows colours."""
    left_out = ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return {**kept, "TERM": "xterm-256color", **more}


def in_a_pipe(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)


def in_a_terminal(*words: str, **more: str) -> tuple[int, str]:
    """Exit code of a command, and what reached the screen."""
    ours, theirs = pty.openpty()
    command = [sys.executable, *words]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(**more), stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end was closed
            break
        if not piece:
            break
        seen += piece
    os.close(ours)
    return process.wait(), seen.decode()


def words_of(place: Workplace) -> list[str]:
    return [f"store={place.store}", f"results={place.root / 'results'}"]


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_script_reads_a_plan(methods: Workplace) -> None:
    done = in_a_pipe(*RUN, "grid=methods", *QUICK, "seeds=3", "plan=true", "--json", *words_of(methods))
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["experiment"], plan["slots"], plan["trials"]) == ("digits/methods", 2, None)
    assert plan["overrides"] == ["epochs=2"]
    assert plan["cells"] == {"done": 6, "failed": 0, "stale": 0, "elsewhere": 0, "missing": 3}
    assert [each["name"] for each in plan["variants"]] == ["plain", "dsl", "dhm"]
    plain, _, dhm = plan["variants"]
    assert plain["cells"] == {"0": "done", "1": "done", "2": "missing"}
    assert (plain["baseline"], dhm["baseline"], dhm["factors"]) == (None, "plain", {"method": "dhm"})
    assert 0 < plain["parameters"] < dhm["parameters"] and 0 < plain["flops"] < dhm["flops"]
    longest, second, third = sorted((each["seconds"] for each in plan["variants"]), reverse=True)
    assert plan["seconds"] == pytest.approx(max(longest, second + third)), "on two slots, the longest first"


def test_what_a_plan_cannot_tell_yet_is_null(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    assert main(["grid=methods", "plan=true", "--json", f"store={store}"]) == 0
    plan = told(capsys)
    assert plan["seconds"] is None and {each["seconds"] for each in plan["variants"]} == {None}
    assert plan["store"] == str(store) and not store.exists()


def test_a_script_reads_what_a_person_is_shown(methods: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    assert methods.run("grid=methods", "plan=true") == 0
    shown = capsys.readouterr().out
    assert methods.run("grid=methods", "plan=true", "--json") == 0
    plan = told(capsys)
    for each in plan["variants"]:
        assert re.search(rf"^{each['name']} +2 +0 +0 +{each['parameters']:,} ", shown, re.MULTILINE), shown
    assert f"plan {plan['plan_id']}:" in shown and plan["question"] in shown
    assert status.main([f"store={methods.store}", "--json"]) == 0
    (known,) = told(capsys)["plans"]
    assert (known["plan_id"], known["cells"]["done"]) == (plan["plan_id"], plan["cells"]["done"])


@pytest.mark.parametrize("words", [["--json"], ["grid=methods", "--json"], ["plan=true", "--json"]])
def test_what_has_no_json_says_what_has(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr() == ("", "error: --json is for a plan: give grid=NAME plan=true --json\n")


def test_a_mistake_leaves_a_scripts_output_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grid=methdos", "plan=true", "--json"]) == 2
    assert status.main([f"store={tmp_path}", "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and "Did you mean 'methods'" in shown.err


def commands(place: Workplace, folder: Path) -> dict[str, Sequence[str]]:
    return {
        "help": (*RUN, "--help"),
        "status": (*STATUS, f"store={place.store}"),
        "study": (*RUN, "grid=methods", "epochs=1", "seeds=1", f"store={folder / 'store'}", f"results={folder}"),
    }


@pytest.mark.parametrize("name", ["help", "status"])
def test_a_pipe_gets_plain_lines(name: str, methods: Workplace, tmp_path: Path) -> None:
    done = in_a_pipe(*commands(methods, tmp_path)[name])
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr and "\r" not in done.stdout


@pytest.mark.parametrize("name", ["help", "study"])
def test_a_terminal_gets_no_colour_where_none_is_wanted(name: str, methods: Workplace, tmp_path: Path) -> None:
    words = commands(methods, tmp_path)[name]
    code, shown = in_a_terminal(*words, NO_COLOR="1")
    assert code == 0, shown
    assert "\x1b" in shown, "it is a terminal: there is bold, and a live table"
    assert not COLOUR.search(shown), COLOUR.search(shown)


def test_a_terminal_gets_colours() -> None:
    code, shown = in_a_terminal(*RUN, "--help")
    assert code == 0 and COLOUR.search(shown)


def test_help_fits_a_screen_of_forty_lines_of_eighty_letters() -> None:
    shown = in_a_pipe(*RUN, "--help").stdout
    assert "grid=branch_positions" in shown
    assert len(shown.splitlines()) <= 40


def test_grids_and_benchmarks_are_a_line_each_in_a_small_terminal() -> None:
    code, shown = in_a_terminal(*RUN, COLUMNS="80")
    lines = re.sub(r"\x1b\[[\d;]*m", "", shown).rpartition("Grids")[2].splitlines()
    assert code == 0 and len(lines) < 24
    for name in (*GRIDS, *BENCHMARKS):
        assert any(f" {name} " in line for line in lines), name
