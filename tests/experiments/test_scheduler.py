"""The scheduler with a pool that does what the test says; the queue and the store are real."""

import collections
import io
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from mlflow.tracking import MlflowClient
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from rich.console import Console

from analysis import schema
from experiments.pool import Ended, Slot, Word
from experiments.pools.parts.gpus import slots
from experiments.progress import Display
from experiments.recording.provenance import collect
from experiments.recording.recorder import Recorder
from experiments.recording.tracking import Tracker
from experiments.scheduling.options import Options
from experiments.scheduling.outcome import Outcome
from experiments.scheduling.scheduler import Scheduler
from experiments.stores import Stores
from experiments.study import Request, make_plan
from experiments.trial import Failed, Job, Opened
from tests.experiments.conftest import Workplace


def opened(job: Job) -> Opened:
    """What a run does first: it opens its record."""
    recorder = Recorder(job.record)
    assert recorder.open(shared=job.shared)
    return Opened(recorder.run_id)


class FakePool:
    """Slots whose runs open their record and end at once, as the test says they do."""

    def __init__(self, outcome_of: Callable[[Job], Any], count: int = 1) -> None:
        self.slots = slots([], 1, count)
        self.started: list[Job] = []
        self.stops = 0
        self._outcome_of = outcome_of
        self._events: list[Word | Ended] = []

    @property
    def here(self) -> "FakePool":
        return self

    def begin(self, study: str, wanted: Callable[[Any], bool]) -> dict[int, Any]:
        return {}

    def start(self, slot: Slot, job: Job, log: str) -> None:
        self.started.append(job)
        self._events.append(Word(slot, opened(job)))
        outcome = self._outcome_of(job)
        lost = outcome if isinstance(outcome, str) else None
        self._events.append(Ended(slot, outcome=None if lost else outcome, lost=lost))

    def wait(self, timeout: float) -> list[Word | Ended]:
        events, self._events = self._events, []
        return events

    def stop(self, slot: Slot | None = None) -> None:
        self.stops += 1

    def close(self) -> None:
        pass


def schedule(place: Workplace, pool: FakePool, retries: int = 2) -> Outcome:
    """Run `methods` at three seeds on a pool, with a real queue and a real store."""
    stores = Stores(root=place.store)
    stores.prepare()
    plan, data = make_plan(Request(grid="methods", seeds=3, overrides={"epochs": 1}), stores)
    return Scheduler(
        plan=plan,
        data=data,
        pool=pool,
        stores=stores,
        tracker=Tracker(stores),
        provenance=collect(),
        display=Display(Console(file=io.StringIO())),
        options=Options(retries=retries),
    ).run()


def failed(failure: str, place: str) -> Failed:
    return Failed(failure, f"{failure} happened", "Traceback: the whole of it", place)


def test_cells_that_fail_alike_stop_the_study(workplace: Workplace) -> None:
    pool = FakePool(lambda job: failed(schema.ERROR, "TypeError at losses.py:12"))
    outcome = schedule(workplace, pool)
    assert len(pool.started) == 3
    assert outcome.stopped is not None and "the whole of it" in outcome.stopped and "losses.py:12" in outcome.stopped
    assert (len(outcome.failed), outcome.missing) == (3, 6)


def test_cells_that_fail_each_in_its_own_way_do_not_stop_the_others(workplace: Workplace) -> None:
    pool = FakePool(lambda job: failed(schema.ERROR, f"TypeError at {job.cell_id}"))
    assert schedule(workplace, pool).stopped is None
    assert len(pool.started) == 9


def test_losses_that_diverge_do_not_stop_the_study(workplace: Workplace) -> None:
    pool = FakePool(lambda job: failed(schema.NOT_FINITE, "NotFiniteError at engine.py:1"))
    outcome = schedule(workplace, pool)
    assert outcome.stopped is None and len(outcome.failed) == 9
    assert len(pool.started) == 9, "and are not tried again"


@pytest.mark.parametrize("how", ["killed by SIGKILL", "out of memory"])
def test_retries_are_bounded_and_only_where_they_may_help(workplace: Workplace, how: str) -> None:
    lost = how.startswith("killed")
    pool = FakePool(lambda job: how if lost else failed(schema.OUT_OF_MEMORY, job.cell_id))
    outcome = schedule(workplace, pool, retries=1)
    assert len(outcome.failed) == 9
    assert collections.Counter(job.cell_id for job in pool.started).most_common()[-1][1] == 2
    frame = workplace.records()
    assert len(frame) == 9 and set(frame["status"]) == {"FAILED"}
    assert set(frame[schema.ATTEMPTS].astype(int)) == {2}


