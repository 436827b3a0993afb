"""Studies of thousands of cells: what is bounded, and what a cell may cost in operations. Never in time."""

import dataclasses
import io
from pathlib import Path

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState
from rich.console import Console

from analysis import schema, store
from analysis.plan_record import encode_plan
from experiments.grid import Cell, Plan
from experiments.pool import Slot
from experiments.progress import Display
from experiments.recording.describe import plan_note, plan_record, plan_view
from experiments.recording.provenance import collect
from experiments.scheduling.queue import CELL, Queue
from experiments.stores import Stores
from experiments.stores.journal import open_storage
from experiments.study import Request, make_plan
from experiments.trial import Busy, Failed, Job, Progress
from tests.experiments.conftest import Workplace
from tests.experiments.test_scheduler import FakePool, schedule

WINDOW = 4
MOST_IN_A_TAG = 20_000  # characters, as MLflow has it


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    stores = Stores(root=tmp_path_factory.mktemp("plan"))
    stores.prepare()
    return make_plan(Request(grid="methods", seeds=12), stores)[0]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "optuna.journal"


def waiting(journal: Path) -> list[str]:
    """Cells that wait in Optuna's own queue."""
    storage = open_storage(journal)
    (study,) = storage.get_all_studies()
    trials = storage.get_all_trials(study._study_id, states=(TrialState.WAITING,))
    return [trial.user_attrs[CELL] for trial in trials]


def queue_of(journal: Path, cells: list[Cell], done: dict[str, float] | None = None) -> Queue:
    queue = Queue(journal, "study", WINDOW)
    queue.reconcile(waiting=cells, done=done or {})
    return queue


def ids(cells: list[Cell]) -> list[str]:
    return [cell.cell_id for cell in cells]


def test_optunas_queue_never_holds_more_than_the_window_and_the_order_stays(plan: Plan, journal: Path) -> None:
    queue = queue_of(journal, plan.cells)
    asked = []
    while len(queue):
        cell, trial = queue.ask()
        asked.append(cell)
        assert len(waiting(journal)) == min(WINDOW - 1, len(queue)), "what is asked for makes room"
        queue.tell_done(trial, 1.0)
    assert ids(asked) == ids(plan.cells)


def test_an_interrupted_cell_waits_behind_all_others(plan: Plan, journal: Path) -> None:
    queue = queue_of(journal, plan.cells)
    first, trial = queue.ask()
    queue.put(first)
    queue.tell_failed(trial, "interrupted")
    assert len(queue) == len(plan.cells)
    rest = [queue.ask()[0] for _ in range(len(queue))]
    assert ids(rest) == [*ids(plan.cells[1:]), first.cell_id]


def test_what_was_in_memory_when_the_scheduler_died_is_queued_by_the_next(plan: Plan, journal: Path) -> None:
    first = queue_of(journal, plan.cells)
    done, trial = first.ask()
    first.tell_done(trial, 1.0)
    cut, _ = first.ask()
    second = queue_of(journal, plan.cells[1:], {done.cell_id: 1.0})
    asked = ids([second.ask()[0] for _ in range(len(second))])
    assert sorted(asked) == sorted(ids(plan.cells[1:])), "each once"
    assert asked.index(cut.cell_id) <= WINDOW, "not behind the cells that nobody has begun"


@pytest.mark.parametrize("index", [0, WINDOW, 30], ids=["in Optuna's queue", "behind it", "far behind"])
def test_a_cell_that_an_engine_still_has_is_not_asked_for(plan: Plan, journal: Path, index: int) -> None:
    queue_of(journal, plan.cells[:WINDOW]).ask()
    queue = queue_of(journal, plan.cells)
    cell, _ = queue.resume(plan.cells[index].cell_id)
    assert cell == plan.cells[index] and len(queue) == len(plan.cells) - 1
    assert cell.cell_id not in ids([queue.ask()[0] for _ in range(len(queue))])


@pytest.mark.parametrize("count", [6, 36])
def test_a_cell_takes_three_lines_of_the_journal_however_many_there_are(plan: Plan, journal: Path, count: int) -> None:
    queue = queue_of(journal, plan.cells[:count])
    before = journal.read_bytes().count(b"\n")
    while len(queue):
        queue.tell_done(queue.ask()[1], 1.0)
    assert journal.read_bytes().count(b"\n") - before == 3 * count, "queued, begun, ended"


