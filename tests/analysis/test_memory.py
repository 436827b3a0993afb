"""What has not changed is not built again; whatever has changed is."""

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import analysis
from analysis import build, catalogue, inputs, schema, store
from analysis.data import GridData
from analysis.files import write_whole
from analysis.memory import FILE
from analysis.store import changes
from tests.analysis import synthetic
from tests.analysis.test_cache import EDITS, SETTLED, Place

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A code that was not edited since it was loaded, as a user has it; and no pictures, which take a second each."""

    def draw(grid: GridData, name: str, stem: Path) -> list[Path]:
        path = stem.with_name(f"{name}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, f"{name} {grid.warning} {grid.curves.to_csv()}")
        return [path]

    monkeypatch.setattr(changes, "_SETTLED", SETTLED)
    monkeypatch.setattr(build, "_make_figure", draw)
    monkeypatch.setattr(inputs, "code", lambda: "this code")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Place:
    """Two grids whose curves are drawn."""
    made = Place(tmp_path_factory.mktemp("template") / "store", empty_database)
    for plan in made.plans:
        plan["figures"] = ["methods", "training_curves"]
        synthetic.write_plan(made.client, plan)
    made.back_up(made.database.with_name("before.db"))
    return made


@pytest.fixture
def place(template: Place) -> Place:
    """The store of the template as it was at first, nothing kept."""
    template.restore(template.database.with_name("before.db"))
    shutil.rmtree(template.cache, ignore_errors=True)
    return template


@pytest.fixture
def out(place: Place, tmp_path: Path) -> Path:
    """What was built of it."""
    build.build(place.uri, tmp_path / "out", allow_incomplete=True)
    return tmp_path / "out"


def again(place: Place, out: Path) -> set[str]:
    """Build again; names what was made again."""
    before = {path: path.stat().st_ino for path in out.rglob("*") if path.is_file()}
    built = build.build(place.uri, out, allow_incomplete=True)
    made = {path for path in out.rglob("*") if path.is_file() and path.stat().st_ino != before.get(path)}
    own = [path for result in built for path in result.paths]
    assert sum(result.kept for result in built) == len([path for path in own if path not in made])
    return {path.relative_to(out).as_posix() for path in made}


def assert_as_new(place: Place, out: Path, fresh: Path, told: str) -> None:
    """What a build with memory leaves is what one without writes."""
    for result in build.build(place.uri, fresh, allow_incomplete=True, everything=True):
        for path in result.paths:
            assert (out / path.relative_to(fresh)).read_bytes() == path.read_bytes(), f"{told}: {path}"
    for path in [*fresh.glob("coverage.*"), *fresh.glob("*/published.*")]:
        assert (out / path.relative_to(fresh)).read_bytes() == path.read_bytes(), f"{told}: {path}"


def test_what_has_not_changed_is_left_as_it_is_and_that_is_told(
    place: Place, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        for name in ("table", "of_all", "needs"):
            patch.setattr(catalogue, name, None)
        assert again(place, out) == set()
        words = ["--store", place.uri, "--out", str(out), "--allow-incomplete"]
        assert build.main(words) == 0
    assert (
        capsys.readouterr().out.count("  all of them as they were: nothing has changed of what they are made of") == 2
    )
    assert build.main([*words, "--all"]) == 0
    assert "as they were" not in capsys.readouterr().out
    assert again(place, out) == set(), "and that is remembered"


def test_nothing_that_computes_or_draws_is_loaded_for_what_has_not_changed(place: Place, out: Path) -> None:
    time.sleep(2.1)  # until what was written to the store is past a tick of every clock
    again(place, out)
    script = (
        "import sys; from analysis import build, inputs\n"
        "inputs.code = lambda: 'this code'\n"
        "build.main(sys.argv[1:])\n"
        "print([name for name in ('mlflow', 'scipy', 'matplotlib') if name in sys.modules])\n"
    )
    command = [sys.executable, "-c", script, "--store", place.uri, "--out", str(out), "--allow-incomplete"]
    told = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert told.splitlines()[-1] == "[]" and told.count("all of them as they were") == 2


SEEN = ("finish a new one", "end", "tag", "move to another plan", "a point before", "a hair's breadth", "discard")


def test_after_any_change_of_the_record_all_is_as_if_it_were_built_anew(
    place: Place, out: Path, tmp_path: Path
) -> None:
    random.seed(1)
    for edit in (*SEEN, "another plan"):
        EDITS[edit](place)
        assert again(place, out), edit
        assert_as_new(place, out, tmp_path / "fresh", edit)


def test_a_change_of_one_grid_leaves_the_other(place: Place, out: Path) -> None:
    (one, *_) = store.runs(place.uri).query("plan == 'p0'")["run_id"]
    place.client.log_metric(one, schema.TEST_TOP1, 50.0, timestamp=2**41, step=1)  # no last value changes
    made = again(place, out)
    assert any(name.startswith("digits/methods/") for name in made)
    assert not any(name.startswith("digits/others/") for name in made)


def test_a_plan_that_changed_is_built_again_and_one_that_ran_again_is_not(place: Place, out: Path) -> None:
    plan = place.plans[1]
    synthetic.write_plan(place.client, {**plan, "updated": plan["updated"] + 1000})
    assert {name.rpartition("/")[0] for name in again(place, out)} == {"", "cifar100", "imagenet"}, (
        "it is the later one"
    )
    synthetic.write_plan(place.client, {**plan, "updated": plan["updated"] + 2000})
    assert again(place, out) == set()
    synthetic.write_plan(place.client, {**plan, "title": "Another title"})
    assert any(name.startswith("digits/others/comparison") for name in again(place, out))
    # Which of two was run later decides what is stale.
    synthetic.write_plan(place.client, {**place.plans[0], "updated": plan["updated"] + 3000})
    assert "coverage.csv" in again(place, out)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "delete": Path.unlink,
    "edit": lambda path: path.write_bytes(path.read_bytes() + b" "),
    "empty": lambda path: path.write_bytes(b""),
}


def test_a_file_that_was_touched_is_made_again_and_no_other(place: Place, out: Path) -> None:
    for name in ("digits/methods/comparison.tex", "digits/others/cost.json", "coverage.md"):
        for damage, harm in DAMAGES.items():
            whole = (out / name).read_bytes()
            harm(out / name)
            made = again(place, out)
            assert {path.rpartition(".")[0] for path in made} == {name.rpartition(".")[0]}, damage
            assert (out / name).read_bytes() == whole, damage


def test_other_code_and_other_options_make_all_again(place: Place, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    monkeypatch.setattr(inputs, "code", lambda: "other code")
    assert again(place, out) == everything
    assert not any(result.kept for result in build.build(place.uri, out))
    monkeypatch.setattr(inputs, "code", lambda: None)
    assert again(place, out) == everything, "it may be other code than what is loaded"


def test_a_memory_that_cannot_be_read_is_no_memory(place: Place, out: Path) -> None:
    everything = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    kept = store.kept_beside(place.uri)
    assert kept is not None
    for content in ("", "[]", '{"code": "this code"}', '{"code": "this code", "needs": {}, "made": []}'):
        (kept / FILE).write_text(content)
        assert again(place, out) == everything, content
    assert again(place, out) == set()


def test_nothing_is_remembered_of_a_server() -> None:
    assert store.kept_beside("http://127.0.0.1:5000") is None


@pytest.mark.parametrize(
    "file", ["style.py", "figures/levels.py", "tables/render.py", "published_values.csv", "new.py"]
)
def test_the_digest_of_the_code_is_that_of_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.undo()
    package = tmp_path / "analysis"
    shutil.copytree(Path(analysis.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(analysis, "__file__", str(package / "__init__.py"))
    monkeypatch.setattr(analysis, "LOADED", time.time() + 60)
    before = inputs.code()
    assert before is not None and inputs.code() == before
    with (package / file).open("a") as changed:
        changed.write("# changed\n")
    assert inputs.code() not in (before, None)
    monkeypatch.setattr(analysis, "LOADED", time.time() - 60)
    assert inputs.code() is None, "it has changed since this process began"


def test_every_bit_and_type_of_a_record_counts() -> None:
    import pandas as pd

    frames = [
        pd.DataFrame({"a": [1.0, 2.0]}),
        pd.DataFrame({"a": [1.0, 2.0 + 2**-51]}),
        pd.DataFrame({"a": [1, 2]}),
        pd.DataFrame({"a": [1, "2"]}),
        pd.DataFrame({"a": ["1", "2"]}),
        pd.DataFrame({"a": [True, 2]}, dtype=object),
        pd.DataFrame({"a": [1, None]}, dtype=object),
        pd.DataFrame({"b": [1.0, 2.0]}),
        pd.DataFrame({"a": [2.0, 1.0]}),
        pd.DataFrame({"a": [1.0], "b": [2.0]}),
    ]
    digests = [inputs._digest(frame) for frame in frames]
    assert len(set(digests)) == len(frames)
    assert digests == [inputs._digest(frame.copy()) for frame in frames]
