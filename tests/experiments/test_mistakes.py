"""A user's mistake is one error that names it and the remedy, exit code 2; nothing is started and nothing is lost."""

from pathlib import Path

import pytest
from PIL import Image

from experiments.run import main


def folders(root: Path, *, broken: bool = False) -> Path:
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for index in range(3):
                Image.new("RGB", (8, 8), (index, 0, 0)).save(folder / f"{index}.png")
    if broken:
        (root / "train" / "cat" / "1.png").write_bytes(b"no image")
    return root


def refused(capsys: pytest.CaptureFixture[str], store: Path, *words: str) -> str:
    """The error of a command that must be refused."""
    assert main([*words, f"store={store}", f"results={store}-results"]) == 2
    caught = capsys.readouterr()
    lines = caught.err.strip().splitlines()
    assert len(lines) == 1, caught.err
    assert lines[0].startswith("error: ")
    assert not (store / "mlflow.db").exists(), "nothing is started"
    assert not Path(f"{store}-results").exists()
    return lines[0]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["grid=branch_position"], ["branch_position", "Did you mean 'branch_positions'", "methods"]),
        (["grid=methods", "benchmark=mnist"], ["mnist", "digits", "cifar100"]),
        (["grid=methods", "arch=resnet31"], ["resnet31", "resnet32"]),
        (["grid=methods", "epocs=3"], ["epocs", "Did you mean 'epochs'"]),
        (["grid=methods", "+x=1"], ["+x=1"]),
        (["grid=methods", "epochs=three"], ["epochs", "three"]),
        (["grid=methods", "epochs=0"], ["epochs=0", "at least 1"]),
        (["grid=methods", "optim.schedule=cosin"], ["cosin", "Did you mean 'cosine'"]),
        (["grid=branch_positions", "factors.positions=['3']"], ["stage 3", "1, 2"]),
        (["grid=methods", "branches=[{after: 5, blocks: [1]}]"], ["stage 5", "1, 2"]),
        (["grid=methods", "branches=[{after: 1, blocks: [1]}]"], ["2 stage(s)", "blocks"]),
        (["grid=methods", "branches=[{after: 1, blocks: [0, 1]}]"], ["at least one block"]),
        (["grid=depths", "factors.arch=[resnet9]"], ["resnet9"]),
        (["grid=depths", "factors.branch_depth=[0]"], ["branch_depth", "above 0"]),
        (["grid=methods", "seeds=0"], ["seeds=0", "at least 1"]),
        (["grid=methods", "seeds=-2"], ["seeds=-2"]),
        (["grid=methods", "seeds=[0,-1]"], ["0 or more"]),
        (["grid=methods", "seeds=[1,1]"], ["twice"]),
        (["grid=methods", "seeds=many"], ["seeds=many"]),
        (["grid=methods", "retry=all"], ["retry", "failed", "stale"]),
        (["grid=methods", "recipe=papers"], ["papers", "documented"]),
        (["grid=methods", "pool.gpus=all"], ["GPU", "leave pool.gpus out"]),
        (["grid=methods", "pool.threads=0"], ["pool.threads=0"]),
        (["grid=methods", "pool.slots_per_gpu=0"], ["pool.slots_per_gpu=0"]),
        (["grid=methods", "pool.slots_per_gpu=two"], ["pool.slots_per_gpu", "two", "auto"]),
        (["grid=methods", "pool.cpu_slots=1.5"], ["pool.cpu_slots", "1.5"]),
        (["grid=methods", "pool=slurm", "pool.slots_per_gpu=auto"], ["pool=slurm", "give a number"]),
        (["grid=methods", "study.retries=-1"], ["study.retries=-1"]),
        (["grid=methods", "benchmark=cifar100"], ["data.root=DIR"]),
        (["grid=methods", "benchmark=image_folder", "data.root=/no/such/folder"], ["/no/such/folder"]),
        (["grid=methods", "data.train_size=5000"], ["train_size", "5000"]),
        (["grid=methods", "terms=[{name: magic}]"], ["magic", "ce"]),
        (["grid=methods", "dropout=0.3"], ["dropout"]),
        (["grid=methods", "grid_dir=/no/such/folder"], ["/no/such/folder"]),
    ],
)
def test_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], expected: list[str]) -> None:
    message = refused(capsys, tmp_path / "store", *words)
    for word in expected:
        assert word in message


@pytest.mark.parametrize("layout", ["empty", "broken", "half"])
def test_data_that_cannot_be_read(capsys: pytest.CaptureFixture[str], tmp_path: Path, layout: str) -> None:
    root = tmp_path / "images"
    root.mkdir()
    if layout == "broken":
        folders(root, broken=True)
    if layout == "half":
        (root / "train" / "cat").mkdir(parents=True)
    message = refused(capsys, tmp_path / "store", "grid=methods", "benchmark=image_folder", f"data.root={root}")
    assert str(root) in message
    if layout == "broken":
        assert "1.png" in message


def test_a_store_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "a file"
    file.write_text("kept")
    message = refused(capsys, file / "store", "grid=methods")
    assert "store=DIR" in message and str(file) in message
    assert file.read_text() == "kept"


def test_a_store_that_is_no_database(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "mlflow.db").write_text("this is no database, and somebody may want it")
    assert main(["grid=methods", f"store={store}", f"results={tmp_path / 'results'}"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "mlflow.db" in lines[0] and "store=DIR" in lines[0]
    assert (store / "mlflow.db").read_text() == "this is no database, and somebody may want it"


def test_a_backbone_that_fails_on_an_image_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: object) -> None:
        raise RuntimeError("a and b must have the same dimension")

    monkeypatch.setattr("experiments.study.cost_of", broken)
    assert main(["grid=methods", "plan=true", f"store={tmp_path}"]) == 2
    told = capsys.readouterr().err
    assert "backbone 'resnet8' fails on an image, with RuntimeError: a and b must" in told
    assert "(test_mistakes.py:" in told and len(told.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["optim.schedule=multistep", "optim.milestones=[10,30]"],
            "optim.milestones 30 lie past the last of 20",
        ),
        (["optim.milestones=[10]"], "optim.milestones is for optim.schedule=multistep, and "),
        (["optim.schedule=multistep", "optim.milestones=[10]"], ""),
    ],
)
def test_what_is_hardly_meant_is_remarked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert main(["grid=methods", "plan=true", f"store={tmp_path}", *words]) == 0
    shown = capsys.readouterr().out
    assert told in shown if told else "optim.milestones i" not in shown and "lie past" not in shown


def test_settings_without_a_grid_are_no_request_for_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["epochs=3", "plan=true"]) == 2
    assert "epochs=3 plan=true: of which grid? Give grid=NAME" in capsys.readouterr().err