def test_what_a_dead_scheduler_left_open_is_closed_and_run_again(workplace: Workplace) -> None:
    class DiedError(Exception):
        pass

    def die(job: Job) -> Any:
        raise DiedError

    with pytest.raises(DiedError):
        schedule(workplace, FakePool(die))
    left = workplace.records()
    assert MlflowClient(workplace.uri).get_run(left["run_id"][0]).info.status == "RUNNING"
    assert list(left["status"]) == ["ORPHANED"], "whose lock nobody holds is not running"
    pool = FakePool(lambda job: failed(schema.NOT_FINITE, "x"))
    schedule(workplace, pool)
    assert len(pool.started) == 9
    records = workplace.records().set_index("run_id")
    assert len(records) == 9 and records[schema.ATTEMPTS][left["run_id"][0]] == 2, "in the same record"
    storage = JournalStorage(JournalFileBackend(str(workplace.store / "optuna.journal")))
    (summary,) = optuna.get_all_study_summaries(storage)
    trials = optuna.load_study(study_name=summary.study_name, storage=storage).trials
    assert {trial.state.name for trial in trials} == {"FAIL"}
    assert len(trials) == 10
    assert {trial.user_attrs["method"] for trial in trials} == {"plain", "dsl", "dhm"}


@pytest.mark.parametrize("word", ["lost", "said"])
def test_a_run_that_dies_as_it_begins_is_started_again_in_one_record(workplace: Workplace, word: str) -> None:
    """It died before it had a record, or before it could say so."""

    class SilentPool(FakePool):
        def start(self, slot: Slot, job: Job, log: str) -> None:
            first = job.cell_id not in {known.cell_id for known in self.started}
            super().start(slot, job, log)
            if first:
                self._events = [event for event in self._events if isinstance(event, Ended)]
                if word == "lost":
                    MlflowClient(workplace.uri).delete_run(workplace.records()["run_id"].iloc[-1])

    def die_once(job: Job) -> Any:
        first = [known.cell_id for known in pool.started].count(job.cell_id) == 1
        return "killed by SIGKILL" if first else failed(schema.NOT_FINITE, "x")

    pool = SilentPool(die_once)
    outcome = schedule(workplace, pool)
    assert len(outcome.failed) == 9 and len(pool.started) == 18
    records = workplace.records()
    assert len(records) == 9 and set(records["status"]) == {"FAILED"}
    assert set(records[schema.ATTEMPTS]) == {2}


def test_a_job_that_an_engine_had_not_begun_counts_as_an_attempt(workplace: Workplace) -> None:
    """It was handed over by an earlier scheduler, has no record, and is lost: the next attempt is the second."""
    handed: list[Job] = []

    def die(job: Job) -> Any:
        handed.append(job)
        MlflowClient(workplace.uri).delete_run(workplace.records()["run_id"].iloc[-1])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        schedule(workplace, FakePool(die))

    class EnginePool(FakePool):
        def begin(self, study: str, wanted: Callable[[Any], bool]) -> dict[int, Any]:
            assert wanted(handed[0])
            self._events.append(Ended(self.slots[0], lost="its node was lost"))
            return {0: handed[0]}

    pool = EnginePool(lambda job: failed(schema.NOT_FINITE, "x"))
    schedule(workplace, pool)
    assert [job.cell_id for job in pool.started].count(handed[0].cell_id) == 1 and len(pool.started) == 9
    attempts = workplace.records().set_index(schema.CELL_ID)[schema.ATTEMPTS]
    assert attempts.pop(handed[0].cell_id) == 2 and set(attempts) == {1}


def test_a_cell_whose_runs_never_come_to_a_record_has_one_that_says_so(workplace: Workplace) -> None:
    class DeadPool(FakePool):
        def start(self, slot: Slot, job: Job, log: str) -> None:
            self.started.append(job)
            self._events.append(Ended(slot, lost="killed by SIGKILL"))

    outcome = schedule(workplace, DeadPool(lambda job: None), retries=1)
    assert len(outcome.failed) == 9
    records = workplace.records()
    assert len(records) == 9 and set(records["status"]) == {"FAILED"}
    assert set(records[schema.ATTEMPTS]) == {2}
    assert all("the run was lost 2 times" in message for message in records[schema.FAILURE_MESSAGE])


@pytest.mark.parametrize("damage", ["cut", "garbled", "gone"])
def test_a_damaged_queue_is_rebuilt(workplace: Workplace, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    def die(job: Job) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        schedule(workplace, FakePool(die))
    journal = workplace.store / "optuna.journal"
    if damage == "cut":
        journal.write_bytes(journal.read_bytes()[:-7])
    elif damage == "garbled":
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join([lines[0], b"{no json}\n", *lines[1:]]))
    else:
        journal.unlink()
    pool = FakePool(lambda job: failed(schema.NOT_FINITE, "x"))
    schedule(workplace, pool)
    assert len({job.cell_id for job in pool.started}) == len(pool.started) == 9
    if damage == "garbled":
        assert list(workplace.store.glob("optuna.journal.damaged-*"))
        assert "rebuilt" in caplog.text


def test_of_a_seed_the_longest_runs_come_first(workplace: Workplace) -> None:
    pool = FakePool(lambda job: failed(schema.NOT_FINITE, "x"))
    schedule(workplace, pool)
    seeds = [job.seed for job in pool.started]
    assert seeds == sorted(seeds), "a study that is cut short has whole pairs"
    for seed in (0, 1, 2):
        flops = [job.record.cost.flops for job in pool.started if job.seed == seed]
        assert flops == sorted(flops, reverse=True) and len(set(flops)) > 1
