import shlex
from pathlib import Path

import pytest

from analysis.plan import Plan as PlanRecord
from experiments import api
from experiments.benchmarks import BENCHMARKS
from experiments.grid import GRIDS
from experiments.recording.describe import plan_record
from experiments.recording.provenance import collect
from experiments.run import main
from experiments.user_grids import read_grid, register_folder

GOOD = """
question: Does the learning rate matter?
factors:
  method: [plain, dhm]
  optim.lr: [0.05, 0.1]
baseline: {method: plain}
exclude:
  - {method: dhm, optim.lr: 0.05}
base: {epochs: 4}
seeds: 2
figures: [training_curves]
"""


def write(folder: Path, text: str, name: str = "learning_rate.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_file_is_a_grid_that_has_its_name(tmp_path: Path) -> None:
    grid = read_grid(write(tmp_path, GOOD))
    assert (grid.name, grid.title, grid.seeds) == ("learning_rate", "learning rate", 2)
    variants = grid.variants(BENCHMARKS.get("digits"))
    assert [variant.name for variant in variants] == ["plain lr 0.05", "plain lr 0.1", "dhm lr 0.1"]
    assert variants[2].baseline == "plain lr 0.1"
    assert {variant.recipe.epochs for variant in variants} == {4}


def test_a_folder_adds_its_grids_and_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    assert register_folder(tmp_path) == ["learning_rate"]
    assert "learning_rate" in GRIDS
    with pytest.raises(ValueError, match=r"learning_rate.*is there already"):
        register_folder(tmp_path)


def test_a_mistake_in_a_file_is_no_hindrance_to_another_grid(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("question: [")
    assert register_folder(tmp_path, "methods") == []
    with pytest.raises(ValueError, match=r"broken\.yaml"):
        register_folder(tmp_path, "unknown")
    write(tmp_path, GOOD)
    assert register_folder(tmp_path, "learning_rate") == ["learning_rate"]


def test_the_command_that_goes_on_with_it_finds_it(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    plan = api.plan("learning_rate", grid_dir=tmp_path, store=tmp_path / "store").plan
    record = plan_record(plan, collect(), 0.0)
    command = PlanRecord.from_record(record, experiment=plan.experiment, experiment_id="1").command
    assert shlex.split(command)[3:] == [
        "grid=learning_rate",
        "benchmark=digits",
        f"grid_dir={tmp_path}",
        "seeds=2",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- 1", ["mapping", "question"]),
        ("question: [", ["cannot be read as YAML"]),
        (GOOD.replace("baseline", "basline"), ["basline", "Did you mean 'baseline'"]),
        (GOOD.replace("question: Does the learning rate matter?", ""), ["'question' must be given"]),
        (GOOD.replace("[0.05, 0.1]", "0.1"), ["factors.optim.lr", "list"]),
        (GOOD.replace("seeds: 2", "seeds: two"), ["seeds", "two"]),
        (GOOD.replace("  - {method: dhm, optim.lr: 0.05}", "  method: dhm"), ["exclude", "list"]),
        (GOOD.replace("base: {epochs: 4}", "base: 4"), ["base", "mapping"]),
    ],
)
def test_mistakes_name_the_file_and_the_field(tmp_path: Path, text: str, words: list[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ValueError) as caught:
        read_grid(path)
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_a_folder_that_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        register_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no \.yaml file"):
        register_folder(tmp_path)


def test_a_figure_that_could_never_be_drawn_is_refused_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "question: Q?\nfactors: {method: [plain, dhm], optim.lr: [0.1, 0.2], dropout: [0.0, 0.1]}\n"
    (tmp_path / "both.yaml").write_text(text + "baseline: {method: plain}\nfigures: [levels]\n")
    words = ["grid=both", f"grid_dir={tmp_path}", "plan=true", f"store={tmp_path / 'store'}", "arch=wrn_10_1"]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "both.yaml: figure 'levels' has room for one factor" in told and "optim.lr, dropout vary" in told
