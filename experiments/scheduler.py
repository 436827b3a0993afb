"""The scheduler: one owner of a study, who reconciles it with what is recorded and runs what is missing.

Optuna's journal holds the queue and the attempts, MLflow the results; a cell is done when its MLflow run is FINISHED.
"""

import dataclasses
import time

from analysis import store
from dhm import checkpoint
from experiments.queue import Queue
from experiments.records import DONE, FAILED, CellRecord, of_plan, originals
from experiments.runner import Outcome, Runner


class Scheduler(Runner):
    """Runs the cells of a plan that are missing."""

    def run(self) -> Outcome:
        """Reconcile, then run what is missing until nothing is, or until it is told to stop."""
        plan = self._plan
        self._cells = {cell.cell_id: cell for cell in plan.cells}
        self._experiment_id = self._tracker.record_plan(plan, self._provenance, time.time())
        queue = self._reconcile()
        self._display.begin(
            f"{plan.experiment}[/]: {len(plan.variants)} variants x {len(plan.seeds)} seeds = {len(self._cells)} cells",
            total=len(self._cells),
            done=self.outcome.done,
            waiting=len(queue),
            slots=self._pool.slots,
        )
        self._work(queue)
        self.outcome.missing = len(self._cells) - self.outcome.done - len(self.outcome.failed)
        return self.outcome

    def _reconcile(self) -> Queue:
        """Hold the plan against the records: close what a dead scheduler left open, copy what was trained for another
        plan, and queue the rest."""
        runs = store.runs(self._tracker.uri)
        self._records = of_plan(runs, self._plan)
        # A plan that measures more than the rest does trains its cells itself.
        sources = originals(runs, self._provenance.code, self._options.measured)
        waiting = []
        wanted = [cell_id for cell_id in self._cells if not self._settled(cell_id)]
        for cell_id in wanted:
            record = self._records.get(cell_id)
            if record is None and cell_id in sources:
                self._copy(cell_id, sources[cell_id])
                continue
            if record is not None and record.running:
                self._tracker.close_interrupted(record.run_id)
            waiting.append(cell_id)
        done = {cell_id: record for cell_id, record in self._records.items() if record.state == DONE}
        for cell_id in done:
            checkpoint.remove(self._stores.checkpoint(cell_id))
        self.outcome.done = len(done)
        for cell_id, record in self._records.items():
            if record.state == FAILED and cell_id not in waiting:
                self._note_failure(self._cells[cell_id], record.message)
        self._prove([self._cells[cell_id] for cell_id in waiting])
        queue = Queue(self._stores.journal, f"{self._plan.experiment} {self._plan.plan_id}")
        queue.reconcile(
            waiting=[self._cells[cell_id] for cell_id in waiting],
            done={cell_id: record.top1_error for cell_id, record in done.items()},
        )
        return queue

    def _settled(self, cell_id: str) -> bool:
        """Whether a cell's record stands as it is; one that is to be made anew is discarded."""
        record = self._records.get(cell_id)
        if record is None:
            return False
        if record.state == DONE and self._options.retry == "stale" and record.code != self._provenance.code:
            self._tracker.discard(record.run_id)
            del self._records[cell_id]
            return False
        return record.state == DONE or (record.state == FAILED and self._options.retry != "failed")

    def _copy(self, cell_id: str, source: CellRecord) -> None:
        cell = self._cells[cell_id]
        run_id = self._tracker.copy_record(source.run_id, self._experiment_id, self._plan, cell, self._provenance)
        self._records[cell_id] = dataclasses.replace(source, run_id=run_id)
        self.outcome.copied += 1
