"""What made a result is recorded whole: the tree as it ran, and what of the machine bends numbers."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import unquote, urlparse

import pytest
import torch

from analysis import schema
from dhm.training import EpochRecord, Runtime, Training
from experiments.recording import patch
from experiments.recording.energy import EnergyMeter, cpu_counter, gpu_counter, total
from experiments.recording.patch import commit_of, working_tree
from experiments.recording.provenance import code_hash
from tests.experiments.conftest import Workplace


def git(folder: Path, *words: str) -> str:
    settings = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *settings, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with one commit, and changes since."""
    root = tmp_path / "tree"
    (root / "room").mkdir(parents=True)
    git(root, "init", "-q")
    (root / "room" / "kept.py").write_text("a = 1\n")
    (root / "gone.py").write_text("b = 1\n")
    (root / ".gitignore").write_text("ignored/\n")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    (root / "room" / "kept.py").write_text("a = 2\n")
    (root / "gone.py").unlink()
    (root / "room" / "nächster.py").write_bytes(b"# \xff\xfe\nc = 3")
    return root


def test_the_patch_makes_of_the_commit_the_tree_that_ran(tree: Path, tmp_path: Path) -> None:
    git(tree, "config", "diff.noprefix", "true")
    git(tree, "config", "color.ui", "always")
    found = working_tree(tree)
    assert found.left_out == ()
    copy = tmp_path / "copy"
    git(tmp_path, "clone", "-q", str(tree), str(copy))
    file = tmp_path / "uncommitted.diff"
    file.write_bytes(found.text.encode("utf-8", "surrogateescape"))
    git(copy, "apply", str(file))
    assert (copy / "room" / "kept.py").read_text() == "a = 2\n"
    assert (copy / "room" / "nächster.py").read_bytes() == b"# \xff\xfe\nc = 3"
    assert not (copy / "gone.py").exists()


def test_the_users_index_stays_as_it_is(tree: Path) -> None:
    before = git(tree, "status", "--porcelain")
    working_tree(tree)
    assert git(tree, "status", "--porcelain") == before
    assert "?? " in before


def test_a_store_and_data_in_the_tree_are_no_source(tree: Path) -> None:
    for name in ("store/model/code.py", "data/train/meta.yaml", "ignored/x.py", "notes.txt", "room/large.py"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("x = 1\n")
    (tree / "room" / "large.py").write_text("#" * (patch.FILE_LIMIT + 1))
    found = working_tree(tree, [tree / "store", tree / "data"])
    for name in ("store", "data", "ignored", "notes", "large", "####"):
        assert name not in found.text
    assert "nächster.py" in found.text
    assert found.left_out == ("notes.txt (no source)", f"room/large.py ({patch.FILE_LIMIT + 1:,} bytes, too large)")


def test_what_is_left_out_is_counted_where_it_is_much(tree: Path) -> None:
    for number in range(40):
        (tree / f"{number}.png").write_bytes(b"x")
    found = working_tree(tree)
    assert len(found.left_out) == patch.NAMED + 1 and found.left_out[-1] == "and 20 more"


def test_a_tree_without_changes_has_no_patch(tree: Path) -> None:
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "second")
    assert working_tree(tree) == patch.Patch()


def test_only_the_top_of_a_working_tree_has_a_commit(tree: Path, tmp_path: Path) -> None:
    assert commit_of(tree) == git(tree, "rev-parse", "HEAD").strip()
    assert commit_of(tree / "room") is None, "as a package installed inside somebody's repository"
    assert commit_of(tmp_path) is None


def test_the_code_is_hashed_for_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('"""Words."""\nx = 1  # why\n')
    first = code_hash(tmp_path)
    (tmp_path / "a.py").write_text('"""Other words."""\n\nx = 1\n')
    assert code_hash(tmp_path) == first
    (tmp_path / "a.py").write_text("x = 2222\n")
    assert code_hash(tmp_path) != first


def test_a_record_says_what_made_it(methods: Workplace) -> None:
    for row in methods.records().to_dict("records"):
        folder = Path(unquote(urlparse(row["artifact_uri"]).path))
        environment = json.loads((folder / schema.ENVIRONMENT_FILE).read_text())
        assert environment["command"].startswith("python -m experiments.run epochs=2 seeds=2")
        assert {"torch", "torchvision", "numpy", "scikit-learn", "mlflow"} <= set(environment["packages"])
        assert environment["runtime"]["threads"] == environment["numerics"]["threads"] == 1
        assert environment["runtime"]["device"] == "cpu"
        assert set(Runtime.__slots__) - {"data_root", "cache", "checkpoint"} <= {"data_root", *environment["runtime"]}
        assert environment["numerics"]["torch"] == torch.__version__
        assert environment["diagnostics"] is None


def test_a_run_that_fails_says_it_too(workplace: Workplace) -> None:
    assert workplace.run("grid=methods", "seeds=1", "optim.lr=1e30", "epochs=1") == 1
    frame = workplace.records()
    assert set(frame["status"]) == {"FAILED"}
    for uri in frame["artifact_uri"]:
        folder = Path(unquote(urlparse(uri).path))
        names = {schema.RECIPE_FILE, schema.ENVIRONMENT_FILE, schema.TOPOLOGY_FILE, schema.ERROR_FILE}
        assert names <= {path.name for path in folder.iterdir()}


def test_energy_is_that_of_all_processors(tmp_path: Path) -> None:
    for number, value in enumerate((5_000_000, 7_000_000)):
        package = tmp_path / f"intel-rapl:{number}"
        package.mkdir()
        (package / "energy_uj").write_text(f"{value}\n")
    counter = cpu_counter(tmp_path)
    assert counter is not None and counter() == 12.0
    assert cpu_counter(tmp_path / "nowhere") is None


def driver(counts: dict[bytes, int]) -> Any:
    """NVML with a counter for each GPU, in millijoules; -1 cannot be read."""
    names = sorted(counts)

    def by_name(name: bytes, handle: Any) -> int:
        handle._obj.value = names.index(name) + 1
        return 0

    def energy(handle: Any, value: Any) -> int:
        count = counts[names[handle.value - 1]]
        value._obj.value = max(count, 0)
        return 0 if count >= 0 else 999

    return SimpleNamespace(
        nvmlInit_v2=lambda: 0,
        nvmlDeviceGetHandleByUUID=by_name,
        nvmlDeviceGetTotalEnergyConsumption=energy,
    )


def test_energy_is_that_of_all_gpus_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=device.index))
    counts = {b"GPU-0": 5000, b"GPU-1": 7000}
    devices = [torch.device("cuda:0"), torch.device("cuda:1")]
    counter = gpu_counter(devices, driver(counts))
    assert counter is not None and counter() == 12.0
    counts[b"GPU-1"] = -1
    with pytest.raises(OSError, match="energy"):
        counter()
    assert gpu_counter(devices, driver(counts)) is None
    meter = EnergyMeter()
    meter._counter = counter
    assert meter.measure(cast(Training, None)) == {}, "an epoch whose end is not known has no energy"


def test_energy_of_a_run_is_told_only_whole() -> None:
    counted = tuple(EpochRecord(epoch, 0.0, {schema.EPOCH_ENERGY: 0.5}) for epoch in range(3))
    assert total(counted) == 1.5
    assert total((*counted, EpochRecord(3, 0.0, {}))) is None
