"""The same small study on each engine: every cell is done once, its curve is whole, and its numbers are those of this
machine's own pool, bit for bit, whatever happens to the engine in between."""

import contextlib
import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from analysis import schema, store
from tests.engines.servers import ROOT, RayCluster, Slurm, wait_for

pytestmark = pytest.mark.engines

EPOCHS = 30
STUDY = ("grid=methods", "seeds=1", f"epochs={EPOCHS}", "study.retries=3")
PATIENCE = 600
AWAY = 30  # seconds for which nobody can write into the store


@dataclasses.dataclass
class Study:
    """A store and the commands on it."""

    root: Path
    pool: tuple[str, ...]
    env: dict[str, str]
    schedulers: list[subprocess.Popen[str]] = dataclasses.field(default_factory=list)

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.root / 'store' / 'mlflow.db'}"

    def start(self, *words: str) -> subprocess.Popen[str]:
        where = (f"store={self.root / 'store'}", f"results={self.root / 'results'}")
        with (self.root / "out").open("a") as out:
            scheduler = subprocess.Popen(
                [sys.executable, "-m", "experiments.run", *STUDY, *self.pool, *where, *words],
                cwd=ROOT,
                stdout=out,
                stderr=out,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", **self.env},
            )
        self.schedulers.append(scheduler)
        return scheduler

    def close(self) -> None:
        """Leave no scheduler behind, where a test failed."""
        for scheduler in self.schedulers:
            scheduler.kill()
            scheduler.wait()

    def ends_well(self, scheduler: subprocess.Popen[str]) -> None:
        assert scheduler.wait(PATIENCE) == 0, self.said()

    def said(self) -> str:
        return (self.root / "out").read_text()

    def in_the_middle(self, cells: int = 1) -> Callable[[], bool]:
        """Whether some cells have an epoch behind them, and are not done."""
        return lambda: len(list((self.root / "store" / "checkpoints").glob("*.ckpt"))) >= cells

    def stand_still(self, stop: Callable[[], None], go_on: Callable[[], None]) -> None:
        """Stop what runs until the next scheduler is there, however long it takes to start; but not while it holds the
        database."""

        def stopped() -> bool:
            stop()
            with contextlib.closing(sqlite3.connect(self.root / "store" / "mlflow.db", timeout=1)) as database:
                try:
                    database.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    go_on()
                    return False
            return True

        wait_for(stopped, "a moment at which nobody writes")

    def records(self) -> pd.DataFrame:
        return store.runs(self.uri)

    def numbers(self) -> dict[str, dict[str, float]]:
        """Every metric that a cell has and that time does not enter."""
        frame = self.records()
        timed = {schema.STEP_MS, schema.SECONDS, schema.ENERGY}
        names = [name for name in frame.columns if name.startswith(("final/", "best/")) and name not in timed]
        return {
            str(row[schema.VARIANT]): {name: row[name] for name in names if row[name] == row[name]}
            for row in frame.to_dict("records")
        }

    def check(self, reference: "Study") -> pd.DataFrame:
        """Every cell once, its curve whole, its numbers those of the reference; the records."""
        frame = self.records()
        assert len(frame) == 3 and set(frame["status"]) == {"FINISHED"}
        curves = store.curves(self.uri, frame, [schema.TRAIN_LOSS, schema.TEST_TOP1])
        expected = store.curves(reference.uri, reference.records(), [schema.TRAIN_LOSS, schema.TEST_TOP1])
        assert points(curves, frame) == points(expected, reference.records())
        assert self.numbers() == reference.numbers()
        assert not list((self.root / "store" / "checkpoints").glob("*.ckpt"))
        return frame


def points(curves: pd.DataFrame, frame: pd.DataFrame) -> list[tuple[str, str, int, float]]:
    name = dict(zip(frame["run_id"], frame[schema.VARIANT], strict=True))
    return sorted((name[row.run_id], row.metric, int(row.epoch), float(row.value)) for row in curves.itertuples())


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = Study(tmp_path_factory.mktemp("reference"), ("pool.cpu_slots=2", "pool.gpus=none"), {})
    study.ends_well(study.start())
    curves = store.curves(study.uri, study.records(), [schema.TRAIN_LOSS])
    assert len(curves) == 3 * EPOCHS
    return study


@pytest.fixture
def on_slurm(slurm: Slurm, tmp_path: Path) -> Iterator[Study]:
    study = Study(tmp_path, ("pool=slurm", "pool.time=20", "pool.slots=3"), slurm.variables)
    yield study
    study.close()
    for name in slurm.NODES:
        if slurm.states().get(name) != "idle":
            slurm("scancel", "--user=root")


@pytest.fixture
def on_ray(ray_cluster: RayCluster, tmp_path: Path) -> Iterator[Study]:
    study = Study(tmp_path, ("pool=ray", f"pool.address={ray_cluster.address}", "pool.gpus=none"), {})
    yield study
    study.close()