def test_the_records_of_one_cell_are_read_alone(methods: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    every = methods.records()
    conditions = []
    search = MlflowClient.search_runs

    def watched(self: MlflowClient, experiments: list[str], condition: str, *args: object, **more: object) -> object:
        conditions.append(condition)
        return search(self, experiments, condition, *args, **more)

    monkeypatch.setattr(MlflowClient, "search_runs", watched)
    wanted = every[schema.CELL_ID][3]
    found = store.runs(methods.uri, cell_id=wanted)
    assert list(found[schema.CELL_ID]) == [wanted] and set(found["run_id"]) <= set(every["run_id"])
    assert wanted in conditions[0], "the store looks, not the reader"


def test_all_records_are_read_once_for_a_study_also_where_other_studies_have_its_cells(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str | None] = []
    runs = store.runs

    def watched(uri: str, cell_id: str | None = None) -> pd.DataFrame:
        read.append(cell_id)
        return runs(uri, cell_id=cell_id)

    monkeypatch.setattr(store, "runs", watched)
    seen: list[str] = []

    def busy_at_first(job: Job) -> Busy | Failed:
        seen.append(job.cell_id)
        first = seen.count(job.cell_id) == 1
        return Busy(recorded=True) if first else Failed(schema.NOT_FINITE, "not finite", "", "engine.py:1")

    outcome = schedule(workplace, FakePool(busy_at_first))
    assert len(outcome.failed) == 9 and len(seen) == 18
    assert read.count(None) == 1 and sorted(filter(None, read)) == sorted(set(seen))
    assert set(workplace.records()[schema.ATTEMPTS]) == {1}, "a cell that another study had was not started"


def test_a_plan_of_a_thousand_variants_fits_into_the_record(plan: Plan) -> None:
    like = plan.variants[0]
    variants = [dataclasses.replace(like, name=f"dhm at 1+2 lr {0.001 * number:g}") for number in range(1000)]
    large = dataclasses.replace(plan, variants=variants, levels={"optim.lr": [0.001 * n for n in range(5000)]})
    assert len(plan_note(large)) < MOST_IN_A_TAG and "4970 more" in plan_note(large)
    assert len(str(plan_view(large))) < MOST_IN_A_TAG
    assert max(map(len, encode_plan(plan_record(large, collect(), 0.0)).values())) < MOST_IN_A_TAG


class Screen:
    """A live table on a terminal of some lines."""

    def __init__(self, cells: list[Cell], height: int) -> None:
        console = Console(file=io.StringIO(), force_terminal=True, width=100, height=height)
        self.slots = [Slot(index=index, device="cpu", visible="", engine="slurm") for index in range(len(cells))]
        self.display = Display(console)
        self.display.begin(
            "study[/]", total=len(cells), done=0, waiting=[cell.variant.recipe for cell in cells], slots=self.slots
        )
        for slot, cell in zip(self.slots, cells, strict=True):
            self.display.started(slot, cell)

    def lines(self) -> list[str]:
        paper = Console(file=io.StringIO(), width=100)
        with paper.capture() as caught:
            paper.print(self.display._render())
        return caught.get().splitlines()


def test_the_live_table_fits_the_terminal_however_many_slots_there_are(plan: Plan) -> None:
    screen = Screen(plan.cells, height=20)
    try:
        lines = screen.lines()
        assert len(lines) <= 20
        shown = sum(" s" in line and "0/" in line for line in lines[1:])
        assert shown > 10 and f"and {len(plan.cells) - shown} more" in lines[-1]
        assert "36 running" in lines[0]
    finally:
        screen.display.close()


def test_a_cell_that_waits_at_an_engine_is_shown_with_its_job_below_those_that_run(plan: Plan) -> None:
    screen = Screen(plan.cells[:3], height=30)
    try:
        screen.display.placed(screen.slots[0], "job 17", queued=True)
        screen.display.placed(screen.slots[1], "job 18 on node3", queued=False)
        screen.display.progressed(screen.slots[1], Progress(2, 30, 12.5, 1.0))
        lines = screen.lines()
        (row,) = [number for number, line in enumerate(lines) if "job 17" in line]
        assert "queued" in lines[row] and plan.cells[0].name in lines[row] and row == len(lines) - 1
        (running,) = [line for line in lines if "job 18 on node3" in line]
        assert "2/20" in running and "12.50 %" in running
        assert "2 running, 1 queued" in lines[0]
        screen.display.placed(screen.slots[0], "job 17 on node4", queued=False)
        assert "queued" not in "".join(screen.lines())
    finally:
        screen.display.close()
