import json
import re
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from analysis import build, schema, store, style
from tests.analysis import synthetic


@pytest.fixture(scope="module")
def broken(uri: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of its own: one grid complete, one with gaps under overrides, one that asks for an unknown figure."""
    path = tmp_path_factory.mktemp("broken") / "mlflow.db"
    shutil.copy(uri.removeprefix("sqlite:///"), path)
    address = f"sqlite:///{path}"
    client = MlflowClient(tracking_uri=address)
    gaps = synthetic.plan_record("methods", plan_id="gaps", seeds=2, overrides=("optim.epochs=2",))
    synthetic.write_plan(client, gaps)
    synthetic.write_cell(client, gaps, gaps["variants"][0], 0)
    synthetic.write_cell(client, gaps, gaps["variants"][0], 1, status="FAILED", failure="not_finite")
    odd = {
        **synthetic.plan_record("methods", plan_id="odd", seeds=3),
        "benchmark": "other",
        "figures": ["pie", "methods"],
    }
    synthetic.write_grid(client, odd)
    return address


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_build_writes_everything_and_again_the_same_bytes(uri: str, tmp_path: Path) -> None:
    results = build.build(uri, tmp_path / "a")
    assert [result.refusals for result in results] == [()] * 4
    first = contents(tmp_path / "a")
    stems = {name.rpartition(".")[0] for name in first}
    for plan in store.plans(uri):
        for name in ("comparison", "cost", "heads", *plan.figures):
            assert f"digits/{plan.grid}/{name}" in stems
            assert f"digits/{plan.grid}/{name}.json" in first
    assert {"coverage.md", "coverage.csv", "coverage.tex", "coverage.json"} <= set(first)
    of_the_store = {
        f"{stem}{suffix}"
        for stem in ("coverage", "cifar100/published", "imagenet/published")
        for suffix in (".md", ".csv", ".tex", ".json")
    }
    assert {str(p.relative_to(tmp_path / "a")) for r in results for p in r.paths} | of_the_store == set(first)
    assert not [name for name in first if Path(name).name.startswith(".")]
    build.build(uri, tmp_path / "b", ["branch_positions-1", "methods-1"])
    again = contents(tmp_path / "b")
    assert len(again) == 52 and again == {name: first[name] for name in again}


def test_figures_are_pdf_with_truetype_and_png_of_print_quality(uri: str, tmp_path: Path) -> None:
    build.build(uri, tmp_path)
    pdfs = sorted(tmp_path.rglob("*.pdf"))
    assert len(pdfs) == 8
    for path in pdfs:
        pdf = path.read_bytes()
        # every font is of Type 42 (TrueType), with its letters in the file
        assert b"/Type3" not in pdf and b"/CIDFontType2" in pdf and b"CreationDate" not in pdf, path
        assert pdf.count(b"/FontFile2") >= pdf.count(b"/Subtype /CIDFontType2") > 0, path
        png = path.with_suffix(".png").read_bytes()
        assert int.from_bytes(png[16:20], "big") in (int(style.COLUMN * style.DPI), int(style.DOUBLE * style.DPI))
        assert path.with_suffix(".png").stat().st_mode & 0o777 == 0o644


def test_sidecars_name_the_runs_behind_each_row(uri: str, tmp_path: Path) -> None:
    build.build(uri, tmp_path, ["branch_positions-1"])
    runs = store.runs(uri).query("plan == 'branch_positions-1'")
    for name in ("comparison", "cost", "positions", "training_curves"):
        sidecar = json.loads((tmp_path / f"digits/branch_positions/{name}.json").read_text())
        assert sidecar["plan"]["plan_id"] == "branch_positions-1" and "updated" not in sidecar["plan"]
        assert sidecar["code"] == [synthetic.CODE] and sidecar["commits"] == [synthetic.COMMIT]
        for file in sidecar["files"]:
            assert (tmp_path / "digits/branch_positions" / file).is_file()
        for variant, group in runs.groupby(schema.VARIANT):
            expected = dict(zip(group[schema.SEED].astype(str), group["run_id"], strict=True))
            assert sidecar["rows"][variant]["runs"] == expected


def test_a_plan_that_refuses_does_not_stop_the_others(broken: str, tmp_path: Path) -> None:
    results = {result.plan.plan_id: result for result in build.build(broken, tmp_path, ["gaps", "odd", "methods-1"])}
    (reason,) = results["gaps"].refusals
    assert "5 of 6 cells are absent" in reason and "plain seed 1 (failed: not_finite)" in reason
    assert "grid=methods benchmark=digits optim.epochs=2" in reason
    assert not (tmp_path / "digits/methods-gaps").exists()
    (reason,) = results["odd"].refusals
    assert "no figure 'pie'; there are " in reason
    assert (tmp_path / "other/methods/methods.pdf").is_file() and (tmp_path / "digits/methods/methods.pdf").is_file()
    assert "| methods-gaps" not in (tmp_path / "coverage.md").read_text()
    row = next(line for line in (tmp_path / "coverage.csv").read_text().splitlines() if ",gaps," in line)
    assert row.endswith("6,1,0,0,1,4,")


def test_allowed_gaps_go_to_the_plan_s_own_folder_and_say_so(broken: str, tmp_path: Path) -> None:
    (result,) = build.build(broken, tmp_path, ["gaps"], allow_incomplete=True)
    assert result.refusals == ()
    text = (tmp_path / "digits/methods-gaps/comparison.md").read_text()
    assert "NOT COMPLETE: 5 of 6 cells are absent" in text and "optim.epochs=2" in text
    assert json.loads((tmp_path / "digits/methods-gaps/comparison.json").read_text())["remarks"]


def test_files_of_an_earlier_build_are_called_that(broken: str, tmp_path: Path) -> None:
    build.build(broken, tmp_path, ["gaps"], allow_incomplete=True)
    (result,) = build.build(broken, tmp_path, ["gaps"])
    assert "methods-gaps are of an earlier build" in result.refusals[0]


def test_command_line(
    broken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", broken)
    assert build.main(["--out", str(tmp_path / "o"), "--plan", "methods-1"]) == 0
    told = capsys.readouterr()
    assert "digits/methods: 15 of 15 cells done." in told.out and told.err == ""
    for path in re.findall(r"^  (\S+)\{", told.out, flags=re.M):
        assert Path(path + ".json").is_file()
    assert build.main(["--out", str(tmp_path / "o"), "--plan", "gaps"]) == 1
    assert "not built: digits/methods (optim.epochs=2): 5 of 6 cells" in capsys.readouterr().err
    assert build.main(["--out", str(tmp_path / "o"), "--plan", "nope"]) == 2
    assert "no plan nope; there are" in capsys.readouterr().err
    monkeypatch.setenv("DHM_QUIET", "1")
    assert build.main(["--out", str(tmp_path / "o"), "--plan", "methods-1"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_store_is_named_as_the_other_commands_name_it(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(uri.removeprefix("sqlite:///"), tmp_path / "mlflow.db")
    assert build.main([f"store={tmp_path}", f"results={tmp_path / 'o'}", "plan=methods-1"]) == 0
    assert (tmp_path / "o" / "coverage.md").exists()
    capsys.readouterr()
    for words in (["store=nowhere"], ["--store", str(tmp_path / "nowhere")]):
        assert build.main(words) == 2
        assert "no tracking store at" in capsys.readouterr().err


def test_without_a_store_the_command_says_what_to_run_and_makes_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert build.main([]) == 2
    assert "python -m experiments.run grid=" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
