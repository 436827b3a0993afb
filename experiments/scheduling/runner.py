"""The runner: cells in slots, from the first to the last, through lost runs, failures and a wish to stop.

Ask and tell happen in this process's main thread alone, so no cell is claimed twice.
"""

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna

from analysis import schema
from dhm import checkpoint
from dhm.data import DataSet
from experiments.grid import Cell, Plan
from experiments.pool import Ended, Placed, Pool, Slot, Word
from experiments.progress import Display
from experiments.recording.opening import Opening
from experiments.recording.patience import trouble_of
from experiments.recording.provenance import Provenance
from experiments.recording.records import DONE, FAILED, RUNNING, CellRecord
from experiments.recording.tracking import Tracker
from experiments.scheduling import preflight
from experiments.scheduling.jobs import Jobs
from experiments.scheduling.options import Options
from experiments.scheduling.outcome import Outcome
from experiments.scheduling.queue import Attempts
from experiments.scheduling.retries import Retries, one_per_device
from experiments.stores import Stores
from experiments.trial import Blocked, Busy, Done, Failed, Lost, Note, Opened, Progress, Pruned

TICK = 0.25  # seconds between looks at the clock


class Runner:
    """Runs cells. Whoever knows which ones, and which are done, is a subclass: `Scheduler`, `Searcher`.

    Args:
        data: the data set, as the scheduler has loaded it.
    """

    _shares = True  # whether a record that another study made of a cell will do

    def __init__(
        self,
        *,
        plan: Plan,
        data: DataSet,
        pool: Pool,
        stores: Stores,
        tracker: Tracker,
        provenance: Provenance,
        display: Display,
        options: Options,
    ) -> None:
        self._plan, self._data, self._pool, self._stores = plan, data, pool, stores
        self._tracker, self._provenance, self._display, self._options = tracker, provenance, display, options
        self._jobs = Jobs(data, stores, provenance, options)
        self._records: dict[str, CellRecord] = {}
        self._running: dict[int, tuple[Cell, optuna.Trial]] = {}
        self._living: dict[str, Slot] = {}
        self._given_up: set[int] = set()
        self._attempts: dict[str, int] = {}
        self._retries = Retries(options.retries)
        self._crowded: list[Cell] = []
        self._own: set[str] = set()
        self._experiment_id = ""
        self._stop_reason: str | None = None
        tracker.patience.hurried = lambda: self._stop_reason is not None
        self.outcome = Outcome()

    def stop(self, reason: str) -> None:
        """Start nothing more, and ask what runs to leave; it resumes when the study is run again."""
        if self._stop_reason is None:
            self._stop_reason = reason
            self._pool.stop()

    def close(self) -> None:
        """Take the live table away."""
        self._display.close()

    def _refuse_elsewhere(self, records: Iterable[CellRecord]) -> None:
        """A ValueError where a scheduler with another store may be running the same study: neither sees the lock of the
        other. One that is known to be dead is another matter, see `analysis.liveness`."""
        if self._options.retry == RUNNING.lower():
            return
        running = [record.run_id for record in records if record.state == RUNNING]
        owners = self._tracker.owners_elsewhere(self._plan, running)
        if owners:
            raise ValueError(
                f"this study is recorded as being run by {', '.join(sorted(owners))}: wait for it, or give the same "
                f"folder, store=DIR, as it has. If it is dead, retry={RUNNING.lower()} takes over what it left open"
            )

    def _find_living(self, study: str, unsettled: Collection[str]) -> None:
        """Learn which cells an earlier scheduler of the study started and an engine still has: they go on as they are,
        and what is over, or would be trained by other code, is taken from the engine.

        Args:
            unsettled: ids of the cells that have no end yet.
        """

        def wanted(job: Any) -> bool:
            return getattr(job, "cell_id", "") in unsettled and getattr(job, "code", "") == self._provenance.code

        found = self._pool.begin(study, wanted)
        self._living = {job.cell_id: self._pool.slots[index] for index, job in found.items()}
        # One that an engine has not begun yet has no record that tells.
        self._attempts |= {job.cell_id: job.record.opening.attempt for job in found.values()}

    def _work(self, attempts: Attempts) -> None:
        """Run what waits until nothing does, or until it is told to stop."""
        for cell_id, slot in self._living.items():
            cell, trial = attempts.resume(cell_id)
            self._running[slot.index] = cell, trial
            self._display.started(slot, cell)
        self._drain(attempts, [slot for slot in self._pool.slots if slot.index not in self._running])
        while self._crowded and self._stop_reason is None:
            crowded, self._crowded = self._crowded, []
            for cell in crowded:
                attempts.put(cell)
            self._drain(attempts, one_per_device(self._pool.slots))
        self.outcome.stopped = self._stop_reason

    def _drain(self, attempts: Attempts, slots: Sequence[Slot]) -> None:
        free = list(reversed(slots))
        while self._running or (len(attempts) and self._stop_reason is None):
            while free and len(attempts) and self._stop_reason is None:
                with self._stopping_at_trouble():
                    self._start(free.pop(), *attempts.ask())
            for event in self._pool.wait(TICK):
                with self._stopping_at_trouble():
                    if isinstance(event, Word):
                        self._hear(event.slot, event.content, attempts)
                    elif isinstance(event, Placed):
                        self._display.placed(event.slot, event.place, queued=event.queued)
                    else:
                        free.append(event.slot)
                        self._end(event, attempts)
            self._display.tick()

    @contextlib.contextmanager
    def _stopping_at_trouble(self) -> Iterator[None]:
        """Where nothing can be recorded any more the study stops in order; what it lacks is found out by the next."""
        try:
            yield
        except Exception as error:
            trouble = trouble_of(error)
            if trouble is None:
                raise
            self.stop(trouble.words)

    def _start(self, slot: Slot, cell: Cell, trial: optuna.Trial) -> None:
        self._attempts[cell.cell_id] = self._attempt(cell) + 1
        shared = self._shares and cell.cell_id not in self._own
        job = self._jobs.make(cell, slot, self._opening(cell), shared=shared)
        self._pool.start(slot, job, str(self._stores.log(cell.cell_id)))
        self._running[slot.index] = cell, trial
        self._display.started(slot, cell)

    def _attempt(self, cell: Cell) -> int:
        """How often a cell was started by now."""
        record = self._records.get(cell.cell_id)
        return self._attempts.get(cell.cell_id, 0 if record is None else record.attempts)

    def _opening(self, cell: Cell) -> Opening:
        """What the record of a cell begins with, or goes on with, at its present attempt."""
        record = self._records.get(cell.cell_id)
        first = self._tracker.opening(self._experiment_id, self._plan, cell, self._provenance)
        return first.at(self._attempt(cell), None if record is None else record.run_id)

    def _run_id(self, cell: Cell) -> str | None:
        """Of a cell's record; none where its run was lost before it began one."""
        record = self._records.get(cell.cell_id)
        return self._tracker.find(self._opening(cell)) if record is None else record.run_id

    def _checkpoint(self, cell: Cell) -> Path:
        return self._stores.checkpoint(cell.cell_id, self._provenance.code)

    def _discard(self, cell_id: str) -> None:
        """Forget a record that is to be made anew."""
        record = self._records.pop(cell_id)
        checkpoint.remove(self._stores.checkpoint(cell_id, record.code))
        self._tracker.discard(record.run_id)

    def _outdated(self, record: CellRecord, state: str) -> bool:
        """Whether other code made a record that is to be made anew: one that is done only when that is asked for; one
        that is not done always, since half of a curve must not be of other code."""
        if record.code == self._provenance.code:
            return False
        asked = {DONE: "stale", FAILED: "failed"}.get(state)
        return asked is None or self._options.retry == asked

    def _taken_over(self, cell: Cell, trial: optuna.Trial, attempts: Attempts) -> bool:
        """Whether a cell that another study was training is done by now, and needs no training here."""
        return False

    def _prove(self, cells: Sequence[Cell]) -> None:
        """See that what is to be trained can be, as far as one step tells. A ValueError where it cannot."""
        if cells and self._options.preflight and not self._living:  # it was done before they were started
            pool = self._pool.here
            runtime = self._jobs.runtime(pool.slots[0], parts=cells[0].parts)
            log = self._stores.log(f"preflight-{self._plan.plan_id}")
            self._display.proven(preflight.check(self._plan, cells, pool, runtime, log))

    def _hear(self, slot: Slot, content: Opened | Progress | Note, attempts: Attempts) -> None:
        cell, trial = self._running[slot.index]
        if isinstance(content, Opened):
            self._records[cell.cell_id] = CellRecord(
                run_id=content.run_id, state=RUNNING, code=self._provenance.code, attempts=self._attempt(cell)
            )
            return
        if isinstance(content, Note):
            self._display.say(f"{cell.name}: {content.text}")
            return
        self._retries.progressed(cell, content.epoch, content.saved)
        self._display.progressed(slot, content)
        if content.part or slot.index in self._given_up:
            return
        if attempts.report(cell, trial, content):
            self._given_up.add(slot.index)
            self._pool.stop(slot)

    def _end(self, event: Ended, attempts: Attempts) -> None:
        if isinstance(event.outcome, Lost):
            event = Ended(event.slot, lost=event.outcome.how)
        cell, trial = self._running.pop(event.slot.index)
        given_up = event.slot.index in self._given_up
        self._given_up.discard(event.slot.index)
        outcome = event.outcome
        if isinstance(outcome, Blocked):
            self.stop(outcome.reason)
        if isinstance(outcome, Done):
            self.outcome.done += 1
            self.outcome.trained += 1
            attempts.tell_done(trial, outcome.top1_error)
        elif given_up and not isinstance(outcome, Failed | Blocked):
            outcome = Pruned(self._retries.epochs(cell))
            self.outcome.pruned += 1
            self._tracker.close_pruned(self._records[cell.cell_id].run_id, outcome.epoch)
            attempts.tell_pruned(trial)
            checkpoint.remove(self._checkpoint(cell))
        elif not (isinstance(outcome, Busy) and self._taken_over(cell, trial, attempts)):
            if isinstance(outcome, Busy) and outcome.recorded:
                self._own.add(cell.cell_id)  # that record lacks something
            again = self._again(cell, event)
            if isinstance(outcome, Busy):
                self._attempts[cell.cell_id] -= 1  # it waited, and was not started
            if again is not None:
                self._display.ended(event.slot, cell, None, again)
                self._interrupt(cell, trial, attempts, again, crowded=isinstance(outcome, Failed))
                return
            outcome = self._retries.given_up(cell, outcome, event.lost)
            self._fail(cell, trial, attempts, outcome)
        self._display.ended(event.slot, cell, outcome, None)

    def _again(self, cell: Cell, event: Ended) -> str | None:
        """What interrupted a run that is to be started again; none where that would not help."""
        outcome = event.outcome
        if isinstance(outcome, Failed):
            helps = outcome.failure == schema.OUT_OF_MEMORY and self._retries.after_memory(cell)
            return "out of memory" if helps else None
        if event.lost is not None:
            helps = self._stop_reason is not None or self._retries.after_loss(cell)
            return event.lost if helps else None
        if isinstance(outcome, Busy):
            return "its record elsewhere lacks what is measured here" if outcome.recorded else "another study has it"
        return "nothing could be recorded" if isinstance(outcome, Blocked) else "stopped"

    def _interrupt(self, cell: Cell, trial: optuna.Trial, attempts: Attempts, why: str, *, crowded: bool) -> None:
        if crowded:
            self._crowded.append(cell)
        else:
            attempts.put(cell)
        attempts.tell_failed(trial, f"interrupted: {why}")
        run_id = self._run_id(cell)
        if run_id is not None:
            self._tracker.close_interrupted(run_id, why)

    def _fail(self, cell: Cell, trial: optuna.Trial, attempts: Attempts, failure: Failed) -> None:
        run_id = self._run_id(cell) or self._tracker.open_run(self._opening(cell))
        self._tracker.close_failed(run_id, failure.failure, failure.message, failure.trace)
        self._note_failure(cell, failure.message)
        attempts.tell_failed(trial, failure.message)
        common = self._retries.common_failure(cell, failure)
        if common is not None:
            self.stop(common)

    def _note_failure(self, cell: Cell, message: str) -> None:
        self.outcome.failed[cell.name] = (message, str(self._stores.log(cell.cell_id)))