def test_jobs_outlive_their_scheduler_and_the_next_one_finds_them(
    slurm: Slurm, on_slurm: Study, reference: Study
) -> None:
    first = on_slurm.start()
    wait_for(on_slurm.in_the_middle(2), "cells in the middle")
    first.send_signal(signal.SIGKILL)
    first.wait()
    jobs = set(slurm.jobs())
    assert jobs, "they live on"
    on_slurm.stand_still(slurm.suspend, slurm.resume)
    second = on_slurm.start()
    wait_for(lambda: on_slurm.said().count(" to run on ") == 2, "the second scheduler")
    slurm.resume()
    assert " 0 to run on " not in on_slurm.said(), "some run still"
    seen = set(jobs)
    while second.poll() is None:
        seen |= set(slurm.jobs())
        time.sleep(0.2)
    on_slurm.ends_well(second)
    assert seen == jobs, "no job was started anew"
    frame = on_slurm.check(reference)
    assert set(frame[schema.ATTEMPTS].astype(int)) == {1}


def test_a_cancelled_job_and_a_lost_node_cost_no_cell(slurm: Slurm, on_slurm: Study, reference: Study) -> None:
    scheduler = on_slurm.start()
    try:
        wait_for(on_slurm.in_the_middle(2), "cells in the middle")
        running = [job for job, state in slurm.jobs().items() if state == "RUNNING"]
        slurm("scancel", running[0])
        slurm.lose("n2")
        wait_for(lambda: slurm.states().get("n2", "").startswith(("down", "idle*")), "the loss to be seen")
    finally:
        slurm.start_node("n2")
    on_slurm.ends_well(scheduler)
    frame = on_slurm.check(reference)
    assert frame[schema.ATTEMPTS].astype(int).max() > 1
    assert "cancelled" in on_slurm.said()


def test_a_job_whose_time_is_nearly_over_is_queued_again(slurm: Slurm, on_slurm: Study, reference: Study) -> None:
    scheduler = on_slurm.start()
    wait_for(on_slurm.in_the_middle(2), "cells in the middle")
    jobs = set(slurm.jobs())
    for job in jobs:  # what SLURM itself does some time before the limit
        slurm("scancel", "--signal=USR2", job)
    on_slurm.ends_well(scheduler)
    restarts = [slurm("scontrol", "show", "job", job, "--oneliner") for job in jobs]
    assert any("Restarts=1" in told for told in restarts)
    on_slurm.check(reference)


def test_a_preempted_job_goes_on_when_its_turn_comes_again(slurm: Slurm, on_slurm: Study, reference: Study) -> None:
    scheduler = on_slurm.start()
    wait_for(on_slurm.in_the_middle(2), "cells in the middle")
    jobs = set(slurm.jobs())
    told = slurm(
        "sbatch",
        "--parsable",
        "--partition=urgent",
        "--nodes=2",
        "--exclusive",
        "--output=/dev/null",
        "--wrap=sleep 600",
    )
    urgent = told.strip()
    try:
        wait_for(lambda: slurm.jobs().get(urgent) == "RUNNING", "the urgent job to have the nodes")
    finally:
        slurm("scancel", urgent)
    on_slurm.ends_well(scheduler)
    restarts = [slurm("scontrol", "show", "job", job, "--oneliner") for job in jobs]
    assert any("Restarts=1" in told for told in restarts), "SLURM queued it again"
    on_slurm.check(reference)


def test_a_store_that_is_away_while_jobs_run_costs_nothing(on_slurm: Study, reference: Study) -> None:
    scheduler = on_slurm.start()
    wait_for(on_slurm.in_the_middle(2), "cells in the middle")
    with contextlib.closing(sqlite3.connect(on_slurm.root / "store" / "mlflow.db", timeout=60)) as database:
        database.execute("BEGIN EXCLUSIVE")
        time.sleep(AWAY)
        assert scheduler.poll() is None, on_slurm.said()
        database.rollback()
    on_slurm.ends_well(scheduler)
    frame = on_slurm.check(reference)
    assert set(frame[schema.ATTEMPTS].astype(int)) == {1}, "and no run was started again for it"


def test_cells_of_a_lost_node_go_on_elsewhere(ray_cluster: RayCluster, on_ray: Study, reference: Study) -> None:
    scheduler = on_ray.start()
    try:
        wait_for(lambda: bool(ray_cluster.runs("second")), "a run on the second node")
        ray_cluster.lose("second")
    finally:
        ray_cluster.start_node("second")
    on_ray.ends_well(scheduler)
    frame = on_ray.check(reference)
    assert frame[schema.ATTEMPTS].astype(int).max() > 1 and "to be resumed" in on_ray.said()


def test_actors_outlive_their_scheduler_and_the_next_one_finds_them(
    ray_cluster: RayCluster, on_ray: Study, reference: Study
) -> None:
    first = on_ray.start()
    wait_for(on_ray.in_the_middle(2), "cells in the middle")
    first.send_signal(signal.SIGKILL)
    first.wait()
    on_ray.stand_still(lambda: ray_cluster.pause(signal.SIGSTOP), lambda: ray_cluster.pause(signal.SIGCONT))
    second = on_ray.start()
    wait_for(lambda: on_ray.said().count(" to run on ") == 2, "the second scheduler")
    ray_cluster.pause(signal.SIGCONT)
    assert " 0 to run on " not in on_ray.said(), "some run still"
    on_ray.ends_well(second)
    assert set(on_ray.check(reference)[schema.ATTEMPTS].astype(int)) == {1}
