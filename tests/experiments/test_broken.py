"""A hundred broken inputs of the two thousand in `tests/faults/test_mistakes.py`, and the worst of them by name."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.markup import code, prose
from analysis.tables.render import latex
from analysis.tables.table import Column, Table, markdown
from experiments import config
from experiments.user_grids import read_grid
from tests.experiments import broken
from tests.experiments.broken import Ground
from tests.experiments.conftest import Workplace

few = settings(max_examples=30, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def ground(methods: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    found = Ground(methods.store, tmp_path_factory.mktemp("broken"))
    before = found.digest()
    yield found
    assert found.digest() == before, "the store is hurt"


@few
@given(grid=broken.grids, words=st.lists(broken.words, min_size=1, max_size=3))
def test_settings(ground: Ground, grid: str, words: list[str]) -> None:
    broken.settings_are_heeded_or_refused(ground, grid, words)


@few
@given(content=broken.grid_files(), name=broken.file_names)
def test_grid_files(ground: Ground, content: bytes, name: str) -> None:
    broken.grid_files_are_data(ground, content, name)


@few
@given(hurt=broken.damage())
def test_weights_and_checkpoints(ground: Ground, hurt) -> None:
    broken.weights_run_no_code(ground, hurt)


@settings(few, max_examples=10)
@given(edit=broken.edits, command=st.sampled_from(sorted(broken.COMMANDS)))
def test_edited_stores(ground: Ground, edit: tuple[str, str, int], command: str) -> None:
    broken.edited_stores_are_refused_or_read(ground, edit, command)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("epochs=x", "epochs wants a whole number, such as epochs=3; it got 'x'"),
        ("optim.lr=fast", "optim.lr wants a number, such as optim.lr=0.1; it got 'fast'"),
        ("plan=maybe", "plan wants true or false, such as plan=true; it got 'maybe'"),
        ("optim=3", "optim wants settings of its own, such as optim.lr=...; it got something else"),
        ("store=[a]", "store wants one word, such as store=NAME; it got"),
        ("epochs=null", "epochs wants a whole number, such as epochs=3; it got nothing"),
        ("epochs=${oc.env:HOME}", "write the value itself"),
        ("store=${oc.env:HOME}", "write the value itself"),
        ("grid@x=3", "no groups"),
    ],
)
def test_a_wrong_value_is_told_in_our_words(word: str, expected: str) -> None:
    with pytest.raises(ValueError) as caught:
        config.read([word])
    assert expected in str(caught.value)


GOOD = "question: Does it?\nfactors: {method: [plain, dhm], optim.lr: [1e-3, .1]}\nbaseline: {method: plain}\n"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("..", GOOD, "letters, digits"),
        ("a b", GOOD, "letters, digits"),
        ("mine", GOOD + "seeds: 1\nseeds: 2\n", "'seeds' stands twice"),
        ("mine", GOOD.replace("[plain, dhm]", "&a [plain, dhm, *a]"), "* and &"),
        ("mine", GOOD.replace("dhm]", "!!python/name:os.system ]"), "python/name"),
        ("mine", GOOD.replace("1e-3", "2020-01-01"), "put text in quotes"),
        ("mine", GOOD + "base: " + "[" * 5000, "deeply"),
        ("mine", "#" * 2**21, "no grid is that large"),
        ("mine", GOOD.replace("1e-3, .1", "0.1, 0.1"), "stands twice"),
        ("mine", GOOD + "source: /etc/passwd\n", "unknown field 'source'"),
    ],
)
def test_a_grid_file_is_data_alone(tmp_path: Path, name: str, text: str, expected: str) -> None:
    path = tmp_path / f"{name}.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        read_grid(path)
    assert expected in str(caught.value) and str(path) in str(caught.value)


def test_numbers_are_numbers_and_nothing_is_filled_in(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD + "title: ${oc.env:HOME}\n")
    grid = read_grid(path)
    assert grid.factors["optim.lr"] == [1e-3, 0.1]
    assert grid.title == "${oc.env:HOME}"


def test_a_mistake_in_a_level_names_the_file(ground: Ground, capsys: pytest.CaptureFixture[str]) -> None:
    from experiments.run import main

    folder = ground.folder / "own"
    folder.mkdir()
    (folder / "mine.yaml").write_text(GOOD.replace("optim.lr", "optim.schedule").replace("1e-3, .1", "cosin, linear"))
    assert main(["grid=mine", f"grid_dir={folder}", "plan=true"]) == 2
    shown = capsys.readouterr().err
    assert str(folder / "mine.yaml") in shown and "Did you mean 'cosine'" in shown


HOSTILE = "<img src=x onerror=a> [x](http://y) `rm` \\input{z} | a & b\n\n# c"


def test_names_from_outside_stay_words_in_tables() -> None:
    import pandas as pd

    frame = pd.DataFrame([{"name": HOSTILE}])
    columns = (Column("name", lambda row: str(row["name"]), "l"),)
    table = Table(name="a}{b", frame=frame, columns=columns, caption=HOSTILE)
    shown = markdown(table)
    assert "\\<img" in shown and "]\\(" in shown
    assert " <img" not in shown and "](" not in shown
    assert "# c" not in [line.strip() for line in shown.splitlines() if line.startswith("|")]
    source = latex(table)
    assert "\\input" not in source and "\\textbackslash{}input\\{z\\}" in source
    assert "\\label{tab:a-b}" in source and "\n\n" not in source


def test_names_from_outside_stay_words_in_notes() -> None:
    assert prose("a < b and <3, *so*, [0.1, 0.2]") == "a < b and <3, *so*, [0.1, 0.2]"
    assert prose("<script>[x](y)") == r"\<script>[x]\(y)"
    assert code("a`b\nc") == "`a'b c`"
