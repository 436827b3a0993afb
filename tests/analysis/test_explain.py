from pathlib import Path

import pytest
from mlflow import MlflowClient

from analysis import build, explain, schema, store


@pytest.fixture(scope="module")
def results(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("results")
    build.build(uri, out, ["methods-1", "mimicking_weights-1"])
    return out


def linked(told: str) -> set[str]:
    """Run ids of the links in an answer."""
    return {line.rpartition("/")[2] for line in told.splitlines() if "/#/experiments/" in line}


def runs_of(uri: str, plan: str, variant: str) -> set[str]:
    frame = store.runs(uri)
    return set(frame[(frame[schema.PLAN] == plan) & (frame[schema.VARIANT] == variant)]["run_id"])


def test_a_difference_names_the_runs_of_both_arms_and_its_number(uri: str, results: Path) -> None:
    told = explain.explain(results / "digits/methods/comparison.tex", "dhm difference")
    assert linked(told) == runs_of(uri, "methods-1", "dhm") | runs_of(uri, "methods-1", "plain")
    header, *_, dhm = (results / "digits/methods/comparison.csv").read_text().splitlines()
    value = float(dhm.split(",")[header.split(",").index("difference")])
    assert f"difference = {value:.6g}" in told and "mean =" not in told
    assert "Held against plain" in told and "commit 0123456789" in told


def test_links_lead_to_the_runs_that_there_are(uri: str, results: Path) -> None:
    told = explain.explain(results / "digits/methods/methods.png", "dsl", ui="http://here")
    client = MlflowClient(uri)
    for line in told.splitlines():
        if "http://here/#/experiments/" in line:
            _, _, experiment, _, run = line.partition("#")[2].split("/")
            assert client.get_run(run).info.experiment_id == experiment
    assert len(linked(told)) == 5 and "seed 4" in told


def test_a_cell_of_a_matrix_has_its_own_runs(uri: str, results: Path) -> None:
    table = results / "digits/mimicking_weights/matrix.md"
    told = explain.explain(table, "dhm 0.5 2")
    assert linked(told) == runs_of(uri, "mimicking_weights-1", "dhm alpha 0.5 T 2")
    assert "2 mean =" in told and "4 mean =" not in told
    whole = explain.explain(table, "dhm 0.5")
    assert linked(whole) > linked(told) and len(linked(whole)) == 9


def test_tables_of_the_whole_store_can_be_asked(uri: str, results: Path) -> None:
    cells = explain.explain(results / "coverage.md", "methods-1")
    assert len(linked(cells)) == 15 and "dhm s4, done" in cells and "/experiments/None" not in cells
    told = explain.explain(results / "imagenet/published.md", "resnet50 dhm top-1")
    assert "published: 23.430 % (author; DHM authors' README" in told and "no runs" in told


def test_without_a_cell_it_lists_what_can_be_asked(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(results / "digits/methods/comparison.md")
    assert explain.main([path]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name}\n" in shown for name in ("plain", "dsl", "dhm")) and "p_holm" in shown
    assert explain.main([path, "dhm", "verdict"]) == 0
    assert "verdict = " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("digits/methods/comparison.md", "dmh"), ["no row 'dmh'", "plain, dsl, dhm"]),
        (("digits/methods/comparison.md", "dhm", "speed"), ["row 'dhm'", "no column 'speed'", "difference"]),
        (("digits/methods/nothing.md", "dhm"), ["nothing.json does not exist", "analysis.build"]),
    ],
)
def test_mistakes_are_named(
    results: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: list[str]
) -> None:
    assert explain.main([str(results / words[0]), *words[1:]]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and len(told.splitlines()) == 1
    assert all(part in told for part in expected)
