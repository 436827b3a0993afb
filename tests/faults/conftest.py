"""Studies in processes of their own, that may be killed, and what a study that nobody disturbed would have recorded."""

import contextlib
import dataclasses
import functools
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

import pandas as pd
import pytest
import torch
from mlflow.tracking import MlflowClient

from analysis import schema
from analysis import store as reader
from dhm.engine import fit
from dhm.fields import from_dict
from dhm.recipe import Recipe
from dhm.training import Result, Runtime
from tests.faults.sabotage import FAULT, ONCE

ROOT = Path(__file__).parents[2]
PATIENCE = 600.0
TOKEN = "DHM_TEST_STUDY"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)


def until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait for a condition; how long it takes decides nothing."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)


@functools.cache
def undisturbed(recipe: Recipe, seed: int) -> Result:
    return fit(recipe, seed, Runtime())


@dataclasses.dataclass
class Started:
    """A command that runs, with all its processes."""

    process: subprocess.Popen[str]
    log: Path
    token: str

    @property
    def shown(self) -> str:
        return self.log.read_text()

    def members(self) -> dict[int, str]:
        """Its processes that live, by pid: scheduler, server or run."""
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if f"{TOKEN}={self.token}".encode() not in (folder / "environ").read_bytes().split(b"\0"):
                    continue
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                if stat[0] == "Z":
                    continue
                found[int(folder.name)] = (int(stat[1]), (folder / "cmdline").read_bytes().decode())
        return {pid: self._role(pid, parent, line, found) for pid, (parent, line) in found.items()}

    def _role(self, pid: int, parent: int, line: str, found: dict[int, tuple[int, str]]) -> str:
        if pid == self.process.pid:
            return "scheduler"
        if "resource_tracker" in line:
            return "tracker"
        if "forkserver" not in line:
            return "other"
        return "server" if parent == self.process.pid else "run"

    def pids(self, role: str) -> list[int]:
        return [pid for pid, its in self.members().items() if its == role]

    def ends(self, code: int) -> str:
        """Wait for its end; what it printed."""
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"it did not end:\n{self.shown}") from None
        assert self.process.returncode == code, self.shown
        return self.shown


@dataclasses.dataclass
class Study:
    """A folder with a store, and commands on it."""

    root: Path
    words: tuple[str, ...] = ("grid=methods", "seeds=1", "epochs=6", "pool.cpu_slots=2")
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    started: list[Started] = dataclasses.field(default_factory=list)

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.store / 'mlflow.db'}"

    def start(self, *words: str, fault: str = "", **means: object) -> Started:
        module = "tests.faults.command" if fault else "experiments.run"
        places = ("pool.gpus=none", f"store={self.store}", f"results={self.root / 'results'}")
        token, log = uuid.uuid4().hex, self.root / f"out-{len(self.started)}.txt"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", TOKEN: token, **self.environment}
        environment |= {FAULT: fault, ONCE: str(self.root / "once")} if fault else {}
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *self.words, *places, *words],
                cwd=ROOT,
                env=environment,
                stdout=means.pop("stdout", file),  # type: ignore[call-overload]
                stderr=means.pop("stderr", subprocess.STDOUT),
                text=True,
                **means,
            )
        self.started.append(Started(process, log, token))
        return self.started[-1]

    def run(self, *words: str, code: int = 0, fault: str = "") -> str:
        return self.start(*words, fault=fault).ends(code)

    def end(self) -> None:
        """Leave no process behind."""
        for started in self.started:
            if started.process.poll() is None:
                started.process.kill()
                started.process.wait()
            until(lambda started=started: not started.members(), "no process is left", 30)  # type: ignore[misc]

    def checkpoints(self) -> list[Path]:
        folder = self.store / "checkpoints"
        return sorted(folder.glob("*.ckpt")) if folder.exists() else []

    def records(self) -> pd.DataFrame:
        return reader.runs(self.uri)

    def statuses(self) -> list[str]:
        """MLflow's own words."""
        client = MlflowClient(self.uri)
        return [client.get_run(run_id).info.status for run_id in self.records()["run_id"]]

    def attempts(self) -> dict[str, int]:
        frame = self.records()
        return {
            str(name): int(count) for name, count in zip(frame[schema.VARIANT], frame[schema.ATTEMPTS], strict=True)
        }

    def artifact(self, variant: str, name: str) -> Path:
        (row,) = self.records().set_index(schema.VARIANT).loc[[variant]].to_dict("records")
        return Path(unquote(urlparse(row["artifact_uri"]).path)) / name

    def environment_of(self, variant: str) -> dict[str, object]:
        """Of its last attempt that began with training."""
        found: dict[str, object] = json.loads(self.artifact(variant, schema.ENVIRONMENT_FILE).read_text())
        return found

    def interruptions(self) -> dict[str, str]:
        """By the name of the run."""
        client = MlflowClient(self.uri)
        runs = [client.get_run(run_id) for run_id in self.records()["run_id"]]
        return {run.info.run_name: run.data.tags.get(schema.INTERRUPTIONS, "") for run in runs}

    def assert_as_if_undisturbed(self, cells: int = 3) -> None:
        """Every cell done once, every curve whole and to the bit, nothing left behind."""
        assert self.statuses() == ["FINISHED"] * cells
        assert not list((self.store / "checkpoints").iterdir())
        client = MlflowClient(self.uri)
        frame = self.records()
        assert frame[schema.CELL_ID].nunique() == cells
        for row in frame.to_dict("records"):
            folder = Path(unquote(urlparse(row["artifact_uri"]).path))
            document = json.loads((folder / schema.RECIPE_FILE).read_text())
            reference = undisturbed(from_dict(Recipe, document["recipe"]), document["seed"])
            for name in reference.history[0].metrics:
                points = client.get_metric_history(row["run_id"], name)
                assert [point.step for point in points] == list(range(len(reference.history))), name
                assert [point.value for point in points] == [r.metrics[name] for r in reference.history], name
            assert row[schema.FINAL_TOP1] == reference.final["top1_error"]
            assert row[schema.BEST_TOP1] == reference.best["top1_error"]
            weights = torch.load(folder / schema.WEIGHTS_FILE, weights_only=True)
            for name, value in reference.network.main_only().state_dict().items():
                assert torch.equal(weights[name], value), name


def make_study(root: Path, empty_database: Path) -> Study:
    study = Study(root)
    study.store.mkdir(parents=True)
    (study.store / "mlflow.db").write_bytes(empty_database.read_bytes())
    return study


@pytest.fixture
def study(tmp_path: Path, empty_database: Path) -> Iterator[Study]:
    made = make_study(tmp_path, empty_database)
    yield made
    made.end()
