import io
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats as reference

from analysis import catalogue, power, reading, schema, store
from analysis.data import GridData
from analysis.tables import comparison, cost, coverage, published
from analysis.tables.render import FORMATS, csv, escape, latex, markdown
from analysis.tables.table import Column, Table, decimals, number, p_value, seed_words
from tests.analysis import synthetic

PLANS = ("branch_positions-1", "mimicking_weights-1", "depths-1", "methods-1")


@pytest.fixture(scope="module")
def grids(uri: str) -> dict[str, GridData]:
    return {plan.plan_id: reading.load(uri, plan) for plan in store.plans(uri) if plan.plan_id in PLANS}


def errors(grid: GridData, variant: str) -> np.ndarray:
    frame = grid.runs[grid.runs[schema.VARIANT] == variant].sort_values(schema.SEED)
    return frame[schema.FINAL_TOP1].to_numpy()


def test_comparison_agrees_with_numbers_worked_from_the_records(grids: dict[str, GridData]) -> None:
    grid = grids["branch_positions-1"]
    frame = comparison.build(grid).frame
    assert list(frame["variant"]) == list(grid.plan.names)
    row = frame.set_index("variant").loc["dhm at 1+2"]
    arm, plain = errors(grid, "dhm at 1+2"), errors(grid, "plain")
    told = reference.ttest_rel(arm, plain)
    assert row["mean"] == pytest.approx(arm.mean()) and row["sd"] == pytest.approx(arm.std(ddof=1))
    assert row["difference"] == pytest.approx((arm - plain).mean())
    assert (row["low"], row["high"]) == pytest.approx(tuple(told.confidence_interval(0.95)))
    assert row["p"] == pytest.approx(told.pvalue)
    smallest = frame["p"].min()
    assert frame.loc[frame["p"].idxmin(), "p_holm"] == pytest.approx(min(1.0, 6 * smallest))
    assert row["verdict"] == "better"


def test_the_baseline_stands_first_without_a_difference(grids: dict[str, GridData]) -> None:
    first = comparison.build(grids["methods-1"]).frame.iloc[0]
    assert first["variant"] == "plain" and first["verdict"] == "" and math.isnan(first["p"])


def test_depths_compares_each_backbone_with_its_own_baseline(grids: dict[str, GridData]) -> None:
    grid = grids["depths-1"]
    table = comparison.build(grid)
    row = table.frame.set_index("variant").loc["dhm resnet14 depth 2"]
    expected = (errors(grid, "dhm resnet14 depth 2") - errors(grid, "plain resnet14")).mean()
    assert row["against"] == "plain resnet14" and row["difference"] == pytest.approx(expected)
    assert "against" in [column.title for column in table.columns]
    assert list(table.frame["variant"][:3]) == ["plain resnet8", "plain resnet14", "plain resnet20"]


def test_cost_checks_the_claim_about_inference(grids: dict[str, GridData]) -> None:
    grid = grids["methods-1"]
    table = cost.build(grid)
    assert list(table.frame["inference_as_baseline"]) == ["yes", "yes", "yes", "holds"]
    assert table.frame["variant"].iloc[-1] == cost.CLAIM and "holds for every arm" in table.caption
    assert len(table.sources[cost.CLAIM]["runs"]) == 15
    by_name = table.frame.set_index("variant")
    assert by_name.loc["plain", "step_relative"] == 1.0 and by_name.loc["dhm", "step_relative"] > 1.5
    dearer = grid.runs.copy()
    dearer.loc[dearer[schema.VARIANT] == "dhm", schema.FLOPS_MAIN] *= 1.01
    broken = cost.build(GridData(plan=grid.plan, runs=dearer))
    assert broken.frame.set_index("variant").loc["dhm", "inference_as_baseline"] == "NO"
    assert "does NOT hold for dhm" in broken.caption
    assert broken.frame["inference_as_baseline"].iloc[-1] == "does not hold"
    unknown = cost.build(GridData(plan=grid.plan, runs=grid.runs.drop(columns=schema.FLOPS_MAIN)))
    assert unknown.frame["inference_as_baseline"].iloc[-1] == "not recorded"
    assert "not recorded for dsl, dhm" in unknown.caption and "holds for every arm" not in unknown.caption


