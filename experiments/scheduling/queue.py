"""The queue of a study, and its attempts: Optuna trials on a journal, with the factors as their attributes."""

import abc
import collections
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.trial import TrialState, create_trial

from experiments.grid import Cell
from experiments.stores.journal import open_study
from experiments.trial import Progress

CELL = "cell_id"
WHY = "why"


class Attempts(abc.ABC):
    """Where a runner gets its cells, and whom it tells what became of them. An attempt on a cell is an Optuna trial.

    Args:
        journal: file of Optuna's journal, or URL of a database in its place. A file that cannot be read is set aside;
            what it held is rebuilt from the tracking store.
        name: of the study.
    """

    def __init__(self, journal: Path | str, name: str, pruner: BasePruner | None = None) -> None:
        self._study = open_study(journal, name, pruner)

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many cells wait."""

    @abc.abstractmethod
    def ask(self) -> tuple[Cell, optuna.Trial]:
        """The next cell, and the trial that its attempt is."""

    @abc.abstractmethod
    def put(self, cell: Cell) -> None:
        """A cell whose attempt was interrupted waits again."""

    @abc.abstractmethod
    def resume(self, cell_id: str) -> tuple[Cell, optuna.Trial]:
        """A cell that waits, and a trial for its attempt, which an earlier scheduler began and which goes on."""

    def _begun(self, cell: Cell, **known: Any) -> optuna.Trial:
        attributes = {CELL: cell.cell_id, **cell.variant.factors}
        self._study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs=attributes, **known))
        return optuna.Trial(self._study, self._study.get_trials(deepcopy=False)[-1]._trial_id)

    def report(self, cell: Cell, trial: optuna.Trial, progress: Progress) -> bool:
        """The attempt got further; whether it is to be given up."""
        return False

    def tell_done(self, trial: optuna.Trial, error: float) -> None:
        """The attempt ended with a result, in percent."""
        self._study.tell(trial, error)

    def tell_pruned(self, trial: optuna.Trial) -> None:
        """The attempt was given up."""
        self._study.tell(trial, state=TrialState.PRUNED)

    def tell_failed(self, trial: optuna.Trial, why: str) -> None:
        """The attempt ended without a result."""
        trial.set_user_attr(WHY, why)
        self._study.tell(trial, state=TrialState.FAIL)

    def _close_orphans(self) -> None:
        """Attempts that are open belong to a dead scheduler: this one holds the lock."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)


class Queue(Attempts):
    """Cells that wait to be run, first in, first out: the first of them in Optuna's own queue, the rest in memory.

    Args:
        window: how many cells Optuna's queue holds at most, so that a large study begins at once. What is in memory
            when a scheduler dies is found missing by the next one.
    """

    def __init__(self, journal: Path | str, name: str, window: int) -> None:
        super().__init__(journal, name)
        self._window = window
        self._enqueued: dict[str, Cell] = {}
        self._behind: collections.OrderedDict[str, Cell] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._enqueued) + len(self._behind)

    def reconcile(self, *, waiting: Iterable[Cell], done: Mapping[str, float]) -> None:
        """Make the queue hold just the cells that wait, and the record of attempts all that are done.

        Args:
            done: error in percent by cell.
        """
        self._close_orphans()
        queued, told = set(), set()
        for trial in self._study.get_trials(deepcopy=False):
            cell_id = trial.user_attrs.get(CELL)
            if trial.state == TrialState.WAITING:
                queued.add(cell_id)
            elif trial.state == TrialState.COMPLETE:
                told.add(cell_id)
        for cell_id, error in done.items():
            if cell_id not in told:
                self._study.add_trial(create_trial(value=error, user_attrs={CELL: cell_id}))
        # Trials that wait for cells that are no longer wanted are passed over when they are asked for.
        for cell in waiting:
            if cell.cell_id in queued:
                self._enqueued[cell.cell_id] = cell
            else:
                self.put(cell)

    def put(self, cell: Cell) -> None:
        """Queue a cell, behind all others."""
        self._behind[cell.cell_id] = cell

    def _fill_window(self) -> None:
        while self._behind and len(self._enqueued) < self._window:
            cell_id, cell = self._behind.popitem(last=False)
            self._study.enqueue_trial({}, user_attrs={CELL: cell_id, **cell.variant.factors})
            self._enqueued[cell_id] = cell

    def ask(self) -> tuple[Cell, optuna.Trial]:
        """See `Attempts.ask`."""
        assert len(self) > 0, "the queue is empty"
        self._fill_window()
        while True:
            trial = self._study.ask()
            cell = self._enqueued.pop(str(trial.user_attrs.get(CELL)), None)
            if cell is not None:
                return cell, trial
            self.tell_failed(trial, "the cell is no longer part of the plan, or queued twice")

    def resume(self, cell_id: str) -> tuple[Cell, optuna.Trial]:
        """See `Attempts.resume`."""
        cell = self._enqueued.pop(cell_id, None) or self._behind.pop(cell_id)
        return cell, self._begun(cell)
