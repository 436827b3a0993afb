"""The runner: cells in slots, from the first to the last, through lost runs, failures and a wish to stop.

Ask and tell happen in this process's main thread alone, so no cell is claimed twice.
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import optuna

from analysis import schema
from dhm import checkpoint, cost
from dhm.data import DataSet
from dhm.diagnostics import Diagnostics
from dhm.recipe import Recipe
from dhm.training import Callback, Runtime
from experiments import preflight
from experiments.grid import Cell, Plan
from experiments.pool import Ended, Pool, Slot, Word
from experiments.progress import Display
from experiments.provenance import Provenance
from experiments.queue import Attempts
from experiments.records import CellRecord
from experiments.stores import Stores
from experiments.tracking import RecordInfo, Tracker
from experiments.trial import Done, Failed, Job, Lost, Progress, Pruned, Stopped

SAME_TRACE_LIMIT = 3  # cells of at least two variants that fail alike stop the study
TICK = 0.25  # seconds between looks at the clock


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How a study is run; none of it changes a result.

    Args:
        retries: how often a cell that was lost or ran out of memory is started again without having got further.
        retry: which cells that have a record are made anew: `failed`, `stale`, or none.
        runtime: of every run; its device, cache, checkpoint and parts are each cell's own.
        callbacks: what else is done in every run, such as measurements; each run gets its own copies.
        preflight: whether one step of each arm comes first.
    """

    retries: int = 2
    retry: str | None = None
    runtime: Runtime = dataclasses.field(default_factory=Runtime)
    callbacks: Sequence[Callback] = ()
    preflight: bool = False

    @property
    def measured(self) -> tuple[str, ...]:
        """What is measured besides the heads' errors, by the beginnings of its metrics' names."""
        ensembles = f"{schema.FINAL_TOP1}/{schema.ENSEMBLE}"
        asked = {schema.DIAGNOSTICS: bool(self.callbacks), ensembles: self.runtime.ensembles}
        return tuple(name for name, wanted in asked.items() if wanted)


@dataclasses.dataclass(slots=True)
class Outcome:
    """How a study ended.

    Attributes:
        done: cells that are recorded as finished, whenever.
        trained: of them, those trained now.
        copied: of them, those recorded now by copying.
        pruned: trials that were given up.
        failed: failed cells by name, with the last line of their error and the file that has the whole of it.
        missing: cells that have no result yet.
        stopped: why the study stopped before its end, if it did.
    """

    done: int = 0
    trained: int = 0
    copied: int = 0
    pruned: int = 0
    failed: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    missing: int = 0
    stopped: str | None = None