def test_coverage_counts_the_cells_of_every_plan(grids: dict[str, GridData]) -> None:
    table = coverage.build(list(grids.values()))
    assert list(table.frame["cells"]) == list(table.frame["done"]) == [35, 63, 15, 57]
    assert {row["state"] for row in table.sources["methods-1"]} == {"done"}


@pytest.mark.parametrize("plan_id", PLANS)
@pytest.mark.parametrize("name", ["comparison", "cost"])
def test_a_row_has_the_runs_of_its_variant(grids: dict[str, GridData], name: str, plan_id: str) -> None:
    grid = grids[plan_id]
    table = catalogue.table(name)(grid)
    assert [row for row in table.frame["variant"] if row != cost.CLAIM] == [v.name for v in grid.plan.ordered]
    for variant in grid.plan.names:
        expected = grid.runs[grid.runs[schema.VARIANT] == variant]
        found = dict(zip(expected[schema.SEED].astype(str), expected["run_id"], strict=True))
        assert table.sources[variant]["runs"] == found


def all_tables(grids: dict[str, GridData]) -> list[Table]:
    """Every table of every grid, and those of the whole store."""
    found = [catalogue.table(name)(grid) for grid in grids.values() for name in catalogue.tables_of(grid.plan)]
    searched = synthetic.searched(grids["mimicking_weights-1"])
    found += [catalogue.table(name)(searched) for name in ("trials", "importance")]
    found.append(catalogue.table("agreement")(synthetic.measured(grids["methods-1"])))
    return [*found, coverage.build(list(grids.values())), *(published.build([], name) for name in published.METRICS)]


def test_every_table_renders_alike_in_every_format(grids: dict[str, GridData]) -> None:
    found = all_tables(grids)
    stems = {re.sub(".*-", "", table.name) for table in found}
    assert stems >= {*catalogue.table_names(), *catalogue.STORE_TABLES}
    for table in found:
        assert len(markdown(table).splitlines()) == len(table.frame) + 4
        assert len(pd.read_csv(io.StringIO(csv(table)))) == len(table.frame)
        body = latex(table).split(r"\midrule")[1].split(r"\bottomrule")[0]
        cells = [line.count(" & ") for line in body.strip().splitlines()]
        assert cells == [len(table.columns) - 1] * len(table.frame)
        assert json.dumps(table.sources)


def test_csv_keeps_numbers_in_full(grids: dict[str, GridData]) -> None:
    table = comparison.build(grids["methods-1"])
    read = pd.read_csv(io.StringIO(csv(table)))
    assert read["mean"].tolist() == table.frame["mean"].tolist()


def test_unknown_names_list_the_choices() -> None:
    with pytest.raises(ValueError, match="no table 'render'; there are agreement, comparison, cost, heads, imp"):
        catalogue.table("render")
    with pytest.raises(ValueError, match=r"no figure 'pie'; there are .*levels, .*methods, .*positions"):
        catalogue.figure("pie")


def test_numbers_are_rounded_to_what_their_deviation_supports() -> None:
    assert [decimals([sd]) for sd in (0.04, 0.83, 1.3, 12.0)] == [2, 2, 1, 0]
    assert decimals([math.nan, 0.0]) == 2
    assert number(-1.26, 1, signed=True) == "−1.3" and number(1.26, 1, signed=True) == "+1.3"
    assert number(-0.04, 1, signed=True) == "0.0" and number(math.nan, 1) == "–"
    assert [p_value(p) for p in (0.0004, 0.0316, math.nan)] == ["< 0.001", "0.032", "–"]
    assert [seed_words(s) for s in ([0, 1, 2], [3], [0, 4])] == ["3 seeds (0 to 2)", "1 seed (3)", "2 seeds (0, 4)"]


HOSTILE = r"a_b & 50% $x$ #1 {y} ~ ^ \z < > | * α × − ± [1]"


def hostile() -> Table:
    columns = (Column(HOSTILE, lambda row: str(row["a"]), "l"), Column("n", lambda row: "[1, 2]"))
    return Table(name="hostile", frame=pd.DataFrame({"a": [HOSTILE, "[0]"]}), columns=columns, caption=HOSTILE)


def test_latex_and_markdown_escape() -> None:
    assert escape("50% of a_b & c") == r"50\% of a\_b \& c"
    assert not re.search(r"(?<!\\)[%&#_](?!\w*-)", escape(HOSTILE))
    assert r"\\" + "\n[" not in latex(hostile()) and "{}[0]" in latex(hostile())
    assert markdown(hostile()).splitlines()[0].count(" | ") == 1


