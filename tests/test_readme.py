"""Every command of the README does what it says, in a place of its own and at its smallest."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from analysis import store
from dhm import evaluate
from tests.pages import ROOT, blocks, call, commands, links, made_by, write_files

README, CIFAR = ROOT / "README.md", ROOT / "results" / "cifar100" / "README.md"
TINY = ("epochs=1", "seeds=1", "pool.gpus=none", "pool.cpu_slots=2")
NEVER_RUN = {
    "make test": "these are the tests",
    "make notebooks": "writes into the repository; tests/analysis/test_notebooks.py runs each in a place of its own",
    "make ui": "serves until it is stopped",
    "make check": "what continuous integration does before the tests",
    "make docs": "tests/test_docs.py builds them",
    "make bench": "takes minutes of an idle machine",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder, with the files that the README shows, and images where it says."""
    root = tmp_path_factory.mktemp("reader")
    assert write_files(README, root)
    for name, parts, classes in (
        ("data", ("train", "test"), 100),
        ("photos", ("train", "test"), 2),
        ("imagenet", ("train", "val"), 2),
    ):
        for part in parts:
            for number in range(classes):
                folder = root / name / part / f"class{number:03}"
                folder.mkdir(parents=True)
                for image in range(2):
                    Image.new("RGB", (32, 32), (number, image, 0)).save(folder / f"{image}.png")
    return root


def made_small(words: Sequence[str], place: Path) -> list[str]:
    """A command of the README as it is tried: its folders are made ones, its study is tiny, its questions answered."""
    small = [re.sub(r"^data\.root=/", f"data.root={place}/", word) for word in words]
    module, settings = small[2], dict(word.split("=", 1) for word in small if "=" in word)
    if module == "experiments.run" and "grid" in settings:
        small = [word for word in small if not word.startswith("pool.gpus=")]
        # Images other than the embedded ones have no tiny networks, and what more is said of a grid changes its plan:
        # there the cells are made out, as the command has them, and no more.
        if {"benchmark", "seeds", "epochs", "study.trials"} & set(settings):
            return [*small, "pool.gpus=none", "plan=true"]
        return [*small, *TINY]
    if module == "experiments.clean":
        return [*small, "--yes"]
    if module == "analysis.explain":
        (table,) = place.glob("results/digits/branch_positions*/comparison.md")  # that of the tiny study
        return [*small[:3], str(table), *small[4:]]
    if module == "experiments.reproduce":
        run = store.runs(f"sqlite:///{place}/results/store/mlflow.db")["run_id"].iloc[0]
        return [run if word == "RUN_ID" else word for word in small]
    return small


def test_every_command_runs(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # runs, in processes of their own, are of this code
    tried = 0
    for words in (*commands(README), *commands(CIFAR)):
        if " ".join(words) in NEVER_RUN:
            continue
        for command in [words] if words[0] == "python" else made_by(words[1]):
            if command[2] == "dhm.evaluate":
                # It needs a checkpoint of the released code: tests/dhm/test_evaluate.py makes one.
                assert evaluate.parse(made_small(command, place)[3:]).arch == "resnet50"
                continue
            given = made_small(command, place)
            assert call(given) == 0, f"{' '.join(given)}\n{capsys.readouterr().err}"
            tried += 1
            if words == ["make", "run"]:
                as_shown(capsys.readouterr().out)
    assert tried > 10
    for grid in ("branch_positions", "methods", "depths", "learning_rate"):
        assert list(place.glob(f"results/digits/{grid}*/comparison.md")), grid


def as_shown(printed: str) -> None:
    """The first run ends with the lines that the README shows, whatever its numbers."""
    (shown,) = blocks(README, "text")[:1]
    for line in shown.text.splitlines():
        if line.strip() in ("", "..."):
            continue
        pattern = re.escape(line.removesuffix("?..."))
        pattern = re.sub(r"[−+]?\d+(\\\.\d+)?", r"[−+]?[\\d.]+", pattern)
        pattern = pattern.replace(r"\ 5\ seeds", " 1 seed").replace("seeds", "seeds?")
        if "\\[" in pattern or "±" in pattern or "1+2" in line or "differ from" in line or "seeds show" in line:
            continue  # a single seed has no interval, no verdict and no answer; see the next test for those
        pattern = pattern.replace("results/digits/branch_positions", r"\S*branch_positions\S*?")
        assert re.search(pattern, printed), f"{line}\n{printed}"


def test_the_numbers_shown_are_those_of_the_committed_table() -> None:
    table = (ROOT / "results/digits/branch_positions/comparison.md").read_text()
    rows = {cells[1].strip(): line for line in table.splitlines() if len(cells := line.split("|")) > 2}
    shown = re.findall(r"^  (d\w\w at \S+) +(\S+) (\[.+\]): (.+)$", README.read_text(), flags=re.MULTILINE)
    assert len(shown) == 6
    largest = min(shown, key=lambda found: float(found[1].replace("−", "-")))
    assert f"The largest difference seen, {largest[1]} points of {largest[0]}, may be chance" in README.read_text()
    (enough,) = re.findall(r"these seeds show a difference of \S+ to (\S+) points", table)
    assert f"5 seeds show a true difference of {enough} points in 80 % of studies" in README.read_text()
    for name, difference, interval, verdict in shown:
        assert all(part in rows[name] for part in (f" {difference} ", interval, verdict)), rows[name]


def test_every_target_is_there() -> None:
    targets = {words[1] for words in commands(README) if words[0] == "make"}
    assert {f"make {target}" for target in targets} >= set(NEVER_RUN)
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert targets <= {line.split()[0] for line in told.splitlines()}


def test_every_link_leads_to_a_file() -> None:
    for target in links(README):
        assert target.exists(), target
