"""Runs on several devices, from the command line to the record."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from mlflow.tracking import MlflowClient

from analysis import schema
from dhm.engine import fit
from dhm.fields import from_dict
from dhm.recipe import Recipe
from experiments.pools.parts.gpus import slots
from experiments.run import main
from tests.experiments.conftest import Workplace

ROOT = Path(__file__).parents[2]
PATIENCE = 240
WORDS = ("grid=methods", "factors.method=[plain]", "epochs=40", "seeds=1", "pool.gpus=none", "pool.cpu_slots=1")


def parents() -> dict[int, tuple[int, str]]:
    """Parent and command line of every process."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(folder.name)] = parent, (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it has ended
            continue
    return found


def replicas_of(scheduler: int) -> set[int]:
    """The processes that the runs of a scheduler have started."""
    processes = parents()

    def below(pid: int) -> bool:
        parent = processes.get(pid, (0, ""))[0]
        return parent == scheduler or (parent > 1 and below(parent))

    return {pid for pid, (_, command) in processes.items() if "spawn_main" in command and below(pid)}


def wait_for(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate(timeout=60)[0]
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
def test_a_run_of_two_replicas_survives_a_killed_one_and_a_stop_and_is_recorded_once(workplace: Workplace) -> None:
    words = [*WORDS, "pool.gpus_per_run=2", f"store={workplace.store}", f"results={workplace.root / 'results'}"]
    command = [sys.executable, "-m", "experiments.run", *words]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    checkpoints = workplace.store / "checkpoints"
    wait_for(lambda: bool(list(checkpoints.glob("*.ckpt"))), process)
    (first,) = replicas_of(process.pid)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: bool(replicas_of(process.pid) - {first}), process)
    (second,) = replicas_of(process.pid) - {first}
    process.send_signal(signal.SIGINT)
    shown, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, shown
    assert "replica-1 was killed by SIGKILL" in " ".join(shown.split())
    assert not {first, second} & set(parents())
    assert set(workplace.records()["status"]) == {"KILLED"}

    assert main(words) == 0
    (row,) = workplace.records().to_dict("records")
    assert row["status"] == "FINISHED"
    points = MlflowClient(workplace.uri).get_metric_history(row["run_id"], schema.TEST_TOP1)
    assert [point.step for point in points] == list(range(40)), "no point of the curve twice"
    folder = Path(unquote(urlparse(row["artifact_uri"]).path))
    document = json.loads((folder / schema.RECIPE_FILE).read_text())
    recipe = from_dict(Recipe, document["recipe"])
    assert recipe.replicas == 2
    undisturbed = fit(recipe, document["seed"])
    assert [point.value for point in points] == [record.metrics["test/top1_error"] for record in undisturbed.history]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["pool.gpus_per_run=0"], "pool.gpus_per_run=0: must be at least 1"),
        (["pool.gpus_per_run=2", "replicas=4"], "two names of one number"),
        (["pool.gpus_per_run=2", "sync_batch_norm=true"], "sync_batch_norm=true needs GPUs"),
        (["sync_batch_norm=true"], "give replicas=2"),
        (["pool.gpus_per_run=3", "data.train_size=202"], r"202 images by optim.batch_size=50 has 2"),
        (["replicas=0"], "replicas=0: must be at least 1"),
    ],
)
def test_mistakes(words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grid=methods", "pool.gpus=none", "plan=true", *words, f"store={tmp_path}"]) == 2
    shown = capsys.readouterr().err
    assert re.search(told, shown) and shown.startswith("error: ") and len(shown.splitlines()) == 1


@pytest.mark.parametrize("word", ["pool.gpus_per_run=2", "replicas=2"])
def test_replicas_are_part_of_the_recipe(word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = []
    for words in ([], [word], ["pool.gpus_per_run=1"]):
        assert main(["grid=methods", "pool.gpus=none", "plan=true", *words, f"store={tmp_path}"]) == 0
        shown = capsys.readouterr().out
        assert ("with replicas=2" in shown) == (words == [word])
        ids.append(shown.partition("plan ")[2][:8])
    assert ids[0] == ids[2] != ids[1]


def test_a_slot_has_a_gpu_for_each_replica() -> None:
    places = slots(["0", "1", "5", "6"], 2, 1, gpus_per_run=2)
    assert [place.visible for place in places] == ["0,1", "5,6", "0,1", "5,6"]
    assert places[1].name == "gpu 5,6"
    with pytest.raises(ValueError, match=r"pool.gpus_per_run=2 does not divide the 3 GPU\(s\) of pool.gpus"):
        slots(["0", "1", "2"], 1, 1, gpus_per_run=2)
    assert len(slots([], 1, 3, gpus_per_run=2)) == 3


def test_a_grid_may_vary_the_replicas(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments.grid import GRIDS

    (tmp_path / "shares.yaml").write_text(
        "question: Does it matter?\nfactors: {replicas: [1, 2]}\nbaseline: {replicas: 1}\n"
    )
    words = ["grid=shares", f"grid_dir={tmp_path}", "pool.gpus=none", "plan=true", f"store={tmp_path / 'store'}"]
    for more, code in (([], 2), (["pool.gpus_per_run=2"], 0)):
        monkeypatch.setattr(GRIDS, "_values", {k: v for k, v in GRIDS._values.items() if k != "shares"})
        assert main([*words, *more]) == code
    told = capsys.readouterr()
    assert "replicas 2 is trained with replicas=2: give pool.gpus_per_run=2" in told.err
    assert "replicas 1" in told.out