def has_latex() -> bool:
    find = shutil.which("kpsewhich")
    return find is not None and subprocess.run([find, "booktabs.sty"], capture_output=True, check=False).returncode == 0


WORDS = """begin end centering caption label footnotesize setlength tabcolsep resizebox ifdim width linewidth else fi
toprule midrule bottomrule shortstack textbackslash textasciitilde textasciicircum ldots
pm times alpha tau dagger geq leq"""
MACROS = set(WORDS.split())


def check_latex(text: str) -> None:
    """A strict reader of what tables may be made of: known macros, balanced groups, nothing that LaTeX interprets."""
    assert text.isascii() or not set(text) - {letter for letter in text if ord(letter) < 0x180}, "letters of no font"
    assert set(re.findall(r"\\([a-zA-Z]+)", text)) <= MACROS
    assert re.findall(r"\\begin\{(\w+)\}", text) == re.findall(r"\\end\{(\w+)\}", text)[::-1]
    bare = re.sub(r"\\[&%$#_{}\\]", "", text)  # without what is escaped, and line ends
    assert not set("#~^") & set(re.sub(r"\$[^$]*\$", "", bare)) and bare.count("$") % 2 == 0
    assert "_" not in re.sub(r"\\label\{[^}]*\}", "", bare)
    assert all(line.endswith("%") and line.count("%") == 1 for line in bare.splitlines() if "%" in line)
    depth = 0
    for letter in bare:
        depth += (letter == "{") - (letter == "}")
        assert depth >= 0, "a group closes that was not opened"
    assert depth == 0, "a group is left open"
    columns = len(re.search(r"\\begin\{tabular\}\{([lr]+)\}", text).group(1))
    rows = text.partition(r"\midrule")[2].partition(r"\bottomrule")[0].strip().splitlines()
    assert all(row.endswith(r" \\") and len(re.findall(r"(?<!\\)&", row)) == columns - 1 for row in rows)


def test_latex_is_sound(grids: dict[str, GridData]) -> None:
    for table in [hostile(), *all_tables(grids)]:
        check_latex(latex(table))


@pytest.mark.parametrize(
    ("sound", "broken"),
    [(r"\toprule", r"\toprul"), (r"\%", "%"), (r"\end{tabular}}", r"\end{tabular}"), (" & ", "  "), (r"\_", "_")],
)
def test_the_reader_of_latex_sees_what_is_broken(sound: str, broken: str) -> None:
    text = latex(hostile())
    assert sound in text
    with pytest.raises(AssertionError):
        check_latex(text.replace(sound, broken))


@pytest.mark.skipif(not has_latex(), reason="no pdflatex with booktabs: tables were read by check_latex alone")
def test_latex_compiles(grids: dict[str, GridData], tmp_path: Path) -> None:
    tables = [hostile(), *all_tables(grids)]
    head = "\\documentclass{article}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n"
    (tmp_path / "all.tex").write_text(head + "\n".join(map(latex, tables)) + "\\end{document}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "all.log").read_text(errors="replace")
    assert "Missing character" not in log and "Overfull" not in log


def test_formats_are_those_that_readme_readers_need() -> None:
    assert set(FORMATS) == {".md", ".csv", ".tex"}


def test_the_comparison_says_what_its_seeds_can_show(grids: dict[str, GridData]) -> None:
    grid = grids["methods-1"]
    table = comparison.build(grid)
    row = table.frame.set_index("variant").loc["dhm"]
    away = errors(grid, "dhm") - errors(grid, "plain")
    level = 0.05 / 2  # there are two comparisons, and the verdict goes by Holm's correction
    assert row["detectable"] == pytest.approx(power.detectable(away.std(ddof=1), 5, level))
    assert row["seeds_needed"] == power.seeds_needed(away.mean(), away.std(ddof=1), level)
    assert "(two-sided 5 % over 2 comparisons, the deviations that were found taken for the true ones)" in table.caption
    assert row["boot_low"] > row["low"] and row["boot_high"] < row["high"]
    spans = sorted(number(value, 2) for value in table.frame["detectable"].dropna())
    assert f"these seeds show a difference of {spans[0]} to {spans[1]} points" in table.caption