class Runner:
    """Runs cells. Whoever knows which ones, and which are done, is a subclass: `Scheduler`, `Searcher`.

    Args:
        data: the data set, as the scheduler has loaded it: its sizes are what costs depend on.
    """

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
        self._records: dict[str, CellRecord] = {}
        self._running: dict[int, tuple[Cell, optuna.Trial]] = {}
        self._given_up: set[int] = set()
        self._networks: dict[Recipe, tuple[cost.Cost, dict[str, Any]]] = {}
        self._epochs: dict[str, int] = {}
        self._lost: collections.Counter[str] = collections.Counter()
        self._alike: dict[str, list[str]] = collections.defaultdict(list)
        self._experiment_id = ""
        self._stop_reason: str | None = None
        self.outcome = Outcome()

    def stop(self, reason: str) -> None:
        """Start nothing more, and ask what runs to leave; it resumes when the study is run again."""
        if self._stop_reason is None:
            self._stop_reason = reason
            self._pool.stop()

    def close(self) -> None:
        """Take the live table away."""
        self._display.close()

    def _work(self, attempts: Attempts) -> None:
        """Run what waits until nothing does, or until it is told to stop."""
        free = list(reversed(self._pool.slots))
        while self._running or (len(attempts) and self._stop_reason is None):
            while free and len(attempts) and self._stop_reason is None:
                self._start(free.pop(), *attempts.ask())
            for event in self._pool.wait(TICK):
                if isinstance(event, Word):
                    self._hear(event.slot, event.content, attempts)
                else:
                    self._end(event, attempts)
                    free.append(event.slot)
            self._display.tick()
        self.outcome.stopped = self._stop_reason

    def _start(self, slot: Slot, cell: Cell, trial: optuna.Trial) -> None:
        cell_id = cell.cell_id
        record = self._records.get(cell_id)
        if record is None:
            run_id = self._tracker.open_run(self._experiment_id, self._plan, cell, self._provenance, None)
            record = CellRecord(run_id=run_id, state="", code=self._provenance.code, attempts=1)
        else:
            record = dataclasses.replace(record, attempts=record.attempts + 1)
            if record.code != self._provenance.code:
                # A checkpoint that other code wrote must not become half of a result of this code.
                checkpoint.remove(self._stores.checkpoint(cell_id))
            self._tracker.reopen_run(record.run_id, self._provenance, record.attempts)
        self._records[cell_id] = record
        self._running[slot.index] = cell, trial
        self._pool.start(slot, self._job(cell, slot, record.run_id), str(self._stores.log(cell_id)))
        self._display.started(slot, cell)

    def _job(self, cell: Cell, slot: Slot, run_id: str) -> Job:
        recipe, options = cell.variant.recipe, self._options
        measured, topology = self._network(recipe)
        environment = {
            **self._provenance.environment,
            "threads": options.runtime.threads,
            "slot": slot.name,
            "deterministic": options.runtime.deterministic,
            "diagnostics": next((c.settings for c in options.callbacks if isinstance(c, Diagnostics)), None),
        }
        return Job(
            cell_id=cell.cell_id,
            recipe=recipe,
            seed=cell.seed,
            runtime=self._runtime(slot, checkpoint=self._stores.checkpoint(cell.cell_id), parts=cell.parts),
            record=RecordInfo(
                tracking_uri=self._tracker.uri,
                run_id=run_id,
                cost=measured,
                files={
                    schema.RECIPE_FILE: cell.document,
                    schema.TOPOLOGY_FILE: topology,
                    schema.ENVIRONMENT_FILE: environment,
                },
                patch=self._provenance.patch,
            ),
            lock=self._stores.lock(cell.cell_id),
            # They look at test images.
            callbacks=options.callbacks if "test" in cell.parts else (),
            judged_by=cell.judged_by,
        )

    def _runtime(self, slot: Slot, **own: Any) -> Runtime:
        return dataclasses.replace(self._options.runtime, device=slot.device, cache=self._stores.cache, **own)

    def _prove(self, cells: Sequence[Cell]) -> None:
        """See that what is to be trained can be, as far as one step tells. A ValueError where it cannot."""
        if cells and self._options.preflight:
            runtime = self._runtime(self._pool.slots[0], parts=cells[0].parts)
            log = self._stores.log(f"preflight-{self._plan.plan_id}")
            self._display.proven(preflight.check(self._plan, cells, self._pool, runtime, log))

    def _network(self, recipe: Recipe) -> tuple[cost.Cost, dict[str, Any]]:
        """What a recipe's network costs, and its topology; the same for all seeds."""
        if recipe not in self._networks:
            shape = {"channels": self._data.channels, "num_classes": self._data.num_classes}
            measured = cost.measure(recipe, size=self._data.image_shape, **shape)
            self._networks[recipe] = measured, cost.topology(recipe, **shape)
        return self._networks[recipe]

    def _hear(self, slot: Slot, progress: Progress, attempts: Attempts) -> None:
        cell, trial = self._running[slot.index]
        if progress.epoch > self._epochs.get(cell.cell_id, 0):
            self._epochs[cell.cell_id] = progress.epoch
            self._lost[cell.cell_id] = 0
        self._display.progressed(slot, progress)
        if slot.index not in self._given_up and attempts.report(cell, trial, progress):
            self._given_up.add(slot.index)
            self._pool.stop(slot)

    def _end(self, event: Ended, attempts: Attempts) -> None:
        if isinstance(event.outcome, Lost):
            event = Ended(event.slot, lost=event.outcome.how)
        cell, trial = self._running.pop(event.slot.index)
        given_up = event.slot.index in self._given_up
        self._given_up.discard(event.slot.index)
        run_id = self._records[cell.cell_id].run_id
        outcome = event.outcome
        if isinstance(outcome, Done):
            attempts.tell_done(trial, outcome.top1_error)
            self.outcome.done += 1
            self.outcome.trained += 1
        elif given_up and not isinstance(outcome, Failed):
            outcome = Pruned(self._epochs[cell.cell_id])
            self._tracker.close_pruned(run_id, outcome.epoch)
            attempts.tell_pruned(trial)
            checkpoint.remove(self._stores.checkpoint(cell.cell_id))
            self.outcome.pruned += 1
        elif isinstance(outcome, Stopped) or self._may_go_on(cell, event):
            self._tracker.close_interrupted(run_id)
            attempts.tell_failed(trial, f"interrupted: {event.lost or outcome}")
            attempts.put(cell)
        else:
            failure = outcome if isinstance(outcome, Failed) else self._lost_for_good(cell, event)
            self._tracker.close_failed(run_id, failure.failure, failure.message, failure.trace)
            attempts.tell_failed(trial, failure.message)
            self._note_failure(cell, failure.message)
            self._watch_traces(cell, failure)
        self._display.ended(event.slot, cell, outcome, event.lost)

    def _may_go_on(self, cell: Cell, event: Ended) -> bool:
        """Only where it may help: a run that was killed from outside, or that ran out of memory."""
        if event.lost is None and event.outcome.failure != schema.OUT_OF_MEMORY:
            return False
        if event.lost is not None and self._stop_reason is not None:
            return True
        self._lost[cell.cell_id] += 1
        return self._lost[cell.cell_id] <= self._options.retries

    def _lost_for_good(self, cell: Cell, event: Ended) -> Failed:
        message = f"the run was lost {self._lost[cell.cell_id]} times without getting further ({event.lost})"
        return Failed(schema.ERROR, message, message, f"{event.lost} {cell.cell_id}")

    def _note_failure(self, cell: Cell, message: str) -> None:
        self.outcome.failed[cell.name] = (message, str(self._stores.log(cell.cell_id)))

    def _watch_traces(self, cell: Cell, failure: Failed) -> None:
        """Stop a study whose cells fail alike: the mistake is not theirs. A loss that diverges is a cell's own."""
        if failure.failure == schema.NOT_FINITE:
            return
        alike = self._alike[failure.place]
        alike.append(cell.variant.name)
        if len(alike) >= SAME_TRACE_LIMIT and len(set(alike)) > 1:
            self.stop(f"{len(alike)} cells failed alike, {failure.place}:\n{failure.trace}")
