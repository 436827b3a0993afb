"""Two thousand broken inputs, in this process, and a dozen on the command line: see `tests.experiments.broken`."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.experiments import broken
from tests.experiments.broken import Ground
from tests.experiments.conftest import Workplace, methods  # noqa: F401  (fixtures)

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.faults


def many(count: int) -> settings:
    return settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


@pytest.fixture(scope="module")
def ground(
    methods: Workplace,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Ground]:
    found = Ground(methods.store, tmp_path_factory.mktemp("broken"))
    before = found.digest()
    yield found
    assert found.digest() == before, "the store is hurt"


@many(900)
@given(grid=broken.grids, given_words=st.lists(broken.words, min_size=1, max_size=3))
def test_settings(ground: Ground, grid: str, given_words: list[str]) -> None:
    broken.settings_are_heeded_or_refused(ground, grid, given_words)


@many(700)
@given(content=broken.grid_files(), name=broken.file_names)
def test_grid_files(ground: Ground, content: bytes, name: str) -> None:
    broken.grid_files_are_data(ground, content, name)


@many(200)
@given(hurt=broken.damage())
def test_weights_and_checkpoints(ground: Ground, hurt) -> None:
    broken.weights_run_no_code(ground, hurt)


@many(120)
@given(edit=broken.edits, command=st.sampled_from(sorted(broken.COMMANDS)))
def test_edited_stores(ground: Ground, edit: tuple[str, str, int], command: str) -> None:
    broken.edited_stores_are_refused_or_read(ground, edit, command)


@many(80)
@given(file=st.sampled_from(broken.FILES), hurt=broken.damage(), command=st.sampled_from(sorted(broken.COMMANDS)))
def test_damaged_stores(ground: Ground, file: str, hurt, command: str) -> None:
    broken.damaged_stores_are_refused_or_read(ground, file, hurt, command)


@many(100)
@given(name=st.sampled_from(["recipe.json", "environment.json"]), value=broken.json_values)
def test_edited_records(ground: Ground, name: str, value) -> None:
    broken.edited_records_are_not_believed(ground, name, value)


@pytest.mark.parametrize(
    "words",
    [
        ["run", "grid=branch_position"],
        ["run", "grid=methods", "epocs=3"],
        ["run", "grid=methods", "epochs=three"],
        ["run", "grid=methods", "store=/dev/null/x"],
        ["run", "grid=methods", "data.root=${oc.env:HOME}"],
        ["run", "grid=methods", "grid_dir=/dev"],
        ["run", "grid=methods", "factors.mimic.alpha=[1]"],
        ["run", "\udcff=1"],
        ["status", "store=/dev/null/x"],
        ["clean", "everything"],
        ["reproduce", "../../etc/passwd"],
        ["reproduce", "dhm s0", "--checkout", "tolerance=-1"],
    ],
)
def test_on_the_command_line(ground: Ground, words: list[str]) -> None:
    command = [sys.executable, "-m", f"experiments.{words[0]}", *map(os.fsencode, words[1:])]
    if not any(word.startswith("store=") for word in words):
        command.append(f"store={ground.store}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, errors="replace")
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("error: "), done.stderr
