"""The scheduler: one owner of a study, who reconciles it with what is recorded and runs what is missing.

Optuna's journal holds the queue and the attempts, MLflow the results; a cell is done when its MLflow run is FINISHED.
"""

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence

import optuna
import pandas as pd

from analysis import store
from analysis.liveness import ORPHANED
from dhm import checkpoint
from experiments.costs import operations_of
from experiments.grid import Cell
from experiments.recording.records import DONE, FAILED, RUNNING, CellRecord, of_plan, originals, surplus
from experiments.scheduling.outcome import Outcome
from experiments.scheduling.queue import Attempts, Queue
from experiments.scheduling.runner import Runner

CELLS_A_SLOT = 2  # of those that wait, in Optuna's own queue; the others wait in memory


class Scheduler(Runner):
    """Runs the cells of a plan that are missing."""

    def run(self) -> Outcome:
        """Reconcile, then run what is missing until nothing is, or until it is told to stop."""
        plan = self._plan
        self._cells = {cell.cell_id: cell for cell in plan.cells}
        runs = self._tracker.patience(lambda: store.runs(self._tracker.uri))
        self._records = of_plan(runs, plan)
        self._refuse_elsewhere(self._records.values())
        self._experiment_id = self._tracker.record_plan(plan, self._provenance, time.time())
        queue = self._reconcile(runs)
        count = len(plan.seeds)
        seeds = f"{'up to ' if plan.looks else ''}{count} seed{'s' if count > 1 else ''}"
        self._display.begin(
            f"{plan.experiment}[/]: {len(plan.variants)} variants x {seeds} = {len(self._cells)} cells",
            total=len(self._cells),
            done=self.outcome.done,
            waiting=self._ahead,
            slots=self._pool.slots,
        )
        self._work(queue)
        self.outcome.missing = len(self._cells) - self.outcome.done - len(self.outcome.failed)
        return self.outcome

    def _reconcile(self, runs: pd.DataFrame) -> Queue:
        """Hold the plan against the records: close what a dead scheduler left open, copy what was trained for another
        plan, and queue the rest."""
        self._display.learn(runs)
        for run_id in surplus(runs, self._plan):
            self._tracker.discard(run_id)
        for cell_id, record in list(self._records.items()):
            if self._outdated(record, record.state):
                self._discard(cell_id)
        over = {cell_id for cell_id, record in self._records.items() if record.state in (DONE, FAILED)}
        self._find_living(self._plan.plan_id, self._cells.keys() - over)
        sources = self._sources(runs)
        waiting = []
        for cell_id in self._cells:
            state = self._records[cell_id].state if cell_id in self._records else None
            settled = state == DONE or (state == FAILED and self._options.retry != "failed")
            living = cell_id in self._living
            if settled or (not living and self._copied(cell_id, sources)):
                continue
            if state in (RUNNING, ORPHANED) and not living:
                self._tracker.close_interrupted(self._records[cell_id].run_id, "its scheduler died")
            waiting.append(cell_id)
        done = {cell_id: record for cell_id, record in self._records.items() if record.state == DONE}
        for cell_id, record in done.items():
            checkpoint.remove(self._stores.checkpoint(cell_id, record.code))
        self.outcome.done = len(done)
        stale = sum(record.code != self._provenance.code for record in done.values())
        if stale:
            mixed = "; without it no table can be made of them and of those that are trained now" if waiting else ""
            self._display.say_once(
                f"{stale} of the cells that are done were trained by other code than that which is here; "
                f"they stay as they are, and retry=stale trains them again{mixed}"
            )
        queued = set(waiting)
        begun = sum(self._stores.checkpoint(cell_id, self._provenance.code).exists() for cell_id in waiting)
        if begun:
            self._display.say(f"from the last epoch of an earlier attempt: {begun} of the {len(waiting)} cells to run")
        for cell_id, record in self._records.items():
            if record.state == FAILED and cell_id not in queued:
                self._note_failure(self._cells[cell_id], record.message)
        self._prove([self._cells[cell_id] for cell_id in waiting])
        ordered = self._longest_first([self._cells[cell_id] for cell_id in waiting])
        self._ahead = [cell.variant.recipe for cell in ordered]
        name = f"{self._plan.experiment} {self._plan.plan_id}"
        queue = Queue(self._stores.journal, name, CELLS_A_SLOT * len(self._pool.slots))
        queue.reconcile(
            waiting=ordered,
            done={cell_id: record.top1_error for cell_id, record in done.items()},
        )
        return queue

    def _longest_first(self, cells: Sequence[Cell]) -> list[Cell]:
        """Seed by seed as in the plan, and of a seed the longest runs first: so the slots end together."""
        work = functools.cache(lambda recipe: operations_of(recipe, self._data, self._stores))
        place = {seed: index for index, seed in enumerate(self._plan.seeds)}
        return sorted(cells, key=lambda cell: (place[cell.seed], -work(cell.variant.recipe)))

    def _sources(self, runs: pd.DataFrame) -> dict[str, CellRecord]:
        # A plan that measures more than the rest does trains its cells itself.
        return originals(runs, self._provenance.code, self._options.measured)

    def _copied(self, cell_id: str, sources: Mapping[str, CellRecord]) -> bool:
        """Whether a cell is done by having been trained for another plan; its record is copied then."""
        if cell_id not in sources:
            return False
        if cell_id in self._records:
            self._discard(cell_id)
        source, cell = sources[cell_id], self._cells[cell_id]
        run_id = self._tracker.copy_record(source.run_id, self._experiment_id, self._plan, cell, self._provenance)
        self._records[cell_id] = dataclasses.replace(source, run_id=run_id)
        self.outcome.copied += 1
        return True

    def _taken_over(self, cell: Cell, trial: optuna.Trial, attempts: Attempts) -> bool:
        """See `Runner._taken_over`."""
        runs = self._tracker.patience(lambda: store.runs(self._tracker.uri, cell_id=cell.cell_id))
        if not self._copied(cell.cell_id, self._sources(runs)):
            return False
        self.outcome.done += 1
        attempts.tell_done(trial, self._records[cell.cell_id].top1_error)
        return True
